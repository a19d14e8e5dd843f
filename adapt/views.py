"""What teaches a front: views of the images, fixed once, and the network's answers to exactly these (Beyer et al. 2022)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from common import seeded
from teaching import MIXED, fast_bf16, observe
from trained import TrainedNetwork
from unlabelled import altered, mixed, pixels_of

Size = tuple[int, int]
TEACHER_BATCH = 64


def shrunk(images: torch.Tensor, size: Size) -> torch.Tensor:
    """float32 [N, C, *size]: bilinear with antialiasing, as a session shrinks a network's input for its front."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


class Views:
    """Files of altered copies of the training images, each made once: the network's logits [rows, classes] in half
    precision, and the pixels [rows, C, height, width] at a front's size. Of every second copy, most images also contain a
    rectangle of another.
    """

    def __init__(self, folder: Path, teacher: TrainedNetwork, size: Size, seed: int, mirror: bool):
        self.folder, self.teacher, self.size, self.seed, self.mirror = folder, teacher, size, seed, mirror

    def copy(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and logits."""
        logits = self.folder / f"view-{number}-logits.npy"
        pixels = self.folder / f"view-{number}-{self.size[0]}x{self.size[1]}.npy"
        if not (logits.exists() and pixels.exists()):
            self.write(number, logits, pixels)
        return np.load(pixels, mmap_mode="r"), np.load(logits, mmap_mode="r")

    def altered(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = seeded(self.seed, "view", number)
        for rows in torch.arange(len(self.teacher.train)).split(TEACHER_BATCH):
            view = altered(pixels_of(self.teacher.images, self.teacher.train[rows]), self.mirror, generator)
            yield rows, mixed(view, MIXED, generator) if number % 2 else view

    @torch.no_grad()
    def write(self, number: int, logits: Path, pixels: Path) -> None:
        count, channels = len(self.teacher.train), self.teacher.channels
        small = open_partial(pixels, np.uint8, (count, channels, *self.size))
        answers = None
        total = -(-count // TEACHER_BATCH)
        for rows, view in tqdm(self.altered(number), f"view {number}", total, unit="batch", disable=None):
            small[rows.numpy()] = shrunk(view, self.size).round().clamp(0, 255).byte().numpy()
            if logits.exists():
                continue
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
                images = self.teacher.preprocessing.normalize(view)
                made = observe(self.teacher.network, [], self.teacher.classifier, images).logits
            if answers is None:
                answers = open_partial(logits, np.float16, (count, made.shape[1]))
            limit = torch.finfo(torch.float16).max
            answers[rows.numpy()] = made.clamp(-limit, limit).numpy()
        for file in (logits, pixels):
            if not file.exists():
                partial_of(file).replace(file)


def partial_of(file: Path) -> Path:
    return file.with_suffix(".partial")


def open_partial(file: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(partial_of(file), "w+", dtype, shape)
