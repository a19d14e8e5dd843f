"""Networks with gates: they learn to answer early, and then their gates learn when to."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F

from network import Gate, ResNet
from plan import Gates

# What all early answers together weigh beside the full network's.
EARLY = 0.5
# Chance of each stage but the last to lose its last identity blocks in a batch.
NESTED = 0.2
# Of the labels that networks with gates learn from.
SMOOTHING = 0.1


def smoothed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING)


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
    return logits.float().softmax(1).amax(1)


def hardest(sure: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of images that a network is least sure of (rounded), 0 for the others, [N]."""
    picked = torch.zeros_like(sure)
    picked[sure.argsort()[: round(share * len(sure))]] = 1
    return picked


@torch.no_grad()
def observe(network: ResNet, batches: Iterable[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Runs all blocks for all images; returns the pooled inputs of each gate, [N, C], and how sure the network's answer
    is behind each block of the last stage, [N].
    """
    network.eval()
    pooled, sure = [], []
    for images in batches:
        inputs: list[torch.Tensor] = []
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network.anytime(images, [True] * len(network.blocks), inputs)
        pooled.append(inputs)
        sure.append([sureness(output) for output in outputs])
    return [torch.cat(column) for column in zip(*pooled, strict=True)], [torch.cat(column) for column in zip(*sure, strict=True)]


Examples = tuple[torch.Tensor, torch.Tensor]


def examples_of(pooled: Sequence[torch.Tensor], sure: Sequence[torch.Tensor], threshold: float, shares: Sequence[float]) -> list[Examples]:
    """What each gate learns from: pooled inputs [M, C] and whether it should open for them, [M].

    A gate of the last stage opens where the answer at that depth is less sure than `threshold`. Where a gate before it
    stays closed it sees what that one saw, so it learns from all shallower depths too. Gate i of the earlier stages
    opens for the `shares[i]` of images that the whole network is least sure of.
    """
    early = [(inputs, hardest(sure[-1], share)) for inputs, share in zip(pooled, shares, strict=False)]
    last = pooled[len(shares) :]
    seen = [(torch.cat(last[: depth + 1]), torch.cat(sure[: depth + 1]) < threshold) for depth in range(len(last))]
    return early + [(inputs, unsure.float()) for inputs, unsure in seen]


def teach(gate: Gate, examples: Examples, steps: int, generator: torch.Generator, batch: int = 256, rate: float = 0.01) -> float:
    """Trains one gate by binary cross entropy (Adam, a rate that falls to zero); returns the last steps' mean loss."""
    inputs, targets = examples
    optimizer = torch.optim.Adam(gate.parameters())
    losses = []
    gate.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        picked = torch.randint(len(targets), (batch,), generator=generator)
        loss = F.binary_cross_entropy_with_logits(gate.score(inputs[picked])[:, 0], targets[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    gate.eval()
    return torch.stack(losses[-100:]).mean().item()


def gates_loss(network: ResNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What the network learns from while its gates do not learn."""
    return anytime_loss(network.anytime(images, nested_depth(network, NESTED)), labels)


def teach_gates(network: ResNet, batches: Iterable[torch.Tensor], targets: Gates, generator: torch.Generator) -> list[float]:
    """The gates learn from what is seen of `batches` of augmented images; the network stays as it is. Gives their last losses."""
    taught = examples_of(*observe(network, batches), targets.sure, targets.run)
    return [teach(gate, examples, targets.steps, generator) for gate, examples in zip(network.gates, taught, strict=True)]
