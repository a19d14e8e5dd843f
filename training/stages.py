"""The recipe's stages, in order. Each resumes from its own checkpoint and is passed over when it is done.

trunk -> plain                                the twin: a high rate, then its fall
   `---> depth -> gates -> joint -> settle    the gated network, in as many epochs, taught by the finished twin
"""

from argparse import Namespace
from pathlib import Path

import torch

from data import Dataset, Split
from export import publish
from gating import (
    Budget,
    depths_up_to,
    describe_decisions,
    distilled,
    freeze_all_but_gates,
    freeze_statistics,
    mixed_paths,
    random_depth,
    recalibrate,
)
from network import ResNet
from progress import report
from recipes import Recipe
from trainer import Stage, accuracy, predict, seeded, sgd, smoothed_cross_entropy

ORDER = ["trunk", "plain", "depth", "gates", "joint", "settle", "export"]


class Pipeline:
    def __init__(self, dataset: Dataset, recipe: Recipe, train: Split, test: Split, options: Namespace):
        self.dataset, self.recipe, self.train, self.test, self.options = dataset, recipe, train, test, options
        self.folder: Path = options.checkpoints / (dataset.name + ("-smoke" if options.smoke else ""))
        self.sample = test.take(torch.randperm(len(test), generator=seeded(0, "sample", 0))[:2000])
        self.plain = self.build(gated=False)
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

    def monitor_plain(self) -> str:
        return f"accuracy {self.full_accuracy(self.plain):.4f} of {len(self.sample)}"

    def monitor_gated(self) -> str:
        logits, scores = predict(self.gated, self.dataset, self.sample)
        gated = accuracy(logits, self.sample.labels)
        full = self.full_accuracy(self.gated)
        return f"accuracy {gated:.4f} gated, {full:.4f} full, {describe_decisions(scores, self.gate_costs)}"

    def plain_loss(self, images, labels, step, steps):
        return smoothed_cross_entropy(self.plain.run(images, self.all_blocks)[0], labels)

    def teach(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.plain(images)

    def depth_loss(self, images, labels, step, steps):
        kept = random_depth(self.gated, severity=0.4 + 0.5 * step / steps)
        return distilled(self.gated.run(images, kept)[0], labels, self.teach(images))

    def gated_loss(self, images, labels, step, steps):
        logits, scores = self.gated.run(images)
        return distilled(logits, labels, self.teach(images)) + self.budget(scores)

    def joint_loss(self, images, labels, step, steps):
        """Every fourth batch runs at a random depth, so that the network stays good with more or fewer blocks too."""
        return (self.depth_loss if step % 4 == 3 else self.gated_loss)(images, labels, steps, steps)

    def settling_loss(self, images, labels, step, steps):
        kept = mixed_paths(self.gated)(step, None)
        if kept is None:
            return self.gated_loss(images, labels, step, steps)
        return distilled(self.gated.run(images, kept)[0], labels, self.teach(images))

    def train_plain(self) -> bool:
        recipe, peak = self.recipe, self.recipe.peak_rate
        trunk = Stage(
            "trunk", self.plain,
            [(sgd(self.plain.parameters()), lambda done: peak * min(1.0, 0.05 + done * recipe.trunk))],
            self.plain_loss, recipe.trunk, self.folder / "trunk.pt", crop=lambda epoch: recipe.early_crop,
        )  # fmt: skip
        if self.finish(trunk, self.monitor_plain):
            return True
        self.gated.load_state_dict(self.plain.state_dict(), strict=False)
        plain = Stage(
            "plain", self.plain, [(sgd(self.plain.parameters()), lambda done: peak * (1 - done))],
            self.plain_loss, recipe.decay, self.folder / "plain.pt", crop=recipe.crop(recipe.decay),
        )  # fmt: skip
        return self.finish(plain, self.monitor_plain)

    def train_gated(self) -> bool:
        recipe, peak, network = self.recipe, self.recipe.peak_rate, self.gated
        self.plain.eval()
        backbone = [p for name, p in network.named_parameters() if ".gate." not in name]
        gates = [p for gate in network.gates for p in gate.parameters()]
        depth = Stage(
            "depth", network, [(sgd(backbone), lambda done: peak * (1 - 0.5 * done))],
            self.depth_loss, recipe.depth, self.folder / "depth.pt", crop=recipe.crop(recipe.depth),
        )  # fmt: skip
        if self.finish(depth, lambda: f"accuracy {self.full_accuracy(network):.4f} full"):
            return True
        self.budget = Budget(self.gate_costs, recipe.target)
        learn_gates = Stage(
            "gates", network, [(torch.optim.Adam(gates), lambda done: 0.003)], self.gated_loss, recipe.gates,
            self.folder / "gates.pt", self.budget, lambda: freeze_all_but_gates(network, True),
        )  # fmt: skip
        if not learn_gates.checkpoint.exists():
            self.recalibrate(depths_up_to(network, 0.9))
        if self.finish(learn_gates, self.monitor_gated):
            return True
        freeze_all_but_gates(network, False)
        for name, loss, epochs, shares, crop, clip in (
            ("joint", self.joint_loss, recipe.joint, (0.5, 0.01), recipe.early_crop, None),
            ("settle", self.settling_loss, recipe.settle, (0.02, 0.002), None, 1.0),
        ):
            rates = [lambda done, share=share: peak * share * (1 - done) for share in shares]
            optimizers = [(sgd(backbone), rates[0]), (torch.optim.Adam(gates), rates[1])]
            settling = name == "settle"
            prepare = (lambda: freeze_statistics(network)) if settling else (lambda: None)
            stage = Stage(name, network, optimizers, loss, epochs, self.folder / f"{name}.pt", self.budget, prepare,
                          lambda epoch, crop=crop: crop, clip)  # fmt: skip
            if settling and not stage.checkpoint.exists():
                self.recalibrate(mixed_paths(network))
            if self.finish(stage, self.monitor_gated):
                return True
        return False

    def recalibrate(self, paths) -> None:
        recalibrate(self.gated, self.dataset, self.train, 40, self.options.seed, paths)


def run(dataset: Dataset, recipe: Recipe, train: Split, test: Split, options: Namespace) -> None:
    pipeline = Pipeline(dataset, recipe, train, test, options)
    if not pipeline.train_plain() and not pipeline.train_gated():
        publish(dataset, recipe, pipeline.plain, pipeline.gated, train, test, options.out, pipeline.folder)
