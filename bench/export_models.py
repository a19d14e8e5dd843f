#!/usr/bin/env python3
"""Exports the networks of the benchmark with fixed random weights, as ONNX files with a dynamic batch axis.

    python3 bench/export_models.py [-o bench/models] [--int8] [NAME ...]
    python3 bench/export_models.py [-o bench/models] --published

A NAME is one of NETWORKS, or of a network that torchvision has. --published exports those of torchvision that published.json lists.

Needs torch, torchvision and onnx (Debian: python3-torch python3-torchvision python3-onnx). --int8 also writes
NAME.int8.onnx, quantised by onnxruntime's own tool (python3-onnxruntime): QDQ, uint8 activations, int8 weights
for each channel; networks of texts dynamically, as transformers.js's files are. Weights are
random but tame: BatchNorm statistics are settled on random images, so that activations neither vanish nor
overflow. Speed does not depend on what the weights are.
"""
import argparse
import json
import math
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision.models as tv


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: identity, or 1x1 where the shape changes."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """He et al. 2016, section 4.2: depth 6n + 2, three stages of 16, 32 and 64 channels."""

    def __init__(self, depth):
        super().__init__()
        blocks, channels = [], 16
        for width in (16, 32, 64):
            for i in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels, width, 2 if i == 0 and width > 16 else 1))
                channels = width
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


# Encoders of text as Hugging Face's BERT computes them, and vision transformers as timm's ViT does, from their papers
# (Devlin et al. 2018; Dosovitskiy et al. 2020; Touvron et al. 2020): what exporters make of the usual ways to write attention.


class SelfAttention(nn.Module):
    """Three projections; heads are split by view and permute, scores are divided by the root of the head's width."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).permute(0, 2, 1, 3)

    def forward(self, x, mask):
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
        context = torch.matmul(torch.softmax(scores + mask, dim=-1), value).permute(0, 2, 1, 3).contiguous()
        return self.output(context.view(x.shape))


class PostNormLayer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))

    def forward(self, x, mask):
        x = self.norm1(self.attention(x, mask) + x)
        return self.norm2(self.mlp(x) + x)


class TextEncoder(nn.Module):
    """BERT without its pooler: ids, mask and types in, the last hidden state out."""

    def __init__(self, layers, width, heads, words=30522, positions=512):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(PostNormLayer(width, heads, 4 * width) for _ in range(layers))
        self.register_buffer("places", torch.arange(positions).expand(1, -1))

    def forward(self, input_ids, attention_mask, token_type_ids):
        places = self.places[:, : input_ids.shape[1]]
        x = self.norm(self.words(input_ids) + self.types(token_type_ids) + self.positions(places))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x


class JointAttention(nn.Module):
    """One projection to queries, keys and values, split by reshape and permute(2, 0, 3, 1, 4)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        items, tokens, width = x.shape
        qkv = self.qkv(x).reshape(items, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        scores = (query * (width // self.heads) ** -0.5) @ key.transpose(-2, -1)
        return self.output((scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(items, tokens, width))


class PreNormLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = JointAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageTransformer(nn.Module):
    """ViT or DeiT on images of 224 pixels in patches of 16."""

    def __init__(self, layers, width, heads):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.layers = nn.Sequential(*(PreNormLayer(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 1000)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.places
        return self.head(self.norm(self.layers(x))[:, 0])


TEXT_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]

NETWORKS = {
    "resnet20": (lambda: CifarResNet(20), 32),
    "resnet32": (lambda: CifarResNet(32), 32),
    "resnet56": (lambda: CifarResNet(56), 32),
    "resnet18": (tv.resnet18, 224),
    "resnet50": (tv.resnet50, 224),
    "wide_resnet50": (tv.wide_resnet50_2, 224),
    "resnext50": (tv.resnext50_32x4d, 224),
    "mobilenetv2": (tv.mobilenet_v2, 224),
    "vit_b16": (lambda: with_head(tv.vit_b_16()), 224),
    "deit_tiny": (lambda: ImageTransformer(12, 192, 3), 224),
    "convnext_tiny": (lambda: with_visible_scales(tv.convnext_tiny()), 224),
    "bert_base": (lambda: TextEncoder(12, 768, 12), None),
    "minilm_l6": (lambda: TextEncoder(6, 384, 12), None),
}


def with_head(network):
    """torchvision starts the head at zero, so that all images would have the same logits."""
    nn.init.normal_(network.heads.head.weight, std=0.02)
    return network


def with_visible_scales(network):
    """torchvision starts the scale of every block at 1e-6, so that blocks would change nothing."""
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):
            nn.init.constant_(parameter, 0.3)
    return network


class MapAlone(nn.Module):
    """torchvision's networks for segmentation return a dictionary."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)["out"]


