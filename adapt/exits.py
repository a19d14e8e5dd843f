"""Early exits: small networks that predict the whole network's answer from a block's output.

An exit predicts the network's penultimate features and the network's own classifier answers from them; its hidden
layer goes to the next exit (Wolczyk et al. 2021, Zero Time Waste). Its confidence is its largest softmax probability.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from onnx_network import Node, OnnxNetwork

# Maps are averaged to at count this side before an exit looks at them.
SIDE = 8
# An exit sees the averages of so many rows and columns of windows.
CELLS = 4
WIDTHS = [16, 24, 32, 48, 64, 96, 128, 192, 256]
PASSIVE = {"Softmax", "Identity", "Flatten", "Reshape", "Squeeze", "Dropout"}


@dataclass
class Classifier:
    """logits = features @ weight.T + bias; `features` and `logits` are tensors of the graph.

    Without weight and bias the network has no linear classifier: the features are the logits.
    """

    features: str
    logits: str
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    softmax: bool


def find_classifier(network: OnnxNetwork) -> Classifier:
    """The last linear layer of a network, looked for from its output on."""
    name, bias, softmax = network.output, None, False
    while node := network.producers.get(name):
        if node.op not in PASSIVE:
            break
        softmax |= node.op == "Softmax"
        name = node.inputs[0]
    logits = name
    if node and node.op == "Add":
        constants = [side for side in node.inputs if side in network.keys]
        if len(constants) == 1:
            bias = network.weight(constants[0]).detach()
            name = next(side for side in node.inputs if side != constants[0])
            node = network.producers.get(name)
    weight = linear_weight(network, node) if node else None
    if weight is None:
        return Classifier(logits, logits, None, None, softmax)
    if node.op != "MatMul" and len(node.inputs) > 2:
        bias = network.weight(node.inputs[2]).detach() * node.get("beta", 1.0)
    bias = torch.zeros(len(weight)) if bias is None else bias.flatten()
    return Classifier(node.inputs[0], logits, weight, bias, softmax)


def linear_weight(network: OnnxNetwork, node: Node) -> torch.Tensor | None:
    """[outputs, inputs]; None where the node is no linear layer of one constant weight on whole features."""
    if node.op not in ("Gemm", "MatMul", "Conv") or node.inputs[1] not in network.keys:
        return None
    weight = network.weight(node.inputs[1]).detach()
    if node.op == "Conv":
        return weight.flatten(1) if weight[0, 0].numel() == 1 and node.get("group", 1) == 1 else None
    if node.op == "Gemm":
        if node.get("transA", 0):
            return None
        return node.get("alpha", 1.0) * (weight if node.get("transB", 0) else weight.t())
    return weight.t()


def windows(sides: Sequence[int], cells: int) -> tuple[list[int], list[int]]:
    """Kernel and stride of an average pooling to so many rows and columns; windows overlap where a side isn't a multiple."""
    strides = [max(1, side // cells) for side in sides]
    return [max(1, side - (cells - 1) * stride) for side, stride in zip(sides, strides, strict=True)], strides


@dataclass(frozen=True)
class ExitPoint:
    """Behind a block: the tensor there, its shape [C, height, width], and the network's work up to it, as a share."""

    block: str
    tensor: str
    shape: tuple[int, int, int]
    done: float

    @property
    def pooling(self) -> tuple[int, int]:
        return math.ceil(self.shape[1] / SIDE), math.ceil(self.shape[2] / SIDE)

    def windows(self) -> tuple[list[int], list[int]]:
        """Kernel and stride of the grid's average pooling on the pooled map."""
        return windows([side // pooling for side, pooling in zip(self.shape[1:], self.pooling, strict=True)], CELLS)

    @property
    def seen(self) -> int:
        """Length of a summary."""
        cells = [min(CELLS, side // pooling) for side, pooling in zip(self.shape[1:], self.pooling, strict=True)]
        return self.shape[0] * (cells[0] * cells[1] + 1)

    def summary(self, x: torch.Tensor) -> torch.Tensor:
        """What an exit sees of maps [N, C, height, width]: averages of the grid's windows and maxima of each channel."""
        x = F.avg_pool2d(x, self.pooling) if self.pooling != (1, 1) else x
        return torch.cat([F.avg_pool2d(x, *self.windows()).flatten(1), x.amax((2, 3))], 1)


def head_work(point: ExitPoint, hidden: int, previous: int, classes: int) -> int:
    """Multiply-adds of an exit."""
    return (point.seen + previous) * hidden + hidden * classes


def hidden_width(point: ExitPoint, previous: int, classes: int, budget: float) -> int:
    """The largest that keeps an exit within `budget` multiply-adds."""
    return max([width for width in WIDTHS if head_work(point, width, previous, classes) <= budget], default=WIDTHS[0])


class Exit(nn.Module):
    def __init__(self, point: ExitPoint, previous: int, classifier: Classifier, classes: int, budget: float):
        super().__init__()
        self.point = point
        self.hidden = hidden_width(point, previous, classes, budget)
        self.work = head_work(point, self.hidden, previous, classes)
        self.normal = nn.BatchNorm1d(point.seen + previous, affine=False)
        self.mix = nn.Linear(point.seen + previous, self.hidden, bias=False)
        self.mix_norm = nn.BatchNorm1d(self.hidden)
        outputs = classes if classifier.weight is None else classifier.weight.shape[1]
        self.predict = nn.Linear(self.hidden, outputs)
        if classifier.weight is not None:
            self.register_buffer("weight", classifier.weight)
            self.register_buffer("bias", classifier.bias)
        else:
            self.weight = self.bias = None

    def forward(self, seen: torch.Tensor, found: torch.Tensor | None):
        """Of a summary and what the exit before found: what this one found, the features and the logits."""
        joined = seen if found is None else torch.cat([seen, found], 1)
        found = F.relu(self.mix_norm(self.mix(self.normal(joined))))
        features = self.predict(found)
        logits = features if self.weight is None else features @ self.weight.t() + self.bias
        return found, features, logits

    @staticmethod
    def confidence(logits: torch.Tensor) -> torch.Tensor:
        """The largest softmax probability."""
        return logits.softmax(1).amax(1)


class Exits(nn.ModuleList):
    """The exits of a network, in order; `tail` comes behind those at the points."""

    def __init__(self, points: list[ExitPoint], classifier: Classifier, classes: int, budget: float, tail: nn.Module | None = None):
        exits, previous = [], 0
        for point in points:
            exits.append(Exit(point, previous, classifier, classes, budget))
            previous = exits[-1].hidden
        super().__init__([*exits, *([tail] if tail else [])])

    @property
    def tail(self) -> nn.Module | None:
        """The exit that is no `Exit`, if the last one isn't."""
        return None if isinstance(self[-1], Exit) else self[-1]

    def forward(self, summaries: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Features and logits of each exit."""
        found, answers = None, []
        for exit_, seen in zip(self, summaries, strict=True):
            found, features, logits = exit_(seen, found)
            answers.append((features, logits))
        return answers


def choose_points(blocks: list[ExitPoint], count: int) -> list[ExitPoint]:
    """At most `count` of the blocks, evenly over the network's work between 20 and 90 % of it."""
    fit = [point for point in blocks if 0.2 <= point.done <= 0.9]
    if len(fit) <= count:
        return fit
    chosen = []
    for i in range(count):
        wanted = fit[0].done + (fit[-1].done - fit[0].done) * i / max(1, count - 1)
        chosen.append(min(fit, key=lambda point: abs(point.done - wanted)))
    return [point for point in fit if point in chosen]
