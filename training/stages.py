"""The recipe's stages. Each resumes from its own checkpoint and is passed over when it is done.

plain             the twin
depth -> gates    the gated network: it learns to answer early in as many epochs; then its gates learn when
"""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import torch

from data import Dataset, Split
from export import publish
from gating import anytime_loss, describe_decisions, difficulty_loss, freeze_all_but_gates, nested_depth, sureness
from network import ResNet
from progress import report
from recipes import Recipe
from trainer import Stage, accuracy, predict, seeded, sgd, smoothed_cross_entropy

# Chance of each stage but the last to lose its last identity blocks in a batch.
NESTED = 0.2
# The part of the course in which the learning rate rises.
WARM_UP = 0.15
ORDER = ["plain", "depth", "gates", "export"]


class Pipeline:
    def __init__(self, dataset: Dataset, recipe: Recipe, train: Split, test: Split, options: Namespace):
        self.dataset, self.recipe, self.train, self.test, self.options = dataset, recipe, train, test, options
        self.folder: Path = options.checkpoints / (dataset.name + ("-smoke" if options.smoke else ""))
        self.sample = test.take(torch.randperm(len(test), generator=seeded(0, "sample", 0))[:2000])
        self.plain = self.build(gated=False)
        self.gated = self.build(gated=True)
        self.gated.load_state_dict(self.plain.state_dict(), strict=False)
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

    def full_accuracy(self, network: ResNet) -> str:
        right = accuracy(predict(network, self.dataset, self.sample, self.all_blocks)[0], self.sample.labels)
        return f"accuracy {right:.4f} in full"

    def monitor_gated(self) -> str:
        logits, scores = predict(self.gated, self.dataset, self.sample)
        right = accuracy(logits, self.sample.labels)
        decisions = describe_decisions(scores, self.gate_costs)
        return f"accuracy {right:.4f} gated, {self.full_accuracy(self.gated)}, {decisions}"

    def rate(self, done: float) -> float:
        """Linear warm-up and linear fall to zero."""
        return self.recipe.peak_rate * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))

    def plain_loss(self, images, labels, step, steps):
        return smoothed_cross_entropy(self.plain(images), labels)

    def depth_loss(self, images, labels, step, steps):
        return anytime_loss(self.gated.anytime(images, nested_depth(self.gated, NESTED)), labels)

    def gates_loss(self, images, labels, step, steps):
        """Gates of the last stage judge by what the network would answer there, the others by what it answers in full."""
        early: list[torch.Tensor] = []
        with torch.no_grad():
            full, _ = self.gated.run(images, self.all_blocks)
        _, scores = self.gated.run(images, early=early)
        sure = [sureness(full)] * (len(scores) - len(early)) + [sureness(answer) for answer in early]
        return difficulty_loss(scores, sure, self.recipe.run)

    def stage(self, name: str) -> tuple[Stage, object]:
        network, file = (self.plain if name == "plain" else self.gated), self.folder / f"{name}.pt"
        if name == "gates":
            gates = [p for gate in network.gates for p in gate.parameters()]
            course = [(torch.optim.Adam(gates), lambda done: 0.003 * (1 - done))]
            prepare = lambda: freeze_all_but_gates(network, True)  # noqa: E731
            return Stage(name, network, course, self.gates_loss, self.recipe.gates, file, prepare), self.monitor_gated
        backbone = [p for key, p in network.named_parameters() if ".gate." not in key]
        loss = self.plain_loss if name == "plain" else self.depth_loss
        stage = Stage(name, network, [(sgd(backbone), self.rate)], loss, self.recipe.epochs, file, crop=self.recipe.crop)
        return stage, lambda: self.full_accuracy(network)

    def run(self, names: Iterable[str]) -> None:
        """Runs some of the stages; those before them must have been, in this run or an earlier one."""
        for name in ORDER:
            if name == "export":
                if name in names:
                    publish(self.dataset, self.recipe, self.plain, self.gated, self.train, self.test,
                            self.options.out, self.folder)  # fmt: skip
                return
            stage, monitor = self.stage(name)
            if name in names:
                stage.run(self.dataset, self.train, monitor, self.recipe.batch, self.options.seed)
            else:
                stage.load()
