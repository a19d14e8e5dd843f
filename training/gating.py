"""Losses of the gated network: distillation, nested depths, and what teaches the gates."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from data import Dataset, Split, normalize
from network import ResNet
from trainer import seeded, smoothed_cross_entropy

def distilled(logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, temperature: float = 2.0):
    """Cross entropy mixed with the teacher's softened answer (Hinton, Vinyals and Dean 2015)."""
    soft = F.kl_div(
        F.log_softmax(logits.float() / temperature, 1),
        F.log_softmax(teacher.float() / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return 0.4 * smoothed_cross_entropy(logits, labels) + 0.6 * temperature**2 * soft


def nested_depth(network: ResNet, chance: float, generator: torch.Generator | None = None) -> list[bool]:
    """Which blocks a batch keeps: in each stage, with that chance, only the first few of its identity blocks.

    One draw for the whole batch, so a block left out costs nothing. A plain network needs each of its blocks; it learns
    to do without a stage's last ones far sooner than to do without any subset (Huang et al. 2016 draw any).
    """
    kept = []
    for depth in network.depths:
        stage = network.blocks[len(kept) : len(kept) + depth]
        gated = sum(block.is_identity for block in stage)
        draw = torch.rand(2, generator=generator).tolist()
        running = int(draw[1] * gated) if draw[0] < chance else gated
        kept += [not block.is_identity or index < running + depth - gated for index, block in enumerate(stage)]
    return kept


def anytime_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The distilled loss of each of `ResNet.anytime`'s outputs; the last, deepest one weighs 0.4, all others 0.6."""
    losses = [distilled(output, labels, teacher) for output in outputs]
    return 0.4 * losses[-1] + 0.6 * torch.stack(losses[:-1]).mean() if len(losses) > 1 else losses[0]


Paths = Callable[[int, torch.Generator | None], list[bool] | None]


def nested_depths(network: ResNet, chance: float) -> Paths:
    """Every batch at a depth of its own."""
    return lambda step, generator: nested_depth(network, chance, generator)


def mixed_paths(network: ResNet) -> Paths:
    """What one network has to be good at, batch after batch: the paths that its gates choose (None), and all depths
    that an offset on the scores may bring, the full one above all."""

    def paths(step: int, generator: torch.Generator | None) -> list[bool] | None:
        if step % 4 == 1:
            return nested_depth(network, 0.5, generator)
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


def sureness(logits: torch.Tensor) -> torch.Tensor:
    """The largest softmax probability, [N, classes] to [N]."""
    return logits.detach().float().softmax(1).amax(1)


def hardest(sure: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of a batch that is least sure, 0 for the others, [N]."""
    return (sure < sure.quantile(share)).float()


def difficulty_loss(scores: Sequence[torch.Tensor], sure: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    """Teaches gates by difficulty: gate i should open for the `shares[i]` of a batch that are least sure by `sure[i]`.

    Binary cross entropy on the scores, [N, 1] each; a gate that can't tell stays on the side where most images belong.
    """
    losses = [
        F.binary_cross_entropy_with_logits(score[:, 0], hardest(confidence, share))
        for score, confidence, share in zip(scores, sure, shares, strict=True)
    ]
    return torch.stack(losses).sum()


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
