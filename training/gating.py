"""Losses of the gated network: distillation, stochastic depth, and the price that holds the gates to a budget."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from data import Dataset, Split, normalize
from network import ResNet
from trainer import seeded, smoothed_cross_entropy

CORRIDOR = (0.2, 0.85)


def distilled(logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, temperature: float = 2.0):
    """Cross entropy mixed with the teacher's softened answer (Hinton, Vinyals and Dean 2015)."""
    soft = F.kl_div(
        F.log_softmax(logits.float() / temperature, 1),
        F.log_softmax(teacher.float() / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return 0.4 * smoothed_cross_entropy(logits, labels) + 0.6 * temperature**2 * soft


def random_depth(network: ResNet, severity: float, generator: torch.Generator | None = None) -> list[bool]:
    """Which blocks a batch keeps: each identity block is left out with a chance that is itself drawn, up to `severity`.

    One draw for the whole batch (unlike Huang et al. 2016), so a block left out costs nothing.
    """
    draw = torch.rand(len(network.blocks) + 1, generator=generator)
    chance = severity * draw[-1]
    return [not block.is_identity or bool(draw[i] >= chance) for i, block in enumerate(network.blocks)]


Paths = Callable[[int, torch.Generator | None], list[bool] | None]


def depths_up_to(network: ResNet, severity: float) -> Paths:
    """Every batch at a random depth."""
    return lambda step, generator: random_depth(network, severity, generator)


def mixed_paths(network: ResNet) -> Paths:
    """What one network has to be good at, batch after batch: the paths that its gates choose (None), and all depths
    that an offset on the scores may bring, the full one above all."""

    def paths(step: int, generator: torch.Generator | None) -> list[bool] | None:
        if step % 4 == 1:
            return random_depth(network, 0.9, generator)
        return [True] * len(network.blocks) if step % 4 == 3 else None

    return paths


@torch.no_grad()
def recalibrate(network: ResNet, dataset: Dataset, train: Split, batches: int, seed: int, paths: Paths) -> None:
    """Measures BatchNorm's statistics anew over `paths`, after batches of differing depth have blurred them."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for gate in network.gates:
        gate.eval()
    generator = seeded(seed, "recalibrate", 0)
    for step, picked in enumerate(torch.randperm(len(train), generator=generator).split(250)[:batches]):
        with torch.autocast("cpu", torch.bfloat16):
            network.run(normalize(dataset, train.images[picked]), paths(step, generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def freeze_statistics(network: ResNet) -> None:
    """BatchNorm goes on with the statistics it has, in training too: one set for every path, as in the exported file."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()


def easiest(teacher: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
    """The `share` of a batch that the teacher is surest of, as flags [N], from its logits [N, classes] and the labels."""
    sureness = -F.cross_entropy(teacher.float(), labels, reduction="none")
    return sureness >= sureness.quantile(1 - share)


class Budget(nn.Module):
    """The price on open gates: an augmented Lagrangian on their mean cost, and a corridor for every gate's open rate.

    Only the images flagged in `paying` pay, the easy ones: a hard image may run every block that helps it, so depth
    goes where it is needed. The multiplier rises while they cost more than `target` (share of the gated blocks'
    multiply-adds) and falls while they cost less, so the price need not be guessed. The corridor keeps every gate a
    choice: one that is open for all images or for none has stopped telling them apart. Scores are kept small, where
    the sigmoid still has a slope.
    """

    def __init__(self, costs: Sequence[int], target: float, ascent: float = 0.05, stiffness: float = 10.0):
        super().__init__()
        shares = torch.tensor(costs, dtype=torch.float32)
        self.register_buffer("shares", shares / shares.sum())
        self.register_buffer("multiplier", torch.zeros(()))
        self.target, self.ascent, self.stiffness = target, ascent, stiffness

    def forward(self, scores: list[torch.Tensor], paying: torch.Tensor) -> torch.Tensor:
        score = torch.cat(scores, 1)
        soft = torch.sigmoid(score)
        opened = (score > 0).float() + soft - soft.detach()
        excess = (opened[paying].mean(0) * self.shares).sum() - self.target
        rates = opened.mean(0)
        low, high = CORRIDOR
        outside = F.relu(rates - high) + F.relu(low - rates)
        price = self.multiplier.clone() * excess + 0.5 * self.stiffness * F.relu(excess) ** 2
        with torch.no_grad():
            self.multiplier.add_(self.ascent * excess).clamp_(min=0)
        return price + (2 * outside + self.stiffness * outside**2).sum() + 0.01 * score.square().mean()


def freeze_all_but_gates(network: ResNet, frozen: bool) -> None:
    """Stops (or resumes) the learning of everything but gates, BatchNorm's statistics included."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not frozen or ".gate." in name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(not frozen)


def describe_decisions(scores: torch.Tensor, costs: Sequence[int]) -> str:
    """One line on the gates' behaviour over a split, from scores [N, gates]."""
    opened = (scores > 0).float()
    rates = opened.mean(0)
    cost = (rates * torch.tensor(costs, dtype=torch.float32)).sum() / sum(costs)
    paths = len(torch.unique(opened, dim=0))
    listed = " ".join(f"{100 * rate:.0f}" for rate in rates.tolist())
    return f"open {100 * cost:.1f} % of cost, {paths} paths, per gate {listed} %"
