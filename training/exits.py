"""Early exits: small networks that tell from a block's output what the whole network would find in the end.

An exit predicts the network's penultimate features and lets the network's own classifier answer; what it found on the
way goes to the next exit (Wolczyk et al. 2021, Zero Time Waste). Its largest softmax probability says how sure it is.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from onnx_network import Node, OnnxNetwork

# Maps are averaged to at most this side before an exit looks at them.
SIDE = 8
WIDTHS = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
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


@dataclass(frozen=True)
class Place:
    """Behind a block: the tensor there, its shape [C, height, width], and the network's work up to it, as a share."""

    block: str
    tensor: str
    shape: tuple[int, int, int]
    done: float

    @property
    def pooling(self) -> tuple[int, int]:
        return math.ceil(self.shape[1] / SIDE), math.ceil(self.shape[2] / SIDE)

    @property
    def pooled(self) -> tuple[int, int, int]:
        return self.shape[0], self.shape[1] // self.pooling[0], self.shape[2] // self.pooling[1]

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, self.pooling) if self.pooling != (1, 1) else x


def head_work(place: Place, width: int, hidden: int, previous: int, classes: int) -> int:
    """Multiply-adds of an exit."""
    channels, height, below = place.pooled
    small = -(-height // 2) * -(-below // 2)
    convolutions = height * below * channels * 9 + small * width * (channels + 9 + width)
    return convolutions + (2 * width + channels + previous) * hidden + hidden * classes


def sizes(place: Place, previous: int, classes: int, budget: float) -> tuple[int, int]:
    """The widest convolutions, and the hidden width with them, that keep an exit within `budget` multiply-adds."""
    best = WIDTHS[0], WIDTHS[0]
    for width in WIDTHS:
        hidden = min(max(width, 64), 256)
        if head_work(place, width, hidden, previous, classes) <= budget:
            best = width, hidden
    return best


class Separable(nn.Module):
    """A convolution of each channel by itself, then one over the channels (Howard et al. 2017)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor, deviation: torch.Tensor | None = None) -> torch.Tensor:
        """With `deviation`, of `x` divided by that of each channel, at half the height and width."""
        weight = self.depthwise.weight
        if deviation is not None:
            weight = weight / deviation.view(-1, 1, 1, 1)
        z = F.conv2d(x, weight, None, 1, 1, 1, len(weight))
        if deviation is not None:
            z = F.avg_pool2d(z, 3, 2, 1, count_include_pad=False)
        return F.relu(self.norm(self.pointwise(z)))


class Exit(nn.Module):
    def __init__(self, place: Place, previous: int, classifier: Classifier, classes: int, budget: float):
        super().__init__()
        self.place, self.previous = place, previous
        self.width, self.hidden = sizes(place, previous, classes, budget)
        self.work = head_work(place, self.width, self.hidden, previous, classes)
        channels, width = place.shape[0], self.width
        # Of each channel of the map: keeps what is learnt independent of how large the network's values are there.
        self.register_buffer("deviation", torch.ones(channels))
        self.wide = Separable(channels, width)
        self.deep = Separable(width, width)
        parts = 2 * width + channels + previous
        self.normal = nn.BatchNorm1d(parts, affine=False)
        self.mix = nn.Linear(parts, self.hidden, bias=False)
        self.mix_norm = nn.BatchNorm1d(self.hidden)
        outputs = classes if classifier.weight is None else classifier.weight.shape[1]
        self.predict = nn.Linear(self.hidden, outputs)
        if classifier.weight is not None:
            self.register_buffer("weight", classifier.weight)
            self.register_buffer("bias", classifier.bias)
        else:
            self.weight = self.bias = None

    def forward(self, x: torch.Tensor, found: torch.Tensor | None):
        """Of a pooled map [N, C, height, width] and what the exit before found: what this one found, the features
        and the logits.
        """
        z = self.deep(self.wide(x, self.deviation))
        parts = [z.mean((2, 3)), z.amax((2, 3)), x.mean((2, 3))]
        if found is not None:
            parts.append(found)
        found = F.relu(self.mix_norm(self.mix(self.normal(torch.cat(parts, 1)))))
        features = self.predict(found)
        logits = features if self.weight is None else features @ self.weight.t() + self.bias
        return found, features, logits


class Exits(nn.ModuleList):
    """The exits of a network, in order."""

    def __init__(self, places: list[Place], classifier: Classifier, classes: int, budget: float):
        exits, previous = [], 0
        for place in places:
            exits.append(Exit(place, previous, classifier, classes, budget))
            previous = exits[-1].hidden
        super().__init__(exits)

    def forward(self, maps: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Features and logits of each exit, from the pooled maps."""
        found, answers = None, []
        for exit_, x in zip(self, maps, strict=True):
            found, features, logits = exit_(x, found)
            answers.append((features, logits))
        return answers


def choose_places(blocks: list[Place], most: int) -> list[Place]:
    """At most so many of the blocks, evenly over the network's work between 30 and 90 % of it."""
    fit = [place for place in blocks if 0.3 <= place.done <= 0.9]
    if len(fit) <= most:
        return fit
    chosen = []
    for i in range(most):
        wanted = fit[0].done + (fit[-1].done - fit[0].done) * i / max(1, most - 1)
        chosen.append(min(fit, key=lambda place: abs(place.done - wanted)))
    return [place for place in fit if place in chosen]
