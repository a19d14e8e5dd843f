"""Images without labels, prepared as a network's preprocessor_config.json says and altered for training."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
# Images up to this side are shifted by whole pixels; larger ones are zoomed too.
SMALL = 64
MIRROR_IMAGES, MIRROR_AGREEMENT = 256, 0.8
MIN_IMAGES = 100


class Preprocessing:
    """Size in pixels, and mean and deviation of each channel for pixels scaled by `scale`."""

    def __init__(self, file: Path, channels: int, side: tuple[int, int]):
        config = json.loads(file.read_text()) if file.exists() else {}
        self.channels, self.side = channels, side
        self.shortest = (config.get("size") or {}) if config.get("do_resize", "size" in config) else {}
        self.resample = Image.Resampling(config.get("resample") or Image.Resampling.BILINEAR)
        scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        normalized = config.get("do_normalize", "image_mean" in config)
        mean = torch.tensor(config["image_mean"] if normalized else [0.0] * channels).view(1, -1, 1, 1)
        std = torch.tensor(config["image_std"] if normalized else [1.0] * channels).view(1, -1, 1, 1)
        self.factor, self.shift = scale / std, -mean / std
        self.flip_channels = config.get("do_flip_channel_order", False)

    def read(self, file: Path) -> np.ndarray:
        """uint8 [height, width, channels] of the network's size: resized, then its middle where it is larger."""
        image = Image.open(file).convert("L" if self.channels == 1 else "RGB")
        height, width = self.side
        if isinstance(self.shortest, dict) and "height" in self.shortest:
            image = image.resize((self.shortest["width"], self.shortest["height"]), self.resample)
        elif self.shortest:
            edge = self.shortest if isinstance(self.shortest, int) else self.shortest["shortest_edge"]
            ratio = edge / min(image.size)
            image = image.resize([round(side * ratio) for side in image.size], self.resample)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        if left < 0 or top < 0 or ((left or top) and not self.shortest):
            raise ValueError(f"{file} has {image.width}x{image.height} pixels, but the network takes {width}x{height}")
        pixels = np.asarray(image.crop((left, top, left + width, top + height))).reshape(height, width, self.channels)
        return pixels[:, :, ::-1] if self.flip_channels else pixels

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [N, C, height, width], channels last in memory, of pixels from 0 to 255."""
        return (pixels.float() * self.factor + self.shift).contiguous(memory_format=torch.channels_last)


def list_images(folder: Path, most: int | None, generator: torch.Generator) -> list[Path]:
    """All images below `folder`, or `most` of them, in an order by chance."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if len(files) < MIN_IMAGES:
        raise ValueError(f"{folder} holds {len(files)} images ({', '.join(sorted(SUFFIXES))}); {MIN_IMAGES} are needed")
    return [files[i] for i in torch.randperm(len(files), generator=generator)[:most].tolist()]


def read_images(files: list[Path], preprocessing: Preprocessing, cache: Path) -> np.ndarray:
    """uint8 [images, height, width, channels], kept in the file `cache`."""
    if not cache.exists():
        partial = cache.with_suffix(".partial")
        shape = (len(files), *preprocessing.side, preprocessing.channels)
        images = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        for i, file in enumerate(tqdm(files, "reading", unit="image", disable=None)):
            images[i] = preprocessing.read(file)
        images.flush()
        partial.replace(cache)
    return np.load(cache, mmap_mode="r")


def pixels_of(images: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
    """uint8 [rows, C, height, width]"""
    return torch.from_numpy(images[rows.numpy()]).permute(0, 3, 1, 2)


def altered(pixels: torch.Tensor, mirror: bool, generator: torch.Generator) -> torch.Tensor:
    """Shifted by up to an eighth of the side, the rest reflected; mirrored or not; larger images are zoomed as well."""
    count, _, height, width = pixels.shape
    flip = (torch.rand(count, generator=generator) < 0.5) & mirror
    if max(height, width) > SMALL:
        zoom = 0.65 + 0.45 * torch.rand(count, generator=generator)
        aspect = torch.exp(0.15 * torch.randn(count, generator=generator))
        shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - zoom).abs().clamp(min=0.1).unsqueeze(1)
        matrix = torch.zeros(count, 2, 3)
        matrix[:, 0, 0] = zoom * aspect * torch.where(flip, -1.0, 1.0)
        matrix[:, 1, 1] = zoom / aspect
        matrix[:, :, 2] = shift
        grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
        return F.grid_sample(pixels.float(), grid, padding_mode="reflection", align_corners=False)
    reach = (max(1, height // 8), max(1, width // 8))
    padded = F.pad(pixels.float(), (reach[1], reach[1], reach[0], reach[0]), mode="reflect")
    rows = torch.randint(0, 2 * reach[0] + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * reach[1] + 1, (count, 1), generator=generator) + torch.arange(width)
    columns = torch.where(flip.unsqueeze(1), columns.flip(1), columns)
    item, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(pixels.shape[1]).view(1, -1, 1, 1)
    return padded[item, channel, rows.view(count, 1, height, 1), columns.view(count, 1, 1, width)]


def mixed(pixels: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """About `share` of the images get a rectangle of another image of the batch (Yun et al. 2019, CutMix).

    The network's own answers to such images are uncertain, also where it has seen the images themselves in training.
    """
    count, _, height, width = pixels.shape
    other = pixels[torch.randperm(count, generator=generator)]
    side = torch.sqrt(torch.rand(count, 1, generator=generator))
    centre = torch.rand(count, 2, generator=generator)
    chosen = torch.rand(count, 1, generator=generator) < share
    rows = ((torch.arange(height) + 0.5) / height - centre[:, :1]).abs() < side / 2
    columns = ((torch.arange(width) + 0.5) / width - centre[:, 1:]).abs() < side / 2
    inside = (rows & chosen).view(count, 1, height, 1) & columns.view(count, 1, 1, width)
    return torch.where(inside, other, pixels)
