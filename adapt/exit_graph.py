"""Writes exits into an ONNX graph: nodes are added to the original, which is left as it is up to its weights.

The graph's answer becomes Where(largest probability of exit 1 >= its threshold, answer of exit 1, Where(..., the whole network's
answer)). residual-skip recognises this and leaves at the first sure exit; any other engine computes all of it and
gives the same answers.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from common import nearest_bytes
from exits import Classifier, Exit, Exits
from onnx_network import OnnxNetwork
from tail import Tail

PREFIX = "exits"


def folded(layer: nn.Module, norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a layer without bias and the normalisation behind it."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    return weight, norm.bias - norm.running_mean * scale


class ExitWriter:
    """Adds nodes to a graph under names that begin with the exit's."""

    def __init__(self, graph: onnx.GraphProto):
        self.graph = graph
        self.scope = PREFIX

    def constant(self, name: str, value: torch.Tensor | np.ndarray) -> str:
        array = value.detach().contiguous().numpy() if isinstance(value, torch.Tensor) else value
        full = f"{self.scope}/{name}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), full))
        return full

    def node(self, op: str, inputs: list[str], name: str, **attributes) -> str:
        full = f"{self.scope}/{name}"
        self.graph.node.append(helper.make_node(op, inputs, [full], full, **attributes))
        return full

    def linear(self, x: str, weight: torch.Tensor, bias: torch.Tensor, name: str) -> str:
        inputs = [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        return self.node("Gemm", inputs, name, transB=1)

    def flat_pool(self, op: str, x: str, name: str) -> str:
        return self.node("Flatten", [self.node(op, [x], f"{name}/map")], name, axis=1)

    def write(self, exit_: Exit, found: str | None, softmax: bool) -> tuple[str, str, str]:
        """Names of what the exit found, of its score [N, 1] and of its answer [N, classes]."""
        point = exit_.point
        self.scope = f"{PREFIX}/{point.block}"
        x = point.tensor
        if point.pooling != (1, 1):
            kernel = list(point.pooling)
            x = self.node("AveragePool", [x], "pool", kernel_shape=kernel, strides=kernel)
        kernel, strides = point.windows()
        grid = self.node("AveragePool", [x], "windows", kernel_shape=kernel, strides=strides)
        parts = [self.node("Flatten", [grid], "grid", axis=1), self.flat_pool("GlobalMaxPool", x, "max")]
        joined = self.node("Concat", parts + ([found] if found else []), "pooled", axis=1)
        weight, bias = folded(exit_.mix, exit_.mix_norm)
        scale = 1 / torch.sqrt(exit_.normal.running_var + exit_.normal.eps)
        weight = nearest_bytes(weight * scale)
        mixed = self.linear(joined, weight, bias - weight @ exit_.normal.running_mean, "mix")
        found = self.node("Relu", [mixed], "found")
        weight, bias = exit_.predict.weight, exit_.predict.bias
        if exit_.weight is not None:
            weight, bias = exit_.weight @ weight, exit_.weight @ bias + exit_.bias
        logits = self.linear(found, nearest_bytes(weight), bias, "logits")
        answer, rows = self.answer(logits, softmax)
        return found, self.flat_pool("GlobalMaxPool", rows, "score"), answer

    def answer(self, logits: str, softmax: bool) -> tuple[str, str]:
        """Names of the answer, and of the probabilities [N, 1, 1, classes]."""
        answer = self.node("Softmax", [logits], "answer", axis=1) if softmax else logits
        row = self.constant("row", np.array([0, 1, 1, -1], np.int64))
        probabilities = answer if softmax else self.node("Softmax", [logits], "probabilities", axis=1)
        return answer, self.node("Reshape", [probabilities, row], "rows")

    def write_tail(self, tail: Tail, softmax: bool) -> tuple[str, str]:
        """Names of its score and of its answer, as `write` gives them."""
        point, network = tail.point, tail.network
        self.scope = f"{PREFIX}/{point.block}"
        kernel, strides = point.windows()
        coarse = self.node("AveragePool", [point.tensor], "windows", kernel_shape=kernel, strides=strides)
        names = {"": "", point.tensor: coarse}
        for node in tail.model.graph.node:
            for name in node.input:
                if name not in names:
                    names[name] = self.constant(name, network.weight(name))
            own = self.graph.node.add()
            own.CopyFrom(node)
            own.name = f"{self.scope}/{node.name or node.output[0]}"
            for i, name in enumerate(node.input):
                own.input[i] = names[name]
            for i, name in enumerate(node.output):
                own.output[i] = names[name] = f"{self.scope}/{name}" if name else ""
        logits = self.node("Flatten", [names[network.output]], "features", axis=1)
        if tail.predict:
            logits = self.linear(logits, nearest_bytes(tail.predict.weight), tail.predict.bias, "logits")
        answer, rows = self.answer(logits, softmax)
        first = self.node("GlobalMaxPool", [rows], "first")
        is_first = self.node("GreaterOrEqual", [rows, first], "is first")
        zero = self.constant("zero", np.zeros(1, np.float32))
        second = self.node("GlobalMaxPool", [self.node("Where", [is_first, zero, rows], "others")], "second")
        share = self.node("Div", [first, self.node("Add", [first, second], "both")], "share")
        return self.node("Flatten", [share], "score", axis=1), answer


def add_exits(model: onnx.ModelProto, exits: Exits, classifier: Classifier, thresholds: list[float]) -> None:
    """Adds exits to `model`, whose output keeps its name and its shape [N, classes]."""
    graph = model.graph
    output = graph.output[0].name
    full = f"{PREFIX}/full"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == output:
                    names[i] = full
    writer = ExitWriter(graph)
    found, choices = None, []
    for exit_, threshold in zip(exits, thresholds, strict=True):
        if exit_ is exits.tail:
            score, answer = writer.write_tail(exit_, classifier.softmax)
        else:
            found, score, answer = writer.write(exit_, found, classifier.softmax)
        limit = writer.constant("threshold", np.array([[threshold]], np.float32))
        choices.append((writer.scope, score, limit, answer))
    chosen = full
    for i, (scope, score, limit, answer) in reversed(list(enumerate(choices))):
        writer.scope = scope
        sure = writer.node("GreaterOrEqual", [score, limit], "sure")
        chosen = writer.node("Where", [sure, answer, chosen], "chosen")
        if i == 0:
            graph.node[-1].output[0] = output


def write_weights(model: onnx.ModelProto, network: OnnxNetwork) -> None:
    """The weights of a fine-tuned network, in the place of the original ones."""
    for tensor in model.graph.initializer:
        if tensor.name in network.keys:
            array = network.weight(tensor.name).detach().contiguous().numpy()
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def write_adapted(out: Path, adaptation, network, exits: Exits, outcome, agreement: torch.Tensor) -> None:
    """The folder of the adapted network; `network` is the fine-tuned one, None where the original was left alone."""
    model = onnx.ModelProto()
    model.CopyFrom(adaptation.model)
    if network is not None:
        write_weights(model, network)
    with torch.no_grad():
        add_exits(model, exits.eval(), adaptation.classifier, outcome.thresholds)
    onnx.checker.check_model(model, full_check=True)
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(out / "model.onnx"))
    for name in ("config.json", "preprocessor_config.json", "LICENSE"):
        file = adaptation.file.parent / name
        if file.exists():
            shutil.copyfile(file, out / name)
    report = {
        "mode": "exits alone" if network is None else "fine-tuned",
        "images": len(adaptation.train),
        "validationImages": len(adaptation.held_out),
        "multiplyAdds": adaptation.multiply_adds,
        "exits": [
            {
                "after": exit_.point.block,
                "done": round(exit_.point.done, 4),
                "cost": round(exit_.work / adaptation.multiply_adds, 5),
                "agreement": round(share, 4),
                "leaving": round(leaving, 4),
                "threshold": threshold,
            }
            for exit_, share, leaving, threshold in zip(
                exits, agreement.tolist(), outcome.leaving, outcome.thresholds, strict=True
            )
        ],
        "multiplyAddsSaved": round(outcome.saved, 4),
        "answersChanged": round(outcome.changed, 4),
    }
    (out / "adaptation.json").write_text(json.dumps(report, indent=1) + "\n")
