"""The protocol's images: training and validation part of a data set in memory, and how batches are augmented."""

import gzip
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

import data
from adapt.common import save_atomically
from data import Dataset, Split, read_idx_pair, read_image_folder, write_json
from early_exits import ExitResNet
from network import ResNet
from optimizers import sgd
from plan import Recipe, Shape

IMAGENETTE_LABELS = [
    "cassette-player", "chain-saw", "church", "english-springer", "french-horn", "garbage-truck", "gas-pump", "golf-ball",
    "parachute", "tench",
]  # fmt: skip
DATASETS = {
    "cifar10": replace(
        data.DATASETS["cifar10"],
        license="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    ),
    "fashion-mnist": data.DATASETS["fashion-mnist"],
    "mnist": data.DATASETS["mnist"],
    "imagenette": Dataset(
        "imagenette", "Imagenette", IMAGENETTE_LABELS, (0.465, 0.456, 0.428), (0.274, 0.27, 0.289), 128, True, 0,
        "Howard, Imagenette, 2019 (Apache 2.0), photographs of ImageNet",
    ),
}  # fmt: skip
# The share of the training images, of every class alike, on which everything is chosen.
VALIDATION = 0.1
VALIDATION_IDX = "validation"
# What an image's name is called in reference.json.
NAMED = "file"
# Images of a batch that share scale and aspect of their crops.
CROP_GROUP = 16


def held_out(labels: torch.Tensor, share: float = VALIDATION) -> torch.Tensor:
    """Which images are held out for validation, bool [N]: of every class `share`, rounded, the same ones at every call."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[: round(share * len(members))]]] = True
    return chosen


def read(dataset: Dataset, folder: Path) -> Split:
    """All training images."""
    if dataset.channels == 1:
        return read_idx_pair(folder, "train")
    return read_image_folder(folder / "train", dataset.labels)


def load(dataset: Dataset, folder: Path, cache: Path) -> tuple[Split, Split]:
    """Training and validation part, the latter with names as `write_validation` gives them; decoded images are kept in
    `cache`. The test images are not read.
    """
    file = cache / f"{dataset.name}-train.pt"
    if file.exists():
        saved = torch.load(file, weights_only=True)
    else:
        split = read(dataset, folder)
        saved = {"images": split.images, "labels": split.labels, "names": split.names}
        save_atomically(saved, file)
    whole = Split(saved["images"], saved["labels"], saved["names"])
    chosen = held_out(whole.labels)
    validation = whole.take(chosen.nonzero()[:, 0])
    if dataset.channels == 1:
        validation.names = [f"{VALIDATION_IDX}-images-idx3-ubyte.gz#{index}" for index in range(len(validation))]
    else:
        validation.names = [name.removeprefix("train/") for name in validation.names]
    return whole.take((~chosen).nonzero()[:, 0]), validation


def write_validation(dataset: Dataset, folder: Path, validation: Split, to: Path) -> None:
    """The validation part as residual-skip reads it: a folder per class, or the pair of IDX files."""
    if to.exists():
        return
    partial = to.with_name(f"{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if dataset.channels == 1:
        for kind, tensor in (("images-idx3", validation.images[:, 0]), ("labels-idx1", validation.labels.to(torch.uint8))):
            header = bytes([0, 0, 8, tensor.ndim]) + b"".join(side.to_bytes(4, "big") for side in tensor.shape)
            packed = gzip.compress(header + tensor.contiguous().numpy().tobytes(), mtime=0)
            (partial / f"{VALIDATION_IDX}-{kind}-ubyte.gz").write_bytes(packed)
    for name in validation.names if dataset.channels == 3 else []:
        copy = partial / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / "train" / name, copy)
    partial.rename(to)


def resized(split: Split, side: int) -> Split:
    """As the network sees images when nothing is augmented."""
    if split.images.shape[-1] == side:
        return split
    parts = [
        F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True).round().to(torch.uint8)
        for part in split.images.split(500)
    ]
    return Split(torch.cat(parts), split.labels, split.names)


def crops(images: torch.Tensor, sizes: Sequence[tuple[int, int]], flip: bool, generator: torch.Generator) -> list[torch.Tensor]:
    """Random parts of `images`, in groups of len(images) / len(sizes) of one size (height, width) each, and mirrored at
    random where `flip` is set.
    """
    count, _, height, width = images.shape
    cut = []
    for part, (rows, columns) in zip(torch.arange(count).chunk(len(sizes)), sizes, strict=True):
        tops = torch.randint(0, height - rows + 1, (len(part), 1), generator=generator).tolist()
        lefts = torch.randint(0, width - columns + 1, (len(part), 1), generator=generator).tolist()
        mirrored = (torch.rand((len(part), 1), generator=generator) < (0.5 if flip else 0.0)).tolist()
        places = zip(images[part], tops, lefts, mirrored, strict=True)
        parts = [(image[:, y : y + rows, x : x + columns], mirror) for image, (y,), (x,), (mirror,) in places]
        cut.append(torch.stack([image.flip(2) if mirror else image for image, mirror in parts]))
    return cut


def resized_crops(images: torch.Tensor, side: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """Crops of 35 to 100 % of the area and an aspect of 3:4 to 4:3, scaled to `side` (Szegedy et al. 2015)."""
    height, width = images.shape[2:]
    sizes = []
    for _ in range(-(-len(images) // CROP_GROUP)):
        area, aspect = torch.rand(2, generator=generator).tolist()
        area, aspect = 0.35 + 0.65 * area, (3 / 4) ** (1 - 2 * aspect)
        rows, columns = (area / aspect) ** 0.5, (area * aspect) ** 0.5
        sizes.append((min(height, round(height * rows)), min(width, round(width * columns))))
    cut = crops(images, sizes, flip, generator)
    return torch.cat([F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True) for part in cut])


def cutout(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """Blanks a square around a random place of each normalised image (DeVries and Taylor 2017)."""
    count, _, height, width = images.shape

    def band(extent: int) -> torch.Tensor:
        place = torch.randint(0, extent, (count, 1), generator=generator) - side // 2
        line = torch.arange(extent)
        return (line >= place) & (line < place + side)

    hidden = band(height).view(count, 1, height, 1) & band(width).view(count, 1, 1, width)
    return images.masked_fill(hidden, 0.0)


def augmented(dataset: Dataset, images: torch.Tensor, side: int, blank: float, generator: torch.Generator,
              strong: bool = False, mirrored: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
    """Normalised float32 [N, C, side, side] of uint8 images: crops, mirror images, Cutout of `blank` of a side; `strong`: one
    change of shape or colours to each as well (TrivialAugment, Müller and Hutter 2021), drawn from PyTorch's global generator.
    Where mirroring keeps labels, `mirrored` [N] says which images are; without it, chance does.
    """
    flip = dataset.flip and mirrored is None
    if dataset.crop_padding == 0:
        cut = resized_crops(images, side, flip, generator)
    else:
        padded = F.pad(images.float(), [dataset.crop_padding] * 4, mode="reflect").to(torch.uint8)
        (cut,) = crops(padded, [(side, side)], flip, generator)
    if dataset.flip and mirrored is not None:
        cut = torch.where(mirrored.view(-1, 1, 1, 1), cut.flip(3), cut)
    if strong:
        # Only this needs torchvision.
        from torchvision.transforms.v2 import TrivialAugmentWide

        change = TrivialAugmentWide(fill=[255 * mean for mean in dataset.mean])
        cut = torch.stack([change(image) for image in cut.round().to(torch.uint8)])
    return cutout(data.normalize(dataset, cut), round(blank * side), generator)


inputs = data.normalize
optimizer = sgd


def network(dataset: Dataset, recipe: Recipe, shape: Shape, role: str) -> ResNet:
    sizes = dataset.channels, len(dataset.labels), *shape
    return ExitResNet(*sizes, large=recipe.large) if role == "gated" else ResNet(*sizes, role == "gates", recipe.large)


def feeds(dataset: Dataset, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The inputs of a network's file."""
    return {"input": inputs(dataset, images)}


def write_configurations(dataset: Dataset, folder: Path, cache: Path) -> None:
    """What residual-skip needs beside model.onnx."""
    write_json(folder / "config.json", data.model_config(dataset))
    write_json(folder / "preprocessor_config.json", data.preprocessor_config(dataset))
