"""The files of a network, and whether ONNX's own evaluator answers like PyTorch."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from data import Split


def export_onnx(network: nn.Module, feeds: dict[str, torch.Tensor], file: Path) -> None:
    """Opset 17, inputs like `feeds` for any batch, and any number of tokens [batch, tokens]; output `logits` [batch, classes].
    BatchNorm is folded by the exporter.
    """
    axes = {name: {0: "batch", 1: "tokens"} if value.ndim == 2 else {0: "batch"} for name, value in feeds.items()}
    example = tuple(value[:2].contiguous() for value in feeds.values())
    torch.onnx.export(
        network.eval().to(memory_format=torch.contiguous_format), example, str(file), dynamo=False, opset_version=17,
        input_names=list(feeds), output_names=["logits"], dynamic_axes=axes | {"logits": {0: "batch"}},
    )  # fmt: skip


def check_onnx(file: Path, feeds: dict[str, torch.Tensor], logits: torch.Tensor) -> None:
    """Runs the file in ONNX's own reference evaluator; raises where it and PyTorch differ."""
    onnx.checker.check_model(str(file), full_check=True)
    (answer,) = ReferenceEvaluator(str(file)).run(None, {name: value.contiguous().numpy() for name, value in feeds.items()})
    np.testing.assert_allclose(answer, logits.numpy(), atol=1e-3, err_msg=str(file))


def two_per_class(test: Split, classes: int) -> list[int]:
    return [int(index) for label in range(classes) for index in (test.labels == label).nonzero()[:2, 0]]
