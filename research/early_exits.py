"""Networks that also answer behind their blocks, and what their early answers learn from."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from adapt.common import nearest_bytes
from network import ResNet

# Hidden units of an exit.
HIDDEN = 64
# An exit is taken at this confidence until calibration gives it a threshold of its own.
THRESHOLD = 0.9
# What all exits together weigh in the trunk, beside the whole network's answer; each exit's share grows with its depth.
TRUNK_WEIGHT = 1.0
# The part of the schedule in which that weight rises from zero.
RAMP = 0.2


def grid(x: torch.Tensor) -> torch.Tensor:
    """Averages of the four quarters of a map [N, C, H, W], which overlap where a side is odd, and its maxima: [N, 5 C]."""
    height, width = (int(side) for side in x.shape[2:])
    kernel = -(-height // 2), -(-width // 2)
    quarters = F.avg_pool2d(x, kernel, (height - kernel[0], width - kernel[1]))
    return torch.cat([quarters.flatten(1), F.adaptive_max_pool2d(x, 1).flatten(1)], 1)


def confidence(logits: torch.Tensor) -> torch.Tensor:
    """The largest softmax probability, [N, classes] to [N, 1]; written as a pool, which every engine has."""
    return F.adaptive_max_pool2d(logits.softmax(1)[:, None, None], 1).flatten(1)


class Exit(nn.Module):
    """Logits from what is seen of the network, and from what the exit in front found (Wolczyk et al. 2021, Zero Time Waste)."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.fc1 = nn.Linear(features, HIDDEN, bias=False)
        self.hidden_norm = nn.BatchNorm1d(HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, classes)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What this exit found [N, HIDDEN], and its logits [N, classes]."""
        found = F.relu(self.hidden_norm(self.fc1(self.norm(seen))))
        return found, self.fc2(found)

    @torch.no_grad()
    def fold(self) -> None:
        """Moves both normalisations into the first layer, for export: two plain linear layers are left."""
        if isinstance(self.norm, nn.Identity):
            return
        hidden, seen = self.hidden_norm, self.norm
        scale = hidden.weight.double() / (hidden.running_var.double() + hidden.eps).sqrt()
        weight = scale[:, None] * self.fc1.weight.double() / (seen.running_var.double() + seen.eps).sqrt()
        bias = hidden.bias.double() - scale * hidden.running_mean.double() - weight @ seen.running_mean.double()
        self.fc1 = nn.Linear(weight.shape[1], weight.shape[0])
        self.fc1.weight.copy_(weight)
        self.fc1.bias.copy_(bias)
        self.norm = self.hidden_norm = nn.Identity()
        self.mean = seen.running_mean

    @torch.no_grad()
    def round(self) -> None:
        """Rounds the weights of folded layers for the engine. For the mean of what was seen, the first layer's outputs stay."""
        weight = nearest_bytes(self.fc1.weight)
        self.fc1.bias += (self.fc1.weight - weight) @ self.mean
        self.fc1.weight.copy_(weight)
        self.fc2.weight.copy_(nearest_bytes(self.fc2.weight))

    @property
    def multiply_adds(self) -> int:
        return self.fc1.weight.numel() + self.fc2.weight.numel()


