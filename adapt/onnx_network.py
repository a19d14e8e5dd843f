"""An ONNX classification network as a PyTorch module: the graph's nodes interpreted one after another, in float32.

It covers the operators that residual-skip runs, except control flow. Weights are parameters under the names of their
initialisers, so that fine-tuned ones can be written back into the graph.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import nn

# What of an operator's inputs is learnt, by position.
WEIGHTS = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "BatchNormalization": (1, 2), "Add": (0, 1), "Mul": (0, 1)}
DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


class Unsupported(ValueError):
    """The graph holds what the interpreter doesn't know."""


class Node:
    def __init__(self, proto: onnx.NodeProto, opset: int):
        self.op, self.opset = proto.op_type, opset
        self.name = proto.name or f"{proto.op_type} of {proto.output[0]}"
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        self.attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}

    def get(self, name: str, default=None):
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def integers(tensor: torch.Tensor) -> list[int]:
    return [int(value) for value in tensor.flatten().tolist()]


def same_pads(node: Node, size: Iterable[int], kernel, strides, dilations) -> list[int] | None:
    """Begins and ends of an `auto_pad`; None where the node has pads of its own."""
    mode = node.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        return None
    begins, ends = [], []
    for length, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + (k - 1) * dilation + 1 - length)
        small = total // 2
        begins.append(small if mode == "SAME_UPPER" else total - small)
        ends.append(total - begins[-1])
    return begins + ends


def window(node: Node, x: torch.Tensor, kernel: list[int]):
    """Strides, dilations and pads (begins, then ends) of a convolution or pooling."""
    rank = len(kernel)
    strides = list(node.get("strides", [1] * rank))
    dilations = list(node.get("dilations", [1] * rank))
    pads = same_pads(node, x.shape[2:], kernel, strides, dilations) or list(node.get("pads", [0] * 2 * rank))
    return strides, dilations, pads


def padded(x: torch.Tensor, pads: list[int], value: float) -> torch.Tensor:
    """`pads` as ONNX has them, over the last axes."""
    rank = len(pads) // 2
    order = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    return F.pad(x, order, value=value) if any(order) else x


def conv(node: Node, x, weight, bias=None):
    strides, dilations, pads = window(node, x, list(weight.shape[2:]))
    rank = len(strides)
    group = node.get("group", 1)
    run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    if pads[:rank] == pads[rank:]:
        return run(x, weight, bias, strides, pads[:rank], dilations, group)
    return run(padded(x, pads, 0.0), weight, bias, strides, 0, dilations, group)


def pool(node: Node, x):
    kernel = list(node.get("kernel_shape"))
    strides, dilations, pads = window(node, x, kernel)
    if node.op == "MaxPool" and len(node.outputs) > 1:
        raise Unsupported(f"{node.name}: MaxPool with indices")
    if node.get("ceil_mode", 0):
        for axis, length in enumerate(x.shape[2:]):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            rest = length + pads[axis] + pads[len(kernel) + axis] - reach
            pads[len(kernel) + axis] += -rest % strides[axis]
    if node.op == "MaxPool":
        run = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
        return run(padded(x, pads, -torch.inf), kernel, strides, 0, dilations)
    run = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel)]
    mean = run(padded(x, pads, 0.0), kernel, strides)
    own = list(node.get("pads", [0] * 2 * len(kernel)))
    if not any(pads) or (node.get("count_include_pad", 0) and pads == own):
        return mean
    inside = torch.ones_like(x[:1, :1])
    if node.get("count_include_pad", 0):
        inside, pads = padded(inside, own, 1.0), [p - q for p, q in zip(pads, own, strict=True)]
    return mean / run(padded(inside, pads, 0.0), kernel, strides)


def gemm(node: Node, a, b, c=None):
    a = a.t() if node.get("transA", 0) else a
    b = b.t() if node.get("transB", 0) else b
    y = node.get("alpha", 1.0) * (a @ b) if node.get("alpha", 1.0) != 1.0 else a @ b
    return y if c is None else y + node.get("beta", 1.0) * c


def batch_norm(node: Node, x, scale, bias, mean, var):
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


def axes_of(node: Node, given, rank: int) -> list[int]:
    axes = integers(given) if given is not None else node.get("axes")
    return [axis % rank for axis in (range(rank) if axes is None else axes)]


def reduce_mean(node: Node, x, axes=None):
    return x.mean(dim=axes_of(node, axes, x.ndim), keepdim=bool(node.get("keepdims", 1)))


def reshape(node: Node, x, shape):
    keep_zeros = node.get("allowzero", 0)
    sizes = integers(shape)
    return x.reshape([x.shape[i] if size == 0 and not keep_zeros else size for i, size in enumerate(sizes)])


