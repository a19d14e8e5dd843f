"""A CIFAR-style ResNet (He et al. 2016, section 4.2) whose identity blocks may carry a gate each."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

# Hidden units of a gate.
HIDDEN = 64


def conv_norm(x: torch.Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, skip: torch.Tensor | None = None,
              relu: bool = True) -> torch.Tensor:  # fmt: skip
    """relu(norm(conv(x)) + skip): `skip` and `relu` may be left out."""
    z = norm(conv(x))
    z = z if skip is None else skip + z
    return F.relu(z) if relu else z


class Gate(nn.Module):
    """Scores a block's input, [N, C, H, W] to [N, 1]: global average pool, then an MLP C-hidden-1; score > 0 runs it.

    The pooled features are standardised while training, so that every gate starts by telling images apart instead of
    by being constant; `fold` moves that into the first layer, and an exported gate is two plain linear layers.
    """

    def __init__(self, channels: int, hidden: int = HIDDEN):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.score(x.float().mean((2, 3)))

    def score(self, pooled: torch.Tensor) -> torch.Tensor:
        """Scores [N, 1] of pooled inputs [N, C]."""
        return self.fc2(F.relu(self.fc1(self.norm(pooled))))

    @torch.no_grad()
    def fold(self) -> None:
        if isinstance(self.norm, nn.Identity):
            return
        weight = self.fc1.weight.double() / (self.norm.running_var.double() + self.norm.eps).sqrt()
        self.fc1.bias.copy_(self.fc1.bias.double() - weight @ self.norm.running_mean.double())
        self.fc1.weight.copy_(weight)
        self.norm = nn.Identity()


class Block(nn.Module):
    """Basic block: relu(shortcut(x) + run * F(x)). Identity blocks can be left out, since their input is >= 0."""

    def __init__(self, inputs: int, outputs: int, stride: int, gated: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.is_identity = inputs == outputs and stride == 1
        self.shortcut = None
        if not self.is_identity:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.gate = Gate(inputs) if gated and self.is_identity else None

    def forward(self, x: torch.Tensor, run: torch.Tensor | None = None) -> torch.Tensor:
        """`run`, [N, 1, 1, 1], scales the residual per item; None runs the block for all."""
        skip = x if self.shortcut is None else conv_norm(x, *self.shortcut, relu=False)
        hidden = conv_norm(x, self.conv1, self.bn1)
        if run is None:
            return conv_norm(hidden, self.conv2, self.bn2, skip)
        return F.relu(skip + run * conv_norm(hidden, self.conv2, self.bn2, relu=False))


def hard_decision(score: torch.Tensor) -> torch.Tensor:
    """score > 0 as 0 or 1, [N, 1] to [N, 1, 1, 1]; traced to Greater, Cast, Reshape."""
    return (score > 0).to(torch.float32).reshape(-1, 1, 1, 1)


class ResNet(nn.Module):
    """`depths` and `widths` hold blocks and channels per stage; all stages but the first halve the resolution.

    The stem is a 3x3 convolution, or for `large` images a 7x7 one and a maximum pool, each of stride 2 (He et al. 2016,
    table 1).
    """

    def __init__(self, channels: int, classes: int, depths: Sequence[int], widths: Sequence[int], gated: bool = False,
                 large: bool = False):  # fmt: skip
        super().__init__()
        self.depths, self.widths = tuple(depths), tuple(widths)
        kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        self.stem = nn.Conv2d(channels, widths[0], kernel, stride, padding, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.stem_bn = nn.BatchNorm2d(widths[0])
        blocks, width = [], widths[0]
        for stage, (depth, outputs) in enumerate(zip(depths, widths, strict=True)):
            for index in range(depth):
                blocks.append(Block(width, outputs, 2 if stage > 0 and index == 0 else 1, gated))
                width = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @torch.no_grad()
    def whiten(self, images: torch.Tensor) -> None:
        """Makes the stem the first principal components of patches of the normalised `images` [N, C, H, W], scaled to variance 1,
        each with both signs, and keeps it so (Page 2019, How to Train Your ResNet). A stem has at most two channels for each
        value of a patch.
        """
        weight = self.stem.weight
        patches = F.unfold(images, self.stem.kernel_size).transpose(1, 2).flatten(0, 1)
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variances + 5e-4).sqrt()).T.flip(0)[: len(weight) // 2]
        weight.copy_(torch.cat([filters, -filters]).view_as(weight))
        weight.requires_grad_(False)

    @property
    def layers(self) -> int:
        """Weighted layers on the longest path (He et al.'s count): two per block, stem and head; no projections."""
        return 2 * len(self.blocks) + 2

    @property
    def identity_blocks(self) -> list[int]:
        return [index for index, block in enumerate(self.blocks) if block.is_identity]

    def per_block(self, values: list) -> list:
        """One entry per block of what there is one of for each gate, None where the block has none."""
        gated = iter(values)
        return [None if block.gate is None else next(gated) for block in self.blocks]

    @property
    def gates(self) -> list[Gate]:
        return [block.gate for block in self.blocks if block.gate is not None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes] of [N, C, H, W]; gates, where there are any, decide per item."""
        return self.run(x)[0]

    def begin(self, x: torch.Tensor) -> torch.Tensor:
        """The input of the first block."""
        return self.pool(conv_norm(x, self.stem, self.stem_bn))

    def run(
        self, x: torch.Tensor, kept: Sequence[bool] | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits, and the gates' scores, each [N, 1].

        `kept`, one flag per block, overrides the gates for the whole batch: blocks not kept are not computed, and no
        gate is asked.
        """
        scores = []
        x = self.begin(x)
        for index, block in enumerate(self.blocks):
            if kept is not None:
                if kept[index]:
                    x = block(x)
            elif block.gate is None:
                x = block(x)
            else:
                score = block.gate(x)
                scores.append(score)
                x = block(x, hard_decision(score))
        return self.head(x.float().mean((2, 3))), scores

    def anytime(
        self, x: torch.Tensor, kept: Sequence[bool], pooled: list[torch.Tensor] | None = None
    ) -> list[torch.Tensor]:
        """Logits behind each block of the last stage, all of which run, for earlier blocks as in `run`: what the network
        answers when it leaves out the rest. There is no BatchNorm between those blocks and the head, so they all share it.

        `pooled` gets the pooled input [N, C] of each gate.
        """
        logits, last = [], len(self.blocks) - self.depths[-1]
        x = self.begin(x)
        for index, block in enumerate(self.blocks):
            if pooled is not None and block.gate is not None:
                pooled.append(x.float().mean((2, 3)))
            if index >= last or kept[index]:
                x = block(x)
            if index >= last:
                logits.append(self.head(x.float().mean((2, 3))))
        return logits

    def costs(self, size: int) -> tuple[int, list[int]]:
        """Multiply-adds of one image of `size` pixels squared: of the whole network, and of each block."""
        size //= self.stem.stride[0]
        stem = self.stem.weight.numel() * size * size
        size //= getattr(self.pool, "stride", 1)
        blocks = []
        for block in self.blocks:
            size //= block.conv1.stride[0]
            parts = [block.conv1, block.conv2] + ([block.shortcut[0]] if block.shortcut is not None else [])
            blocks.append(sum(part.weight.numel() for part in parts) * size * size)
        return stem + sum(blocks) + self.head.weight.numel(), blocks
