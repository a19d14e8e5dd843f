"""Architecture and epochs per data set. The gated network gets as many epochs as its plain twin, or fewer."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Epochs: `trunk` (shared, high rate), then `decay` for the plain twin, and for the gated network `depth`
    (stochastic depth), `gates` (gates alone) and `joint` (everything, to a rate of zero), together at most `decay`.

    `target` is the share of the gated blocks' multiply-adds that the gates may keep running.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    trunk: int
    decay: int
    depth: int
    gates: int
    joint: int
    target: float
    batch: int = 128
    peak_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.gated_epochs > self.decay:
            raise ValueError(f"the gated network would get {self.gated_epochs - self.decay} epochs more than its twin")

    @property
    def gated_epochs(self) -> int:
        return self.depth + self.gates + self.joint


RECIPES = {
    "cifar10": Recipe((2, 4, 4), (16, 64, 128), trunk=4, decay=14, depth=3, gates=1, joint=10, target=0.5),
    "fashion-mnist": Recipe((2, 4, 4), (16, 32, 64), trunk=2, decay=10, depth=2, gates=1, joint=7, target=0.45),
    "mnist": Recipe(
        (2, 4, 4), (16, 32, 64), trunk=4, decay=14, depth=4, gates=2, joint=8, target=0.42, batch=64, peak_rate=0.05,
    ),  # fmt: skip
}
SMOKE = Recipe((1, 2, 2), (16, 32, 64), trunk=1, decay=3, depth=1, gates=1, joint=1, target=0.42)
