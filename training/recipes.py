"""Architecture and epochs per data set. The gated network gets as many epochs as its plain twin, or fewer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Epochs: `trunk` (shared, high rate), then `decay` for the plain twin, and for the gated network `depth`
    (stochastic depth), `gates` (gates alone), `joint` (everything, to a rate of zero) and `settle` (everything, at
    a low rate, on BatchNorm's final statistics), together at most `decay`.

    `target` is the share of the gated blocks' multiply-adds that the gates may keep running. With `early_crop`, images
    are cropped to that side in `trunk` and `joint`, and in the first three quarters of `plain` and `depth` (progressive
    resizing): the epochs cost less, and the last ones still see whole images.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    trunk: int
    decay: int
    depth: int
    gates: int
    joint: int
    settle: int
    target: float
    batch: int = 128
    peak_rate: float = 0.1
    early_crop: int | None = None

    def __post_init__(self) -> None:
        if self.gated_epochs > self.decay:
            raise ValueError(f"the gated network would get {self.gated_epochs - self.decay} epochs more than its twin")

    def crop(self, epochs: int) -> Callable[[int], int | None]:
        """The side of the images in an epoch of a stage with that many, None for whole images."""
        return lambda epoch: self.early_crop if epoch < 3 * epochs // 4 else None

    @property
    def gated_epochs(self) -> int:
        return self.depth + self.gates + self.joint + self.settle


RECIPES = {
    "cifar10": Recipe((2, 4, 4), (16, 64, 128), trunk=4, decay=13, depth=3, gates=1, joint=4, settle=1, target=0.56, early_crop=24),
    "fashion-mnist": Recipe((2, 4, 4), (16, 32, 64), trunk=2, decay=10, depth=2, gates=1, joint=5, settle=2, target=0.5),
    "mnist": Recipe(
        (2, 4, 4), (16, 32, 64), trunk=4, decay=24, depth=4, gates=2, joint=14, settle=4, target=0.5, batch=64, peak_rate=0.05,
    ),  # fmt: skip
}
SMOKE = Recipe((1, 2, 2), (16, 32, 64), trunk=1, decay=4, depth=1, gates=1, joint=1, settle=1, target=0.42)
