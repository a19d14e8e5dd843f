"""The recipe's stages, in order. Each resumes from its own checkpoint and is passed over when it is done.

trunk -> plain -> twin                                a high rate, its fall, and a restart
            `---> depth -> gates -> joint -> settle   the gated network, in as many epochs as the twin
"""

from argparse import Namespace
from pathlib import Path

import torch

from data import Dataset, Split
from export import publish
from gating import (
    anytime_loss,
    describe_decisions,
    distilled,
    difficulty_loss,
    freeze_all_but_gates,
    freeze_statistics,
    mixed_paths,
    nested_depth,
    nested_depths,
    recalibrate,
    sureness,
)
from network import ResNet
from progress import report
from recipes import Recipe
from trainer import Stage, accuracy, predict, seeded, sgd, smoothed_cross_entropy

# Chance of each stage to lose its last identity blocks in a batch.
NESTED = 0.3
ORDER = ["trunk", "plain", "twin", "depth", "gates", "joint", "settle", "export"]


class Pipeline:
    def __init__(self, dataset: Dataset, recipe: Recipe, train: Split, test: Split, options: Namespace):
        self.dataset, self.recipe, self.train, self.test, self.options = dataset, recipe, train, test, options
        self.folder: Path = options.checkpoints / (dataset.name + ("-smoke" if options.smoke else ""))
        self.sample = test.take(torch.randperm(len(test), generator=seeded(0, "sample", 0))[:2000])
        self.plain = self.build(gated=False)
        self.twin = self.build(gated=False)
        self.gated = self.build(gated=True)
        self.all_blocks = [True] * len(self.plain.blocks)
        total, costs = self.plain.costs(dataset.size)
        self.gate_costs = [costs[index] for index in self.plain.identity_blocks]
        share = 100 * sum(self.gate_costs) / total
        report(
            f"{dataset.name}: ResNet-{self.plain.layers}, {total / 1e6:.1f} M multiply-adds, "
            f"{len(self.gate_costs)} gated blocks hold {share:.0f} % of them"
        )

    def build(self, gated: bool) -> ResNet:
        torch.manual_seed(self.options.seed)
        recipe = self.recipe
        network = ResNet(self.dataset.channels, len(self.dataset.labels), recipe.depths, recipe.widths, gated)
        return network.to(memory_format=torch.channels_last)

    def finish(self, stage: Stage, monitor) -> bool:
        """Runs what is left of a stage; true when --until asks to stop behind it."""
        stage.run(self.dataset, self.train, monitor, self.recipe.batch, self.options.seed)
        return self.options.until == stage.name

    def full_accuracy(self, network: ResNet) -> float:
        return accuracy(predict(network, self.dataset, self.sample, self.all_blocks)[0], self.sample.labels)

    def monitor_gated(self) -> str:
        logits, scores = predict(self.gated, self.dataset, self.sample)
        gated = accuracy(logits, self.sample.labels)
        full = self.full_accuracy(self.gated)
        return f"accuracy {gated:.4f} gated, {full:.4f} full, {describe_decisions(scores, self.gate_costs)}"

    def teach(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.plain(images)

    def depth_loss(self, images, labels, step, steps):
        kept = nested_depth(self.gated, NESTED)
        return anytime_loss(self.gated.anytime(images, kept), labels, self.teach(images))

    def gated_loss(self, images, labels, step, steps):
        """Gates of the last stage judge by what the network itself would answer there, the others by the teacher."""
        early: list[torch.Tensor] = []
        logits, scores = self.gated.run(images, early=early)
        teacher = self.teach(images)
        sure = [sureness(teacher)] * (len(scores) - len(early)) + [sureness(answer) for answer in early]
        return distilled(logits, labels, teacher) + difficulty_loss(scores, sure, self.recipe.run)

    def joint_loss(self, images, labels, step, steps):
        """Every fourth batch runs at nested depths, so that the network stays good with more or fewer blocks too."""
        return (self.depth_loss if step % 4 == 3 else self.gated_loss)(images, labels, steps, steps)

    def settling_loss(self, images, labels, step, steps):
        kept = mixed_paths(self.gated)(step, None)
        if kept is None:
            return self.gated_loss(images, labels, steps, steps)
        return anytime_loss(self.gated.anytime(images, kept), labels, self.teach(images))

    def without_gates(self, name: str, network: ResNet, epochs: int, rate, crop) -> bool:
        """A stage of ordinary training."""

        def loss(images, labels, step, steps):
            return smoothed_cross_entropy(network.run(images, self.all_blocks)[0], labels)

        optimizers = [(sgd(network.parameters()), rate)]
        stage = Stage(name, network, optimizers, loss, epochs, self.folder / f"{name}.pt", crop=crop)
        return self.finish(stage, lambda: f"accuracy {self.full_accuracy(network):.4f} of {len(self.sample)}")

    def train_plain(self) -> bool:
        recipe, peak, plain = self.recipe, self.recipe.peak_rate, self.plain
        return self.without_gates(
            "trunk", plain, recipe.trunk, lambda done: peak * min(1.0, 0.05 + done * recipe.trunk), lambda epoch: recipe.early_crop,
        ) or self.without_gates("plain", plain, recipe.decay, lambda done: peak * (1 - done), recipe.crop(recipe.decay))  # fmt: skip

    def train_twin(self) -> bool:
        recipe = self.recipe
        self.twin.load_state_dict(self.plain.state_dict())
        rate = recipe.peak_rate * recipe.restart
        return self.without_gates("twin", self.twin, recipe.more, lambda done: rate * (1 - done), recipe.crop(recipe.more))

    def train_gated(self) -> bool:
        recipe, network = self.recipe, self.gated
        rate, early = recipe.peak_rate * recipe.restart, lambda epoch: recipe.early_crop
        network.load_state_dict(self.plain.state_dict(), strict=False)
        self.plain.eval()
        backbone = [p for name, p in network.named_parameters() if ".gate." not in name]
        gates = [p for gate in network.gates for p in gate.parameters()]

        def stage(name, optimizers, loss, prepare=lambda: None, crop=lambda epoch: None, clip=None) -> Stage:
            epochs, file = getattr(recipe, name), self.folder / f"{name}.pt"
            return Stage(name, network, optimizers, loss, epochs, file, None, prepare, crop, clip)

        def both(backbone_rate: float, gate_rate: float) -> list:
            return [
                (sgd(backbone), lambda done: backbone_rate * (1 - done)),
                (torch.optim.Adam(gates), lambda done: gate_rate * (1 - done)),
            ]

        depth = stage("depth", [(sgd(backbone), lambda done: rate)], self.depth_loss, crop=early)
        if self.finish(depth, lambda: f"accuracy {self.full_accuracy(network):.4f} full"):
            return True
        alone = lambda: freeze_all_but_gates(network, True)  # noqa: E731
        learn_gates = stage("gates", [(torch.optim.Adam(gates), lambda done: 0.003)], self.gated_loss, alone, early)
        if not learn_gates.checkpoint.exists():
            self.recalibrate(nested_depths(network, NESTED))
        if self.finish(learn_gates, self.monitor_gated):
            return True
        freeze_all_but_gates(network, False)
        joint = stage("joint", both(rate, 0.1 * rate), self.joint_loss, crop=recipe.crop(recipe.joint))
        if self.finish(joint, self.monitor_gated):
            return True
        fixed = lambda: freeze_statistics(network)  # noqa: E731
        settle = stage("settle", both(0.02 * recipe.peak_rate, 0.002 * recipe.peak_rate), self.settling_loss, fixed, clip=1.0)
        if not settle.checkpoint.exists():
            self.recalibrate(mixed_paths(network))
        return self.finish(settle, self.monitor_gated)

    def recalibrate(self, paths) -> None:
        recalibrate(self.gated, self.dataset, self.train, 40, self.options.seed, paths)


def run(dataset: Dataset, recipe: Recipe, train: Split, test: Split, options: Namespace) -> None:
    pipeline = Pipeline(dataset, recipe, train, test, options)
    if not (pipeline.train_plain() or pipeline.train_twin() or pipeline.train_gated()):
        publish(dataset, recipe, pipeline.twin, pipeline.gated, train, test, options.out, pipeline.folder)