def from_torchvision(name):
    """As torchvision makes it; without the heads that only training uses."""
    segments = name.startswith(("deeplabv3", "fcn", "lraspp"))
    trained = {"weights_backbone": None} if segments else {}
    if name in ("googlenet", "inception_v3"):
        trained["init_weights"] = True
    network = with_visible_scales(tv.get_model(name, weights=None, **trained))
    return MapAlone(network) if segments else network


def find(name):
    """What makes a network, and the side of its images; None for texts."""
    if name in NETWORKS:
        return NETWORKS[name]
    if name not in tv.list_models():
        raise SystemExit(f"network {name}: neither {', '.join(NETWORKS)} nor torchvision has it")
    return lambda: from_torchvision(name), 299 if name == "inception_v3" else 224


def settle(network, size):
    """Two batches in training mode give every BatchNorm the statistics of its input."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.momentum = None
    if not norms:
        return network.eval()
    with torch.no_grad():
        network.train()
        for _ in range(2):
            network(torch.randn(4, 3, size, size))
    return network.eval()


def quantise(path, size):
    """Static quantisation with ranges from a few random images; dynamic for texts."""
    import onnx.reference  # noqa: F401  onnxruntime's tool needs it to be loaded
    from onnxruntime import quantization as q

    class Images(q.CalibrationDataReader):
        def __init__(self):
            self.images = iter(torch.randn(4, 1, 3, size, size).numpy())

        def get_next(self):
            image = next(self.images, None)
            return None if image is None else {"input": image}

    output = path.with_suffix(".int8.onnx")
    if size is None:
        q.quantize_dynamic(str(path), str(output), per_channel=True, weight_type=q.QuantType.QInt8)
        print(f"{output}  {output.stat().st_size / 2**20:.1f} MiB")
        return
    q.quantize_static(
        str(path),
        str(output),
        Images(),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
    )
    print(f"{output}  {output.stat().st_size / 2**20:.1f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path(__file__).parent / "models")
    parser.add_argument("--int8", action="store_true", help="also write an 8-bit form")
    parser.add_argument("--published", action="store_true", help="those of torchvision in published.json")
    parser.add_argument("names", nargs="*", help="all of NETWORKS when none is given")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.published:
        arguments.names += json.loads(pathlib.Path(__file__).with_name("published.json").read_text())["torchvision"]
    for name in arguments.names or NETWORKS:
        make, size = find(name)
        torch.manual_seed(0)
        network = settle(make(), size)
        path = arguments.output / f"{name}.onnx"
        if size is None:
            inputs = {each: torch.ones(1, 16, dtype=torch.int64) for each in TEXT_INPUTS}
            axes, output = {0: "batch", 1: "tokens"}, "last_hidden_state"
        else:
            inputs = {"input": torch.zeros(1, 3, size, size)}
            axes, output = {0: "batch"}, "logits"
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={each: axes for each in [*inputs, output]},
            opset_version=17,
            dynamo=False,
        )
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
        if arguments.int8:
            quantise(path, size)


if __name__ == "__main__":
    main()
