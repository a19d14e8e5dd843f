"""Architecture and epochs per data set. The gated network learns for as many epochs as its plain twin."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Plain twin and gated network get `epochs` each, from the same start. The gates then learn, for `gate_steps` steps,
    from what is seen in `gates` passes over the images.

    A gate of the last stage runs its block where the answer so far is less than `sure`; `run` holds for each gate of the
    earlier stages the share of images that should run its block, the hardest ones.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    epochs: int
    run: Sequence[float]
    sure: float = 0.8
    gates: int = 2
    gate_steps: int = 8000
    batch: int = 128
    peak_rate: float = 0.1

    def __post_init__(self) -> None:
        early = 1 + sum(self.depths[:-1]) - len(self.depths[:-1])
        if len(self.run) != early:
            raise ValueError(f"{len(self.run)} shares for the {early} identity blocks before the last stage of {self.depths}")


RECIPES = {
    "mnist": Recipe((1, 2, 6), (16, 32, 48), epochs=40, run=(0.98, 0.98), sure=0.88, gates=6, batch=64, peak_rate=0.05),
}
SMOKE = Recipe((1, 2, 2), (16, 32, 64), epochs=3, run=(0.5, 0.6), gates=1, gate_steps=100)
