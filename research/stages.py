"""The recipe's stages. Each resumes from its own checkpoint and is passed over when it is done.

plain             the twin
depth -> gates    the gated network: it learns to answer early in as many epochs; then its gates learn when
"""

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import torch

from adapt.common import save_atomically, seeded
from data import Dataset, Split, augment, normalize
from export import publish
from gating import anytime_loss, describe_decisions, lessons, nested_depth, observe, teach
from network import ResNet
from progress import progress, report
from recipes import Recipe
from trainer import Stage, Step, accuracy, predict, sgd, smoothed_cross_entropy

# Chance of each stage but the last to lose its last identity blocks in a batch.
NESTED = 0.2
# The part of the course in which the learning rate rises.
WARM_UP = 0.15
ORDER = ["plain", "depth", "gates", "export"]
# What must be finished before a stage can begin.
NEEDED = {"plain": [], "depth": [], "gates": ["depth"], "export": ["plain", "depth", "gates"]}


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

    def stage(self, name: str, network: ResNet, loss: Step) -> Stage:
        backbone = [parameter for key, parameter in network.named_parameters() if ".gate." not in key]
        file = self.folder / f"{name}.pt"
        return Stage(name, network, [(sgd(backbone), self.rate)], loss, self.recipe.epochs, file)

    def train_gates(self) -> None:
        """Passes over the augmented images, then each gate learns from what was seen there; the network stays as it is."""
        recipe, network, generator = self.recipe, self.gated, seeded(self.options.seed, "gates", 0)
        orders = [torch.randperm(len(self.train), generator=generator) for _ in range(recipe.gates)]
        picks = [picked for order in orders for picked in order.split(250)]
        images = (
            normalize(self.dataset, augment(self.dataset, self.train.images[picked], generator))
            for picked in progress(picks, "gates: looking")
        )
        taught = lessons(*observe(network, images), recipe.sure, recipe.run)
        losses = [
            teach(gate, lesson, recipe.gate_steps, generator)
            for gate, lesson in progress(list(zip(network.gates, taught, strict=True)), "gates: learning")
        ]
        report(f"gates: losses {' '.join(f'{loss:.3f}' for loss in losses)}, {self.monitor_gated()}")

    def run(self, names: Iterable[str]) -> None:
        """Runs some of the stages. RuntimeError where one needs another that is neither among them nor finished."""
        needed = {earlier for name in names for earlier in NEEDED[name]}
        courses = {"plain": (self.plain, self.plain_loss), "depth": (self.gated, self.depth_loss)}
        for name, (network, loss) in courses.items():
            stage = self.stage(name, network, loss)
            if name in names:
                stage.run(self.dataset, self.train, lambda: self.full_accuracy(network), self.recipe.batch, self.options.seed)  # noqa: B023
            elif name in needed and stage.load() < stage.epochs:
                raise unfinished(name, stage.checkpoint)
        finished = self.folder / "gates.pt"
        if finished.exists():
            self.gated.load_state_dict(torch.load(finished, weights_only=True))
        elif "gates" in names:
            torch.manual_seed(self.options.seed)
            self.train_gates()
            save_atomically(self.gated.state_dict(), finished)
        elif "gates" in needed:
            raise unfinished("gates", finished)
        if "export" in names:
            publish(self.dataset, self.recipe, self.plain, self.gated, self.train, self.test, self.options.out, self.folder)


def unfinished(name: str, checkpoint: Path) -> RuntimeError:
    return RuntimeError(f"stage {name} is not finished ({checkpoint}): name it in --stages, too")
