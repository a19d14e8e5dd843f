"""The tail exit: the layers behind a network's last spatial one, with weights of their own, on averages of 3 x 3 windows of the map.

A MobileNet ends with pointwise convolutions and a global average. They see each position alone, so they can read averages
of windows instead of positions, at a fraction of the cost. Their weights begin as the network's own.
"""

from dataclasses import dataclass

import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from torch import nn

from exits import Classifier, ExitPoint, windows
from onnx_network import Node, OnnxNetwork

# Windows of a map, in rows and columns; a map of fewer rows or columns than the second gets no tail.
CELLS, MIN_SIDE = 3, 5
# The least that an image which leaves must save, as a share of the network.
MIN_SAVING = 0.03
# Operators that compute each position of a map from that position alone, or from all.
PER_POSITION = {
    "Add", "BatchNormalization", "Clip", "Constant", "Div", "Dropout", "GlobalAveragePool", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Mul", "ReduceMean", "Relu", "Sigmoid", "Sub", "Tanh",
}  # fmt: skip


@dataclass(frozen=True)
class TailPoint(ExitPoint):
    """`block` is the last block; `tensor` is its output, or what a layer behind it computes."""

    def windows(self) -> tuple[list[int], list[int]]:
        return windows(self.shape[1:], CELLS)

    @property
    def coarse(self) -> tuple[int, int, int]:
        return self.shape[0], CELLS, CELLS

    def summary(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, *self.windows())


class Tail(nn.Module):
    def __init__(self, point: TailPoint, model: onnx.ModelProto, classifier: Classifier, work: int):
        super().__init__()
        self.point, self.model, self.work = point, model, work
        self.network = OnnxNetwork(model)
        self.predict = None
        if classifier.weight is not None:
            self.predict = nn.Linear(*classifier.weight.shape[::-1])
            self.predict.load_state_dict({"weight": classifier.weight, "bias": classifier.bias})

    def forward(self, seen: torch.Tensor, found: torch.Tensor | None):
        """Of the coarse map: what the exit before found, which it doesn't use, and the features and logits."""
        features = self.network(seen, [self.network.output])[self.network.output].flatten(1)
        return found, features, self.predict(features) if self.predict else features

    @staticmethod
    def confidence(logits: torch.Tensor) -> torch.Tensor:
        """The share of the likeliest class in the two likeliest: the answer can only be wrong where another class is near."""
        first, second = logits.softmax(1).topk(2, 1)[0].unbind(1)
        return first / (first + second)


def find_tail(network: OnnxNetwork, classifier: Classifier, after: str, values: dict[str, torch.Tensor]) -> str | None:
    """The first input of a convolution, from the last block's output on, behind which every layer is per position; None if
    there is none.

    `values` are those of all nodes, for any image.
    """
    ends = [classifier.features]
    behind = {id(node) for node in network.needed(ends)} - {id(node) for node in network.needed([after])}
    candidates = [after, *(name for node in network.nodes if id(node) in behind for name in node.outputs)]
    for name in candidates:
        value = values.get(name)
        if value is None or value.ndim != 4 or min(value.shape[2:]) < MIN_SIDE:
            continue
        nodes = network.needed(ends, name)
        convolved = any(node.op == "Conv" and node.inputs[0] == name for node in nodes)
        whole = all(network.input not in node.inputs for node in nodes)
        if convolved and whole and all(per_position(network, node, values) for node in nodes):
            return name
    return None


def per_position(network: OnnxNetwork, node: Node, values: dict[str, torch.Tensor]) -> bool:
    if node.op in PER_POSITION:
        constants = [network.weight(name) for name in node.inputs if name in network.keys or name in network.constants]
        return all(constant.ndim < 3 or constant.shape[-2:].numel() == 1 for constant in constants)
    source = values.get(node.inputs[0])
    if source is None or source.shape[2:].numel() == 1:
        return source is not None
    pointwise = node.op == "Conv" and network.weight(node.inputs[1])[0, 0].numel() == 1
    return pointwise and set(node.get("strides", [1])) == {1} and not any(node.get("pads", []))


def tail_model(model: onnx.ModelProto, network: OnnxNetwork, classifier: Classifier, point: TailPoint) -> onnx.ModelProto:
    """The part of the graph from a point to the features, as a graph that reads the coarse map."""
    outputs = {name for node in network.needed([classifier.features], point.tensor) for name in node.outputs}
    nodes = [node for node in model.graph.node if outputs & set(node.output)]
    names = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in names]
    source = helper.make_tensor_value_info(point.tensor, onnx.TensorProto.FLOAT, ["N", *point.coarse])
    target = helper.make_tensor_value_info(classifier.features, onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "tail", [source], [target], weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
