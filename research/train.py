#!/usr/bin/env python3
"""Trains a plain network and its gated twin on one data set and writes both, exported, below --out. See README.md."""

import argparse
import os
import sys
from pathlib import Path

# Threads that wait without spinning lose little on a free machine and save most of a busy one; read by libgomp once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent))

import stages  # noqa: E402
from data import DATASETS, load  # noqa: E402
from recipes import RECIPES, SMOKE  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, help="folder of the data set (default .cache/data/DATASET)")
    parser.add_argument("--out", type=Path, default=Path("models"), help="where the exported networks go")
    parser.add_argument("--checkpoints", type=Path, default=Path(".cache/training"))
    parser.add_argument("--stages", choices=stages.ORDER, nargs="+", default=stages.ORDER, help="only these stages")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="one short pass through every stage on 2,000 images")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    dataset = DATASETS[options.dataset]
    recipe = SMOKE if options.smoke else RECIPES[options.dataset]
    train, test = load(dataset, options.data or Path(".cache/data") / dataset.name)
    if options.smoke:
        picked = torch.Generator().manual_seed(options.seed)
        train = train.take(torch.randperm(len(train), generator=picked)[:2000])
        test = test.take(torch.randperm(len(test), generator=picked)[:500])
    stages.Pipeline(dataset, recipe, train, test, options).run(options.stages)


if __name__ == "__main__":
    main()
