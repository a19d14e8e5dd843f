"""What the gated network does on a whole test set, beside its twin and beside choices made without looking."""

from dataclasses import dataclass
from itertools import combinations

import torch

from data import Dataset, Split
from network import ResNet
from progress import progress
from trainer import accuracy, predict


@dataclass
class Evaluation:
    """Logits in fp32 of the whole test set; scores are [N, gates], decisions 1 where a block ran."""

    plain_logits: torch.Tensor
    full_logits: torch.Tensor
    gated_logits: torch.Tensor
    scores: torch.Tensor
    figures: dict


def paired_interval(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """95 % interval (normal) of the difference in accuracy between two networks on the same images."""
    difference = a.float() - b.float()
    half = 1.96 * difference.std().item() / len(difference) ** 0.5
    mean = difference.mean().item()
    return [round(mean - half, 4), round(mean + half, 4)]


def kept_flags(network: ResNet, running: set[int]) -> list[bool]:
    """Flags per block, with `running` (positions among the identity blocks) kept and other identity blocks left out."""
    gated = network.identity_blocks
    return [index not in gated or gated.index(index) in running for index in range(len(network.blocks))]


def best_static(network: ResNet, dataset: Dataset, train: Split, count: int) -> set[int]:
    """The `count` identity blocks that, run for all images, are right most often on `train`; tries all choices."""
    choices = list(combinations(range(len(network.identity_blocks)), count))

    def rightness(choice: tuple[int, ...]) -> float:
        return accuracy(predict(network, dataset, train, kept_flags(network, set(choice)))[0], train.labels)

    return set(max(progress(choices, "static choices"), key=rightness))


def random_choice(network: ResNet, dataset: Dataset, test: Split, count: int) -> torch.Tensor:
    """Logits with `count` random identity blocks run, drawn again for every 250 images."""
    generator = torch.Generator().manual_seed(1)
    logits = []
    for indices in torch.arange(len(test)).split(250):
        running = set(torch.randperm(len(network.identity_blocks), generator=generator)[:count].tolist())
        logits.append(predict(network, dataset, test.take(indices), kept_flags(network, running))[0])
    return torch.cat(logits)


def evaluate(plain: ResNet, gated: ResNet, dataset: Dataset, train: Split, test: Split) -> Evaluation:
    everything = [True] * len(plain.blocks)
    plain_logits, _ = predict(plain, dataset, test, everything, bf16=False)
    full_logits, _ = predict(gated, dataset, test, everything, bf16=False)
    gated_logits, scores = predict(gated, dataset, test, bf16=False)

    total, costs = gated.costs(dataset.size)
    gate_costs = torch.tensor([costs[index] for index in gated.identity_blocks], dtype=torch.float64)
    ran = scores > 0
    bypassed = ((~ran).double() * gate_costs).sum(1) / total
    count = min(gate_costs.numel(), -int(-ran.float().sum(1).mean().item() // 1))
    static = best_static(gated, dataset, train.take(torch.arange(0, len(train), max(1, len(train) // 1000))), count)
    static_logits, _ = predict(gated, dataset, test, kept_flags(gated, static), bf16=False)
    random_logits = random_choice(gated, dataset, test, count)
    static_cost = sum(gate_costs[index].item() for index in range(len(gate_costs)) if index not in static) / total

    right = {
        name: logits.argmax(1) == test.labels
        for name, logits in {
            "plain": plain_logits, "full": full_logits, "gated": gated_logits,
            "static": static_logits, "random": random_logits,
        }.items()
    }  # fmt: skip
    figures = {
        "accuracyOnTest": {name: round(hits.float().mean().item(), 4) for name, hits in right.items()},
        "gatedMinusPlain95": paired_interval(right["gated"], right["plain"]),
        "gatedMinusStatic95": paired_interval(right["gated"], right["static"]),
        "layersBypassed": round((~ran).sum(1).double().mean().item() * 2 / gated.layers, 4),
        "multiplyAdds": total,
        "multiplyAddsBypassed": {
            "mean": round(bypassed.mean().item(), 4),
            "p50": round(bypassed.quantile(0.5).item(), 4),
            "static": round(static_cost, 4),
        },
        "staticRuns": sorted(gated.identity_blocks[index] for index in static),
        "executionRate": round(ran.double().mean().item(), 4),
        "distinctPaths": len(torch.unique(ran, dim=0)),
        "scoresWithin1e-4": int((scores.abs() < 1e-4).any(1).sum()),
    }
    return Evaluation(plain_logits, full_logits, gated_logits, scores, figures)