def flatten(node: Node, x):
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def squeeze(node: Node, x, axes=None):
    if axes is None and "axes" not in node.attributes:
        return x.squeeze()
    return x.squeeze(dim=axes_of(node, axes, x.ndim))


def unsqueeze(node: Node, x, axes=None):
    given = integers(axes) if axes is not None else list(node.get("axes"))
    rank = x.ndim + len(given)
    for axis in sorted(axis % rank for axis in given):
        x = x.unsqueeze(axis)
    return x


def softmax(node: Node, x):
    run = F.softmax if node.op == "Softmax" else F.log_softmax
    if node.opset >= 13:
        return run(x, node.get("axis", -1))
    axis = node.get("axis", 1) % x.ndim
    return run(x.flatten(axis), -1).reshape(x.shape)


def clip(node: Node, x, low=None, high=None):
    low = node.get("min") if low is None else low.item()
    high = node.get("max") if high is None else high.item()
    return x if low is None and high is None else x.clamp(low, high)


def pad(node: Node, x, pads=None, value=None, axes=None):
    given = integers(pads) if pads is not None else list(node.get("pads"))
    fill = value.item() if value is not None else node.get("value", 0.0)
    picked = integers(axes) if axes is not None else list(range(x.ndim))
    whole = [0] * (2 * x.ndim)
    for i, axis in enumerate(picked):
        whole[axis % x.ndim], whole[axis % x.ndim + x.ndim] = given[i], given[len(picked) + i]
    mode = node.get("mode", "constant")
    if mode == "constant":
        return padded(x, whole, fill)
    spatial = [whole[axis + side * x.ndim] for axis in reversed(range(2, x.ndim)) for side in (0, 1)]
    if any(whole[:2]) or any(whole[x.ndim : x.ndim + 2]) or mode not in ("reflect", "edge"):
        raise Unsupported(f"{node.name}: Pad with mode {mode}")
    return F.pad(x, spatial, mode="replicate" if mode == "edge" else mode)


def slice_(node: Node, x, starts=None, ends=None, axes=None, steps=None):
    first = integers(starts) if starts is not None else list(node.get("starts"))
    last = integers(ends) if ends is not None else list(node.get("ends"))
    if axes is not None:
        over = integers(axes)
    else:
        over = list(node.get("axes", range(len(first))))
    strides = integers(steps) if steps is not None else [1] * len(first)
    for begin, end, axis, step in zip(first, last, over, strides, strict=True):
        picked = range(x.shape[axis])[begin if begin > -(2**31) else None : end if abs(end) < 2**31 else None : step]
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(picked.start, picked.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64))
    return x


def split(node: Node, x, sizes=None):
    axis = node.get("axis", 0)
    if sizes is not None or "split" in node.attributes:
        return x.split(integers(sizes) if sizes is not None else list(node.get("split")), axis)
    return x.chunk(len(node.outputs), axis)


def gather(node: Node, x, indices):
    axis = node.get("axis", 0) % x.ndim
    flat = indices.flatten() % x.shape[axis]
    return x.index_select(axis, flat).reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def constant(node: Node):
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if name in node.attributes:
            return torch.tensor(node.attributes[name])
    return torch.from_numpy(np.array(numpy_helper.to_array(node.attributes["value"])))


def constant_of_shape(node: Node, shape):
    value = numpy_helper.to_array(node.attributes["value"]) if "value" in node.attributes else np.zeros(1, np.float32)
    return torch.full(integers(shape), value.item(), dtype=torch.from_numpy(np.array(value)).dtype)


def div(node: Node, a, b):
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def shape(node: Node, x):
    return torch.tensor(x.shape, dtype=torch.int64)[node.get("start", 0) : node.get("end")]


def global_pool(node: Node, x):
    axes = list(range(2, x.ndim))
    return x.mean(axes, keepdim=True) if node.op == "GlobalAveragePool" else x.amax(axes, keepdim=True)


def expand(node: Node, x, sizes):
    return x.expand(torch.broadcast_shapes(x.shape, integers(sizes)))