class EarlyExits:
    """What exits add to a network: they follow the last block of the first stage and every later block but the network's last.

    An item leaves at the first exit whose largest softmax probability reaches its threshold (Teerapittayanon et al.
    2016); a threshold above 1 is never reached. The network has `begin`, `blocks`, `end`, `costs`, and with `seen(x)` what an
    exit sees of a block's output, as features [N, F].
    """

    def add_exits(self, features: Sequence[int], classes: int) -> None:
        """`features`: number of those that are seen of each block."""
        self.points = list(range(self.depths[0] - 1, len(self.blocks) - 1))
        previous = [0] + [HIDDEN] * len(self.points)
        self.exits = nn.ModuleList(Exit(features[point] + found, classes) for point, found in zip(self.points, previous))
        self.register_buffer("thresholds", torch.full((len(self.points),), THRESHOLD))

    def trunk_shares(self) -> list[float]:
        """How much of each exit's gradient reaches the trunk; they add up to TRUNK_WEIGHT."""
        depths = [point + 1 for point in self.points]
        return [TRUNK_WEIGHT * depth / sum(depths) for depth in depths]

    def answers(self, *x: torch.Tensor, gradient: float = 1.0) -> list[torch.Tensor]:
        """Logits [N, classes] of each exit and, last, of the whole network, of its inputs.

        An exit's gradient reaches its own layers in full, the trunk scaled by its share times `gradient` (Li et al.
        2019, Improved Techniques for Training Adaptive Deep Networks), and the exit in front not at all.
        """
        logits, found = [], None
        exits = dict(zip(self.points, zip(self.exits, self.trunk_shares(), strict=True), strict=True))
        x = self.begin(*x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in exits:
                exit_, share = exits[index]
                seen = self.seen(x).float()
                if self.training:
                    seen = share * gradient * seen + (1 - share * gradient) * seen.detach()
                found, answer = exit_(seen if found is None else torch.cat([seen, found.detach()], 1))
                logits.append(answer)
        return logits + [self.end(x)]

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        """The answer that each item leaves with [N, classes]; traced to a chain of Where, which engines can stop at."""
        *early, chosen = self.answers(*x)
        for answer, threshold in zip(reversed(early), reversed(self.thresholds.tolist()), strict=True):
            chosen = torch.where(confidence(answer) >= threshold, answer, chosen)
        return chosen

    def exit_costs(self, size: int) -> list[float]:
        """Multiply-adds of an item that leaves at each exit, and of one that passes all; heads included."""
        total, blocks = self.costs(size)
        begin = total - sum(blocks) - self.head.weight.numel()
        heads = [exit_.multiply_adds for exit_ in self.exits]
        left = [begin + sum(blocks[: point + 1]) + sum(heads[: i + 1]) for i, point in enumerate(self.points)]
        return left + [total + sum(heads)]


class ExitResNet(EarlyExits, ResNet):
    """Its exits see a map's `grid`."""

    def __init__(self, channels: int, classes: int, depths: Sequence[int], widths: Sequence[int], large: bool = False):
        super().__init__(channels, classes, depths, widths, large=large)
        self.add_exits([5 * block.conv2.out_channels for block in self.blocks], classes)

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        return grid(x)

    def end(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.float().mean((2, 3)))


def exit_loss(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, smoothing: float = 0.0, temperature: float = 2.0
) -> torch.Tensor:
    """The whole network learns from the labels with `smoothing`; each exit from them without it, and from the mean of the deeper
    half of the answers (self-distillation: Zhang et al. 2019; from the mean of exits: Lee and Lee 2021).
    """
    *early, last = logits
    teacher = F.log_softmax(torch.stack(logits[len(logits) // 2 :]).float().mean(0).detach() / temperature, 1)
    loss = F.cross_entropy(last.float(), labels, label_smoothing=smoothing)
    for answer in early:
        soft = F.kl_div(F.log_softmax(answer.float() / temperature, 1), teacher, reduction="batchmean", log_target=True)
        loss = loss + 0.5 * F.cross_entropy(answer.float(), labels) + 0.5 * temperature**2 * soft
    return loss


THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 2.0)


def one_threshold(logits: torch.Tensor, labels: torch.Tensor, costs: Sequence[float]) -> list[dict[str, float]]:
    """Ordinary early exit: accuracy and mean multiply-adds, as a share of the network's without exits, where all exits have
    the same threshold. `logits` are [answers, N, classes], `costs` those of leaving at each answer, in that unit.
    """
    sure, guesses = logits.softmax(2).max(2)
    sure[-1] = torch.inf
    curve = []
    for threshold in THRESHOLDS:
        leaves = (sure >= threshold).int().argmax(0)
        right = guesses.gather(0, leaves[None])[0] == labels
        cost = torch.tensor(costs, dtype=torch.float64)[leaves].mean().item()
        curve.append({"threshold": threshold, "cost": round(cost, 4), "accuracy": round(right.float().mean().item(), 4)})
    return curve
