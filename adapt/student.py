"""The networks that can be a front: a plain ResNet, or the network itself at a lower resolution; and their ONNX files."""

import copy
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from exit_graph import write_weights
from trained import TrainedNetwork, count_work
from unlabelled import SMALL
from views import Size

# Widths are multiples of this; a plain network has at least two of them before it gets deeper.
WIDTH_STEP = 8
# Blocks of each stage of a plain network, in order of preference.
DEPTHS = ((3, 3, 3), (2, 3, 3), (2, 2, 3), (2, 2, 2), (1, 2, 2), (1, 1, 2), (1, 1, 1), (0, 1, 1))
# Sides are multiples of this.
SIDE_STEP = 8
# The network itself is made smaller down to this side.
MIN_SIDE = 40
# Logit of a class that a front never answers; its probability is then nothing.
NEVER_ANSWERED = -30.0


class Block(nn.Module):
    """relu(shortcut(x) + two convolutions of x), He et al. 2016."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(x) + self.layers(x))


@dataclass(frozen=True)
class Shape:
    """Of a plain network: `width` channels in the first stage, twice as many in each later one; blocks of each stage; the
    classes that its file has.
    """

    channels: int
    size: Size
    classes: int
    width: int
    blocks: tuple[int, int, int]

    @property
    def strides(self) -> tuple[int, int]:
        """Of the stem, and of the first stage: photographs are halved by both."""
        return (2, 2) if max(self.size) > SMALL // 2 else (1, 1)

    @property
    def work(self) -> int:
        """Multiply-adds of one image."""
        sides = [-(-side // self.strides[0]) for side in self.size]
        inputs, total = self.width, 9 * self.channels * self.width * sides[0] * sides[1]
        for stage, count in enumerate(self.blocks):
            outputs = self.width << stage
            for index in range(count):
                stride = (2 if stage else self.strides[1]) if index == 0 else 1
                sides = [-(-side // stride) for side in sides]
                projection = inputs * outputs if stride != 1 or inputs != outputs else 0
                total += (9 * (inputs + outputs) * outputs + projection) * sides[0] * sides[1]
                inputs = outputs
        return total + inputs * self.classes


def plan(channels: int, size: Size, classes: int, budget: float) -> Shape:
    """The plain network for so many multiply-adds: as deep as it can be with 16 channels or more, then as wide as fits."""
    for blocks in DEPTHS:
        least = 2 * WIDTH_STEP if blocks != DEPTHS[-1] else WIDTH_STEP
        shapes = [Shape(channels, size, classes, width, blocks) for width in range(least, 513, WIDTH_STEP)]
        fit = [shape for shape in shapes if shape.work <= budget]
        if fit:
            return fit[-1]
    raise ValueError(
        f"a front for {size[0]}x{size[1]} images takes {shapes[0].work / 1e6:.1f} million multiply-adds, more than the "
        f"{budget / 1e6:.1f} million that --work allows; allow more, or take a lower --resolution"
    )


class PlainNetwork(nn.Module):
    """Stem, three stages of blocks, average, and one linear layer for the `answered` classes of this domain."""

    def __init__(self, shape: Shape, answered: int):
        super().__init__()
        stem, first = shape.strides
        width = shape.width
        self.stem = nn.Sequential(
            nn.Conv2d(shape.channels, width, 3, stem, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks, inputs = [], width
        for stage, count in enumerate(shape.blocks):
            for index in range(count):
                stride = (2 if stage else first) if index == 0 else 1
                blocks.append(Block(inputs, width << stage, stride))
                inputs = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, answered)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class ShrunkNetwork(nn.Module):
    """The network itself, which learns to read smaller images; its logits."""

    def __init__(self, teacher: TrainedNetwork):
        super().__init__()
        self.network = copy.deepcopy(teacher.network).requires_grad_(True)
        self.logits = teacher.classifier.logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x, [self.logits])[self.logits].flatten(1)


def shrink(teacher: TrainedNetwork, budget: float) -> tuple[Size, int] | None:
    """The largest size at which the network itself costs at most `budget`, and its work; None if there is none."""
    height, width = teacher.side
    for side in range(min(height, width) // SIDE_STEP * SIDE_STEP, MIN_SIDE - 1, -SIDE_STEP):
        size = (round(height * side / min(height, width)), round(width * side / min(height, width)))
        work = work_at(teacher, size)
        if work is None:
            return None
        if work <= budget:
            return size, work
    return None


def work_at(teacher: TrainedNetwork, size: Size) -> int | None:
    """Multiply-adds of the network at a size; None where its graph is made for one size only."""
    output = teacher.network.output
    whole, small = torch.zeros(1, teacher.channels, *teacher.side), torch.zeros(1, teacher.channels, *size)
    try:
        with torch.no_grad():
            if teacher.network(small, [output])[output].shape != teacher.network(whole, [output])[output].shape:
                return None
            return count_work(teacher.network, small, [])[0]
    except (RuntimeError, ValueError, IndexError):
        return None


class AllClasses(nn.Module):
    """A plain network with an output for each class of the whole network, as probabilities if that one has these."""

    def __init__(self, plain: PlainNetwork, classes: torch.Tensor, count: int, softmax: bool):
        super().__init__()
        self.plain, self.softmax = copy.deepcopy(plain), softmax
        head = nn.Linear(plain.head.in_features, count)
        with torch.no_grad():
            head.weight.zero_()
            head.bias.fill_(NEVER_ANSWERED)
            head.weight[classes] = plain.head.weight
            head.bias[classes] = plain.head.bias
        self.plain.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.plain(x)
        return logits.softmax(1) if self.softmax else logits


@torch.no_grad()
def write_plain(file: Path, whole: AllClasses, teacher: TrainedNetwork, size: Size) -> None:
    """Input and output are named as those of the whole network; BatchNorm is folded by the exporter."""
    whole = whole.eval().to(memory_format=torch.contiguous_format)
    names = [teacher.network.input, teacher.network.output]
    torch.onnx.export(
        whole, torch.zeros(2, teacher.channels, *size), str(file), dynamo=False, opset_version=17, input_names=names[:1],
        output_names=names[1:], dynamic_axes={name: {0: "N"} for name in names},
    )  # fmt: skip
    onnx.checker.check_model(str(file), full_check=True)


@torch.no_grad()
def write_shrunk(file: Path, shrunk: ShrunkNetwork, teacher: TrainedNetwork, size: Size) -> None:
    """The graph of the whole network with the front's weights and input size."""
    model = onnx.ModelProto()
    model.CopyFrom(teacher.model)
    write_weights(model, shrunk.network)
    del model.graph.value_info[:]
    for dim, side in zip(list(model.graph.input[0].type.tensor_type.shape.dim)[2:], size, strict=True):
        dim.dim_value = side
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))
