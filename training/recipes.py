"""Architecture and epochs per data set. The gated network learns for as many epochs as its plain twin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Plain twin and gated network get `epochs` each, from the same start, and the gates alone get `gates` more.

    `run` holds for each gate the share of images that should run its block, the hardest ones. With `early_crop`, images
    are cropped to that side in the first three quarters of the epochs (progressive resizing): they cost less, and the
    last ones still see whole images.
    """

    depths: Sequence[int]
    widths: Sequence[int]
    epochs: int
    gates: int
    run: Sequence[float]
    batch: int = 128
    peak_rate: float = 0.1
    early_crop: int | None = None

    def __post_init__(self) -> None:
        gates = sum(self.depths) - len(self.depths) + 1
        if len(self.run) != gates:
            raise ValueError(f"{len(self.run)} shares for the {gates} identity blocks of {self.depths}")

    def crop(self, epoch: int) -> int | None:
        """The side of the images in an epoch, None for whole images."""
        return self.early_crop if epoch < 3 * self.epochs // 4 else None


RECIPES = {
    "cifar10": Recipe(
        (2, 3, 5), (16, 64, 128), epochs=22, gates=2, early_crop=24, run=(0.95, 0.75, 0.95, 0.85, 0.5, 0.35, 0.25, 0.2),
    ),
    "fashion-mnist": Recipe(
        (2, 3, 5), (16, 32, 64), epochs=10, gates=1, run=(0.95, 0.7, 0.95, 0.8, 0.4, 0.3, 0.2, 0.15),
    ),
    "mnist": Recipe(
        (2, 3, 5), (16, 32, 64), epochs=40, gates=4, batch=64, peak_rate=0.05, run=(0.9, 0.5, 0.9, 0.7, 0.3, 0.2, 0.15, 0.1),
    ),
}  # fmt: skip
SMOKE = Recipe((1, 2, 2), (16, 32, 64), epochs=3, gates=1, run=(0.5, 0.6, 0.4))
