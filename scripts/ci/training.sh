#!/usr/bin/env bash
# Tests of the recipe, the protocol and adapt.py. Recipe and protocol in short, on 2,000 images: what they export must
# agree with PyTorch in the engine. Then the reproduction's script on a part of a test set.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
/usr/bin/python3 -m unittest discover training
node scripts/fetch-data.mjs mnist --to "$folder/data"
/usr/bin/python3 training/train.py mnist --smoke --data "$folder/data/mnist" --out "$folder/models" --checkpoints "$folder/checkpoints"
for network in "$folder"/models/*; do
  node scripts/ci/reference.mjs "$network" "$folder/data/mnist"
done
/usr/bin/python3 training/protocol.py --smoke --data "$folder/data" --to "$folder/protocol"
for network in "$folder"/protocol/mnist/*; do
  node scripts/ci/reference.mjs "$network" "$folder/protocol/data/mnist-validation"
done
for network in models/mnist-*; do
  node scripts/ci/reference.mjs "$network" "$folder/data/mnist"
done
node bench/reproduce.mjs mnist --data "$folder/data" --limit 100
