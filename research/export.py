"""Writes a network folder: model.onnx, config.json, preprocessor_config.json, reference.json and README.md."""

import base64
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from data import Dataset, Split, model_config, normalize, preprocessor_config, write_json
from evaluate import Evaluation, evaluate
from model_card import gated_card, plain_card
from network import ResNet
from progress import report
from recipes import Recipe

NOTE = "PyTorch 2.6, fp32; decisions: 1 ran, 0 skipped, null: block without a gate"


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


def spread(values: list, network: ResNet) -> list:
    """One entry per block, null where the block has no gate."""
    gated = network.identity_blocks
    return [values[gated.index(index)] if index in gated else None for index in range(len(network.blocks))]


def test_decisions(network: ResNet, scores: torch.Tensor) -> dict:
    """PyTorch's decisions on the whole test set, for other engines to be compared with.

    `masks` holds, per image in order, the bits of its gates (first gate lowest; 1 ran) in as few bytes as they take,
    as base64; `near` lists the images with a score within 1e-4 of the threshold, which rounding may turn.
    """
    bits = np.packbits((scores > 0).numpy(), axis=1, bitorder="little")
    near = (scores.abs() < 1e-4).any(1).nonzero()[:, 0].tolist()
    return {"blocks": network.identity_blocks, "masks": base64.b64encode(bits.tobytes()).decode(), "near": near}


def reference(network: ResNet, result: Evaluation, test: Split, gated: bool) -> dict:
    names = ("full", "gated", "static", "random") if gated else ("plain",)
    accuracies = {("full" if name == "plain" else name): result.figures["accuracyOnTest"][name] for name in names}
    items = []
    for index in two_per_class(test, result.plain_logits.shape[1]):
        item = {"file": test.names[index], "label": int(test.labels[index])}
        if gated:
            scores = result.scores[index]
            item["full"] = result.full_logits[index].tolist()
            item["gated"] = result.gated_logits[index].tolist()
            item["decisions"] = spread((scores > 0).int().tolist(), network)
            item["scores"] = spread(scores.tolist(), network)
        else:
            item["full"] = result.plain_logits[index].tolist()
        items.append(item)
    summary = {"accuracyOnTest": accuracies}
    if gated:
        summary["accuracyOnTest"] |= {
            "executionRate": result.figures["executionRate"],
            "distinctPaths": result.figures["distinctPaths"],
        }
    rates = [round(rate, 4) for rate in (result.scores > 0).double().mean(0).tolist()] if gated else None
    decisions = {"testDecisions": test_decisions(network, result.scores)} if gated else {}
    return summary | {"perGateExecutionRate": rates, "note": NOTE, "items": items} | decisions


def publish(dataset: Dataset, recipe: Recipe, plain: ResNet, gated: ResNet, train: Split, test: Split,
            out: Path, checkpoints: Path) -> None:  # fmt: skip
    """Evaluates both networks on the whole test set and writes both folders below `out`.

    `checkpoints` gets evaluation.json, the figures of the model cards.
    """
    for gate in gated.gates:
        gate.fold()
    result = evaluate(plain, gated, dataset, train, test)
    name = f"{dataset.name}-resnet{plain.layers}"
    for network, suffix, card in ((plain, "", plain_card), (gated, "-gated", gated_card)):
        folder = out / (name + suffix)
        folder.mkdir(parents=True, exist_ok=True)
        feeds = {"input": normalize(dataset, test.images[:4])}
        export_onnx(network, feeds, folder / "model.onnx")
        logits = result.gated_logits if suffix else result.plain_logits
        check_onnx(folder / "model.onnx", feeds, logits[:4])
        write_json(folder / "config.json", model_config(dataset))
        write_json(folder / "preprocessor_config.json", preprocessor_config(dataset))
        write_json(folder / "reference.json", reference(network, result, test, bool(suffix)))
        (folder / "README.md").write_text(card(name, dataset, recipe, plain, result.figures))
        report(f"wrote {folder}")
    write_json(checkpoints / "evaluation.json", result.figures)
    for key, value in result.figures.items():
        report(f"{key}: {value}")
