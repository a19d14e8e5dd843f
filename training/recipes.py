"""Architecture and epochs per data set. Plain and gated network get the same epochs: trunk + decay."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Epochs: `trunk` (shared, high rate), then `decay` for the plain twin, and as many for the gated network, split
    into `depth` (stochastic depth), `gates` (gates alone) and `joint` (everything, to a rate of zero).

    `target` is the share of the gated blocks' multiply-adds that the gates may keep running.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    trunk: int
    depth: int
    gates: int
    joint: int
    target: float
    batch: int = 128
    peak_rate: float = 0.1

    @property
    def decay(self) -> int:
        return self.depth + self.gates + self.joint


RECIPES = {
    "cifar10": Recipe((2, 4, 4), (16, 64, 128), trunk=4, depth=2, gates=1, joint=4, target=0.42),
    "fashion-mnist": Recipe((2, 4, 4), (16, 32, 64), trunk=2, depth=2, gates=1, joint=3, target=0.42),
    "mnist": Recipe((2, 4, 4), (16, 32, 64), trunk=4, depth=4, gates=2, joint=8, target=0.42, batch=64, peak_rate=0.05),
}
SMOKE = Recipe((1, 2, 2), (16, 32, 64), trunk=1, depth=1, gates=1, joint=1, target=0.42)
