"""Losses of the gated network: distillation, nested depths, and what teaches the gates."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from network import ResNet
from trainer import smoothed_cross_entropy

# What all early answers together weigh beside the full network's.
EARLY = 0.5


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


def anytime_loss(outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Loss of `ResNet.anytime`'s outputs: the deepest learns from the labels, the earlier ones from it too.

    Deep supervision (Lee et al. 2015) with self-distillation (Zhang et al. 2019).
    """
    *earlier, deepest = outputs
    loss = smoothed_cross_entropy(deepest, labels)
    if earlier:
        loss = loss + EARLY * torch.stack([distilled(output, labels, deepest.detach()) for output in earlier]).mean()
    return loss


def sureness(logits: torch.Tensor) -> torch.Tensor:
    """The largest softmax probability, [N, classes] to [N]."""
    return logits.detach().float().softmax(1).amax(1)


def hardest(sure: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of a batch that is least sure (rounded), 0 for the others, [N]."""
    picked = torch.zeros_like(sure)
    picked[sure.argsort()[: round(share * len(sure))]] = 1
    return picked


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
