"""A trained network, images of its domain without labels, and what shows that PyTorch computes what the engine does."""

import hashlib
from pathlib import Path

import numpy as np
import torch

import engine
from common import keep_freed_memory, seeded
from exits import find_classifier
from onnx_network import OnnxNetwork, load
from teaching import fast_bf16, observe
from unlabelled import MIRROR_AGREEMENT, MIRROR_IMAGES, Preprocessing, list_images, pixels_of, read_images

ROOT = Path(__file__).parent.parent
# Largest difference of answers between PyTorch and the engine, beside their size, on so many images.
TOLERANCE, CHECKED = 1e-4, 16


class TrainedNetwork:
    """One network and its images; a tenth of these, at most 5,000, is held out."""

    def __init__(self, model: Path, data: Path, max_images: int | None, seed: int, threads: int):
        torch.set_num_threads(threads)
        keep_freed_memory()
        self.file = model / "model.onnx" if model.is_dir() else model
        if not self.file.is_file():
            raise ValueError(f"{self.file} doesn't exist; name an ONNX file, or a folder with model.onnx")
        self.report = engine.inspect(self.file)
        if self.report["exits"] or any(block["gate"] for block in self.report["blocks"]):
            raise ValueError(f"{self.file} has exits or gates already; take the network that it was made from")
        self.model, self.network = load(self.file)
        self.network.eval().requires_grad_(False)
        self.classifier = find_classifier(self.network)
        self.sha256 = hashlib.sha256(self.file.read_bytes()).hexdigest()
        self.files = list_images(data, max_images, seeded(seed, "images", 0))
        names = "\n".join(str(file.relative_to(data)) for file in self.files)
        self.images_sha256 = hashlib.sha256(names.encode()).hexdigest()
        dims = self.model.graph.input[0].type.tensor_type.shape.dim
        shape = [dim.dim_value for dim in list(dims)[1:]]
        if len(shape) != 3 or not all(shape):
            raise ValueError(f"{self.file}: the input is {shape or 'open'}; images of a fixed size [N, C, H, W] are needed")
        self.channels, self.side = shape[0], (shape[1], shape[2])

    @property
    def name(self) -> str:
        return self.file.parent.name if self.file.name == "model.onnx" else self.file.stem

    def read(self, cache: Path) -> None:
        """Prepares the images, and keeps them in the file `cache`."""
        self.preprocessing = Preprocessing(self.file.parent / "preprocessor_config.json", self.channels, self.side)
        self.images = read_images(self.files, self.preprocessing, cache)
        held_out = min(5000, len(self.images) // 10)
        self.held_out, self.train = torch.arange(len(self.images)).split([held_out, len(self.images) - held_out])

    @torch.no_grad()
    def check_rebuilt(self) -> None:
        """That PyTorch computes what the engine does."""
        images = self.some_images()
        answer = self.network(images, [self.network.output])[self.network.output].numpy()
        difference = np.abs(answer - engine.run(self.file, images.numpy(), "full").values).max()
        if not difference <= TOLERANCE * max(1.0, np.abs(answer).max()):
            raise ValueError(f"{self.file}: rebuilt in PyTorch, its answers differ by {difference:.2g}; please report this")

    def some_images(self) -> torch.Tensor:
        return self.preprocessing.normalize(pixels_of(self.images, self.held_out[:CHECKED])).contiguous()

    @torch.no_grad()
    def minds_no_mirror(self) -> bool:
        rows, same = self.train[:MIRROR_IMAGES], 0
        for some in rows.split(64):
            pixels = self.preprocessing.normalize(pixels_of(self.images, some))
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
                seen = [observe(self.network, [], self.classifier, view) for view in (pixels, pixels.flip(3))]
            same += (seen[0].logits.argmax(1) == seen[1].logits.argmax(1)).sum().item()
        return same >= MIRROR_AGREEMENT * len(rows)


def count_work(network: OnnxNetwork, images: torch.Tensor, tensors: list[str]) -> tuple[int, dict[str, float]]:
    """Multiply-adds of one image, and the share of them that each of the tensors takes."""
    layers = [node for node in network.nodes if node.op in ("Conv", "Gemm", "MatMul")]
    names = [name for node in layers for name in (node.inputs[0], node.outputs[0])]
    values = network(images, names)
    work = {}
    for node in layers:
        made = values[node.outputs[0]]
        if node.op == "Conv":
            per_output = network.weight(node.inputs[1])[0].numel()
        else:
            source = values.get(node.inputs[0])
            per_output = source.shape[0 if node.get("transA", 0) else -1]
        work[node.outputs[0]] = made.numel() * per_output
    total = sum(work.values())
    until = {name: sum(work.get(node.outputs[0], 0) for node in network.needed([name])) / total for name in tensors}
    return total, until
