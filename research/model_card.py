"""The README.md of an exported network; its first lines are the metadata that model hubs read."""

from data import Dataset
from network import HIDDEN, ResNet
from recipes import Recipe


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def interval(bounds: list[float]) -> str:
    return f"{100 * bounds[0]:+.2f} to {100 * bounds[1]:+.2f} points"


def heading(name: str, dataset: Dataset) -> str:
    return f"""---
license: mit
library_name: onnx
pipeline_tag: image-classification
tags: [resnet, dynamic-depth, conditional-computation]
---
# {name}

"""


def architecture(dataset: Dataset, network: ResNet) -> str:
    stages = ", ".join(
        f"{depth} of {width} channels" for depth, width in zip(network.depths, network.widths, strict=True)
    )
    total = network.costs(dataset.size)[0] / 1e6
    return (
        f"ResNet-{network.layers} for {dataset.title}: a 3x3 stem, basic blocks in {len(network.depths)} stages "
        f"({stages}), projection shortcuts, global average pool, one linear layer; {total:.1f} M multiply-adds. "
        f"Input `input` [batch, {dataset.channels}, {dataset.size}, {dataset.size}], "
        f"output `logits` [batch, {len(dataset.labels)}], ONNX opset 17.\n"
    )


def data_source(dataset: Dataset) -> str:
    return f"\nData: {dataset.title} ({dataset.license}).\n"


def plain_card(name: str, dataset: Dataset, recipe: Recipe, network: ResNet, figures: dict) -> str:
    accuracy = percent(figures["accuracyOnTest"]["plain"])
    return (
        heading(name, dataset)
        + architecture(dataset, network)
        + f"\nPlain twin of `{name}-gated`, trained from scratch by `research/train.py {dataset.name}` for "
        f"{recipe.epochs} epochs. Accuracy on the whole test set: {accuracy}.\n" + data_source(dataset)
    )


def gated_card(name: str, dataset: Dataset, recipe: Recipe, network: ResNet, figures: dict) -> str:
    accuracy, bypassed = figures["accuracyOnTest"], figures["multiplyAddsBypassed"]
    gates, last = len(network.identity_blocks), network.depths[-1]
    return (
        heading(name + "-gated", dataset)
        + architecture(dataset, network)
        + f"""
Each of the {gates} identity blocks carries a gate: global average pool of the block's input, an MLP with {HIDDEN} hidden
units, score > 0 runs the block (Greater, Cast, Reshape, Mul in the graph; x + g * F(x)). An engine that skips a block
whose gate is 0 computes the same logits. Trained from scratch by `research/train.py {dataset.name}` in {recipe.epochs}
epochs, as many as its plain twin `{name}` from the same start: the head learns to answer behind each of the last
stage's {last} blocks. Then the gates alone learned, those of the last stage to run a block where the answer so far is
less than {100 * recipe.sure:.0f} % sure.

| on the whole test set | accuracy | multiply-adds bypassed |
|---|---|---|
| plain twin | {percent(accuracy["plain"])} | 0 |
| this network in full | {percent(accuracy["full"])} | 0 |
| this network, gated | {percent(accuracy["gated"])} | {percent(bypassed["mean"])} mean, {percent(bypassed["p50"])} median |
| best static choice of as many blocks | {percent(accuracy["static"])} | {percent(bypassed["static"])} |
| random choice of as many blocks | {percent(accuracy["random"])} | |

Layers bypassed: {percent(figures["layersBypassed"])}. Distinct paths: {figures["distinctPaths"]}. Paired 95 % interval
of gated minus plain: {interval(figures["gatedMinusPlain95"])}; of gated minus static:
{interval(figures["gatedMinusStatic95"])}. The static choice is the best on training images; its block count is rounded up.
"""
        + data_source(dataset)
    )
