"""Architecture and epochs per data set. The gated network gets as many epochs as its plain twin, or fewer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Epochs: `trunk` at a high rate and `decay`, its fall, make the plain network that twin and gated network both
    start from. The twin then gets `more`; the gated network gets `depth` (nested depths), `gates` (gates alone),
    `joint` (everything, to a rate of zero) and `settle` (everything, at a low rate, on BatchNorm's final statistics),
    together at most as many.

    `run` holds for each gate the share of images that should run its block, the hardest ones. With `early_crop`, images
    are cropped to that side in `trunk`, `depth` and `gates` and in the first three quarters of `plain`, `twin` and
    `joint` (progressive resizing): the epochs cost less, and the last ones still see whole images.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    trunk: int
    decay: int
    more: int
    depth: int
    gates: int
    joint: int
    settle: int
    run: Sequence[float]
    batch: int = 128
    peak_rate: float = 0.1
    restart: float = 0.3
    early_crop: int | None = None

    def __post_init__(self) -> None:
        if self.gated_epochs > self.more:
            raise ValueError(f"the gated network would get {self.gated_epochs - self.more} epochs more than its twin")

    def crop(self, epochs: int) -> Callable[[int], int | None]:
        """The side of the images in an epoch of a stage with that many, None for whole images."""
        return lambda epoch: self.early_crop if epoch < 3 * epochs // 4 else None

    @property
    def gated_epochs(self) -> int:
        return self.depth + self.gates + self.joint + self.settle


RECIPES = {
    "cifar10": Recipe(
        (2, 4, 4), (16, 64, 128), trunk=4, decay=13, more=10, depth=4, gates=1, joint=4, settle=1, early_crop=24,
        run=(0.9, 0.7, 0.95, 0.85, 0.6, 0.35, 0.35, 0.3),
    ),
    "fashion-mnist": Recipe(
        (2, 4, 4), (16, 32, 64), trunk=2, decay=10, more=8, depth=3, gates=1, joint=3, settle=1,
        run=(0.85, 0.5, 0.9, 0.7, 0.4, 0.3, 0.3, 0.25),
    ),
    "mnist": Recipe(
        (2, 4, 4), (16, 32, 64), trunk=4, decay=24, more=24, depth=8, gates=2, joint=10, settle=4, batch=64, peak_rate=0.05,
        run=(0.85, 0.5, 0.9, 0.7, 0.4, 0.3, 0.3, 0.25),
    ),
}  # fmt: skip
SMOKE = Recipe((1, 2, 2), (16, 32, 64), trunk=1, decay=3, more=4, depth=1, gates=1, joint=1, settle=1, run=(0.5, 0.4))
