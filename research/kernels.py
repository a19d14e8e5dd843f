"""Faster training steps on processors with AMX: a convolution with its batch normalisation, residual and ReLU as one function."""

import ctypes
import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

SOURCE = Path(__file__).with_name("kernels.cc")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
NEEDED = {"avx512_bf16", "amx_tile", "amx_bf16"}


@cache
def cpu_flags() -> set[str]:
    """What this processor can do, as Linux names it; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    return set(file.read_text().split()) if file.exists() else set()


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None without AMX or a compiler, and where RESIDUAL_SKIP_PLAIN_TRAINING is set."""
    if os.environ.get("RESIDUAL_SKIP_PLAIN_TRAINING") or not NEEDED <= cpu_flags():
        return None
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    file = Path.home() / ".cache" / "residual-skip" / "training" / f"kernels-{digest}.so"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        try:
            subprocess.run(["g++", *FLAGS, str(SOURCE), "-o", str(partial)], check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        partial.replace(file)
    loaded = ctypes.CDLL(str(file))
    return loaded if loaded.allow_amx() else None


def usable(channels: int) -> bool:
    """Whether a layer with so many channels runs in bfloat16 here, and there are kernels for it."""
    return torch.is_autocast_enabled("cpu") and channels % 16 == 0 and library() is not None


def address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(0 if tensor is None else tensor.data_ptr())


def as_map(x: torch.Tensor) -> torch.Tensor:
    """The map as the kernels read it: bfloat16, in the order N, H, W, C."""
    return x.bfloat16().contiguous(memory_format=torch.channels_last)


def rows(x: torch.Tensor) -> tuple[ctypes.c_long, ctypes.c_int]:
    """Pixels and channels of a map [N, C, H, W]."""
    return ctypes.c_long(x.numel() // x.shape[1]), ctypes.c_int(x.shape[1])


def sizes(x: torch.Tensor) -> tuple[ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_int]:
    """Number, height, width and channels of maps [N, C, H, W]."""
    return *map(ctypes.c_long, (len(x), *x.shape[2:])), ctypes.c_int(x.shape[1])


class ConvNorm(torch.autograd.Function):
    """relu(norm(conv(x)) + skip) in training, in bfloat16: maps [N, C, H, W] in the order N, H, W, C."""

    @staticmethod
    def forward(ctx, x, weight, gain, bias, skip, conv, norm, relu):
        x, weight, skip = as_map(x), weight.bfloat16(), None if skip is None else as_map(skip)
        z = as_map(F.conv2d(x, weight, None, conv.stride, conv.padding))
        mean, variance = torch.empty_like(gain), torch.empty_like(gain)
        library().moments(address(z), *rows(z), address(mean), address(variance))
        deviation = (variance + norm.eps).sqrt()
        scale = gain / deviation
        shift = bias - mean * scale
        y = torch.empty_like(z)
        library().normalise(address(z), address(skip), address(scale), address(shift), address(y), *rows(z), ctypes.c_int(relu))
        count = z.numel() // z.shape[1]
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        norm.num_batches_tracked.add_(1)
        # Where a skip was added, the ReLU's output alone says which of its inputs were positive.
        ctx.save_for_backward(x, weight, z, y if skip is not None else None, mean, deviation, gain, scale, shift)
        ctx.conv, ctx.relu = conv, relu
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, z, y, mean, deviation, gain, scale, shift = ctx.saved_tensors
        dy = as_map(dy)
        dz, dgain, dbias = torch.empty_like(z), torch.empty_like(gain), torch.empty_like(gain)
        dskip = None if y is None else torch.empty_like(z)
        given = map(address, (dy, y, z, mean, deviation, gain, scale, shift, dskip, dz, dgain, dbias))
        library().normalise_backward(*given, *rows(z), ctypes.c_int(ctx.relu))
        dweight, conv = fast_weight_gradient(x, dz, ctx.conv), ctx.conv
        wanted = [ctx.needs_input_grad[0], dweight is None, False]
        dx, plain, _ = torch.ops.aten.convolution_backward(
            dz, x, weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], 1, wanted
        )
        return dx, plain.float() if dweight is None else dweight, dgain, dbias, dskip, None, None, None


def fast_weight_gradient(x: torch.Tensor, dy: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor | None:
    """Of a convolution of 1x1 or 3x3 and stride 1 or 2; None for others."""
    side, stride = conv.kernel_size[0], conv.stride[0]
    known = side in (1, 3) and stride in (1, 2) and conv.in_channels % 16 == 0
    if not known or len(x) % 2 or x.shape[2:] != (stride * dy.shape[2], stride * dy.shape[3]):
        return None
    dweight = torch.empty_like(conv.weight, memory_format=torch.channels_last)
    n, height, width, outputs = sizes(dy)
    given = n, height, width, *map(ctypes.c_int, (conv.in_channels, outputs.value, side, stride))
    library().weight_gradient(address(x), address(dy), *given, address(dweight))
    return dweight


def conv_norm(x: torch.Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, skip: torch.Tensor | None = None,
              relu: bool = True) -> torch.Tensor:  # fmt: skip
    """relu(norm(conv(x)) + skip): `skip` and `relu` may be left out."""
    if norm.training and usable(conv.out_channels):
        return ConvNorm.apply(x, conv.weight, norm.weight, norm.bias, skip, conv, norm, relu)
    z = norm(conv(x))
    z = z if skip is None else skip + z
    return F.relu(z) if relu else z


class Grid(torch.autograd.Function):
    """Averages of the four quarters of a map [N, C, H, W] in the order N, H, W, C, and its maxima: [N, 5, C]."""

    @staticmethod
    def forward(ctx, x):
        x = as_map(x)
        seen = x.new_empty((len(x), 5, x.shape[1]), dtype=torch.float32)
        places = x.new_empty((len(x), x.shape[1]), dtype=torch.int32)
        library().grid(address(x), *sizes(x), address(seen), address(places))
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return seen

    @staticmethod
    def backward(ctx, dseen):
        (places,) = ctx.saved_tensors
        dx = torch.empty(ctx.shape, dtype=torch.bfloat16, memory_format=torch.channels_last)
        library().grid_backward(address(dseen.contiguous()), address(places), *sizes(dx), address(dx))
        return dx
