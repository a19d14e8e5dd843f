#!/usr/bin/env bash
# Tests adapt.py and the protocol. Runs a short version of the protocol on 2,000 images; the engine's results for the exported
# networks must agree with PyTorch's. Then measures these networks, and the shipped ones for MNIST, on a part of the test set.
set -euo pipefail
# Other steps run beside this one: PyTorch's threads would wait for each other at every small operation.
export OMP_NUM_THREADS=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
/usr/bin/python3 -m unittest discover adapt
/usr/bin/python3 -m unittest discover research
node scripts/fetch-data.mjs mnist --to "$folder/data"
/usr/bin/python3 research/protocol.py --smoke --data "$folder/data" --to "$folder/protocol"
for network in "$folder"/protocol/mnist/*; do
  node scripts/ci/reference.mjs "$network" "$folder/protocol/data/mnist-validation"
done
# The test set isn't read until the policies are registered in a commit.
cards=$folder/cards
reproduce() { node research/measure/reproduce.mjs "$folder/protocol" --cards "$cards" --data "$folder/data" --limit 100 "$@"; }
node research/measure/register.mjs "$folder/protocol" --cards "$cards"
reproduce --part validation
git -C "$cards" init --quiet
if reproduce 2>/dev/null; then
  echo 'FAIL: the test set was read without a registration'
  exit 1
fi
git -C "$cards" add .
git -C "$cards" -c user.name=ci -c user.email=ci@localhost commit --quiet --message 'Register'
reproduce
for network in models/mnist-*; do
  node scripts/ci/reference.mjs "$network" "$folder/data/mnist"
done
node bench/reproduce.mjs mnist --data "$folder/data" --limit 100
