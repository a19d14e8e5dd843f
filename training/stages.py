"""The recipe's stages, in order. Each resumes from its own checkpoint and is passed over when it is done."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch

from data import Dataset, Split
from network import ResNet
from progress import report
from recipes import Recipe
from trainer import Stage, accuracy, predict, seeded, sgd, smoothed_cross_entropy

ORDER = ["trunk", "plain"]


def build(dataset: Dataset, recipe: Recipe, gated: bool, seed: int) -> ResNet:
    torch.manual_seed(seed)
    network = ResNet(dataset.channels, len(dataset.labels), recipe.depths, recipe.widths, gated)
    return network.to(memory_format=torch.channels_last)


def run(dataset: Dataset, recipe: Recipe, train: Split, test: Split, options: Namespace) -> None:
    peak = recipe.peak_rate
    folder = options.checkpoints / (dataset.name + ("-smoke" if options.smoke else ""))
    sample = test.take(torch.randperm(len(test), generator=seeded(0, "sample", 0))[:2000])

    def plain_loss(images, labels, step, steps):
        return smoothed_cross_entropy(network.run(images, everything)[0], labels)

    def full_accuracy() -> str:
        return f"accuracy {accuracy(predict(network, dataset, sample, everything)[0], sample.labels):.4f} of 2,000"

    network = build(dataset, recipe, False, options.seed)
    everything = [True] * len(network.blocks)
    report(f"{dataset.name}: ResNet-{network.layers}, {network.costs(dataset.size)[0] / 1e6:.1f} M multiply-adds")
    warm = lambda done: peak * min(1.0, 0.05 + done * recipe.trunk)  # noqa: E731
    trunk = Stage("trunk", network, sgd(network.parameters()), plain_loss, warm, recipe.trunk, folder / "trunk.pt")
    trunk.run(dataset, train, full_accuracy, recipe.batch, options.seed)
    if options.until == "trunk":
        return
    optimizer = sgd(network.parameters())
    fall = lambda done: peak * (1 - done)  # noqa: E731
    plain = Stage("plain", network, optimizer, plain_loss, fall, recipe.decay, folder / "plain.pt")
    plain.run(dataset, train, full_accuracy, recipe.batch, options.seed)
