"""What adapting a network and training one have in common. Nothing here depends on the rest of this folder."""

import ctypes
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


def keep_freed_memory() -> None:
    """Makes glibc keep large blocks that are freed. It would give them back to the system, which clears them again for the
    next layer: that takes two thirds of the time of a MobileNetV2, and 8 % of that of a CIFAR ResNet in training.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def seeded(seed: int, stage: str, epoch: int) -> torch.Generator:
    """A generator that depends on place alone, so that a resumed run draws what an uninterrupted one would."""
    generator = torch.Generator()
    generator.manual_seed(seed * 1_000_003 + sum(map(ord, stage)) * 1009 + epoch)
    return generator


def distance(own: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """The mean KL divergence from the teacher's logits `wanted` [N, classes], both at a temperature (Hinton et al. 2015)."""
    own, wanted = (own / temperature).log_softmax(1), (wanted / temperature).log_softmax(1)
    return F.kl_div(own, wanted, reduction="batchmean", log_target=True) * temperature**2


def decayed(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """An optimizer's groups of the parameters that learn: vectors (norms, biases) are not decayed."""
    parameters = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def save_atomically(state: dict, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(file)


def nearest_bytes(weight: torch.Tensor) -> torch.Tensor:
    """The nearest whole multiples, from -127 to 127, of a power of two for each input; `weight` is [outputs, inputs].

    For one item, the engine reads a byte of each, and answers with the same bits as by floats.
    """
    scale = torch.exp2((weight.abs().amax(0, keepdim=True).clamp(min=2.0**-100) / 127).log2().ceil())
    # Adding zero leaves no -0, which a byte doesn't have.
    return (weight / scale).round() * scale + 0.0