OPERATORS: dict[str, Callable] = {
    "Conv": conv, "Gemm": gemm, "BatchNormalization": batch_norm, "MaxPool": pool, "AveragePool": pool,
    "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, "ReduceMean": reduce_mean, "Clip": clip,
    "MatMul": lambda node, a, b: a @ b,
    "Relu": lambda node, x: F.relu(x),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "Sigmoid": lambda node, x: torch.sigmoid(x),
    "HardSigmoid": lambda node, x: (x * node.get("alpha", 0.2) + node.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda node, x: x * (x / 6 + 0.5).clamp(0, 1),
    "Tanh": lambda node, x: torch.tanh(x),
    "Softmax": softmax, "LogSoftmax": softmax,
    "Add": lambda node, a, b: a + b, "Sub": lambda node, a, b: a - b, "Mul": lambda node, a, b: a * b, "Div": div,
    "Sum": lambda node, *terms: sum(terms[1:], terms[0]),
    "Neg": lambda node, x: -x,
    "Greater": lambda node, a, b: a > b, "GreaterOrEqual": lambda node, a, b: a >= b,
    "Less": lambda node, a, b: a < b, "LessOrEqual": lambda node, a, b: a <= b, "Equal": lambda node, a, b: a == b,
    "And": lambda node, a, b: a & b, "Or": lambda node, a, b: a | b, "Not": lambda node, a: ~a,
    "Where": lambda node, condition, a, b: torch.where(condition, a, b),
    "Identity": lambda node, x: x, "Dropout": lambda node, x, *_: x,
    "Flatten": flatten, "Reshape": reshape, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
    "Transpose": lambda node, x: x.permute(node.get("perm", list(reversed(range(x.ndim))))),
    "Concat": lambda node, *parts: torch.cat(parts, node.get("axis")),
    "Expand": expand, "Pad": pad, "Slice": slice_, "Split": split, "Gather": gather,
    "Constant": constant, "ConstantOfShape": constant_of_shape, "Shape": shape,
    "Size": lambda node, x: torch.tensor(x.numel()),
    "Range": lambda node, start, limit, step: torch.arange(start.item(), limit.item(), step.item()),
    "Cast": lambda node, x: x.to(DTYPES[node.get("to")]),
    "ArgMax": lambda node, x: x.argmax(node.get("axis", 0), keepdim=bool(node.get("keepdims", 1))),
}  # fmt: skip


class OnnxNetwork(nn.Module):
    """`forward(images, names)` gives the tensors of those names; images are float32 [N, C, height, width]."""

    def __init__(self, model: onnx.ModelProto):
        super().__init__()
        graph = model.graph
        opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
        self.nodes = [Node(node, opset) for node in graph.node]
        unknown = sorted({node.op for node in self.nodes} - OPERATORS.keys())
        if unknown:
            raise Unsupported(f"the network uses {', '.join(unknown)}, which this tool doesn't rebuild")
        initialisers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        inputs = [port.name for port in graph.input if port.name not in initialisers]
        if len(inputs) != 1:
            raise Unsupported(f"the network has {len(inputs)} inputs ({', '.join(inputs)}); one of images is needed")
        self.input, self.output = inputs[0], graph.output[0].name
        learnt = {
            node.inputs[i]
            for node in self.nodes
            for i in WEIGHTS.get(node.op, ())
            if i < len(node.inputs) and node.inputs[i] in initialisers
        }
        self.weights = nn.ParameterDict()
        self.constants: dict[str, torch.Tensor] = {}
        self.keys: dict[str, str] = {}
        for name, array in initialisers.items():
            tensor = torch.from_numpy(np.array(array))
            if name in learnt and tensor.dtype == torch.float32:
                if tensor.ndim == 4:
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.keys[name] = f"weight{len(self.keys)}"
                self.weights[self.keys[name]] = nn.Parameter(tensor)
            else:
                self.constants[name] = tensor
        self.producers = {name: node for node in self.nodes for name in node.outputs}

    def weight(self, name: str) -> torch.Tensor:
        return self.weights[self.keys[name]] if name in self.keys else self.constants[name]

    def needed(self, names: Iterable[str], given: str | None = None) -> list[Node]:
        """The nodes that these tensors depend on, in order; without those that only the tensor `given` depends on."""
        wanted = set(names)
        nodes = []
        for node in reversed(self.nodes):
            if given in node.outputs:
                continue
            if wanted & set(node.outputs):
                wanted.update(node.inputs)
                nodes.append(node)
        return nodes[::-1]

    def forward(self, images: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
        nodes = self.needed(names)
        last = {name: i for i, node in enumerate(nodes) for name in node.inputs}
        values: dict[str, torch.Tensor | None] = {self.input: images, "": None}
        found = {self.input: images} if self.input in names else {}

        def look_up(name: str):
            if name in values:
                return values[name]
            return self.weight(name)

        for i, node in enumerate(nodes):
            made = OPERATORS[node.op](node, *[look_up(name) for name in node.inputs])
            made = made if isinstance(made, tuple | list) else (made,)
            for name, value in zip(node.outputs, made, strict=False):
                values[name] = value
                if name in names:
                    found[name] = value
            for name in node.inputs:
                if name and last[name] == i and name in values:
                    del values[name]
        return found


def load(file: Path) -> tuple[onnx.ModelProto, OnnxNetwork]:
    model = onnx.load(str(file))
    return model, OnnxNetwork(model)
