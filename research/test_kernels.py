#!/usr/bin/env python3
"""Tests of the kernels for training: python3 -m unittest discover research"""

import sys
import unittest
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import kernels  # noqa: E402
from early_exits import ExitResNet, exit_loss, grid  # noqa: E402

torch.set_num_threads(1)


def map_of(*shape: int) -> torch.Tensor:
    return torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last)


def distance(given: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((given.double() - wanted.double()).norm() / wanted.double().norm()).item()


@unittest.skipUnless(kernels.library(), "needs a compiler, and a processor with AMX")
class KernelsTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_weight_gradients_are_those_in_double_precision(self):
        for n, height, width, inputs, outputs, side, stride in [
            (2, 1, 1, 16, 16, 3, 1), (4, 5, 7, 16, 48, 3, 1), (6, 8, 8, 96, 32, 3, 1), (32, 6, 6, 48, 48, 3, 1),
            (4, 3, 5, 32, 48, 3, 2), (16, 6, 6, 16, 16, 3, 2), (4, 4, 3, 48, 16, 1, 2), (2, 3, 3, 16, 64, 1, 1),
        ]:  # fmt: skip
            conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False).to(memory_format=torch.channels_last)
            x, dy = map_of(n, inputs, height * stride, width * stride), map_of(n, outputs, height, width)
            wanted = nn.grad.conv2d_weight(x.double(), conv.weight.shape, dy.double(), stride, side // 2)
            self.assertLess(distance(kernels.fast_weight_gradient(x, dy, conv), wanted), 1e-5)

    def test_layers_give_what_pytorch_gives_in_float(self):
        for inputs, outputs, stride, skipped, relu in [
            (3, 16, 1, False, True), (16, 48, 2, False, False), (48, 48, 1, True, True), (80, 112, 1, True, False),
        ]:  # fmt: skip
            conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False).to(memory_format=torch.channels_last)
            norm, reference = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
            with torch.no_grad():
                conv.weight.copy_(conv.weight.bfloat16().float())
                for own, other in zip(norm.parameters(), reference.parameters(), strict=True):
                    own.uniform_(0.5, 2)
                    other.copy_(own)
            x = map_of(8, inputs, 10, 10).requires_grad_()
            dy = map_of(8, outputs, 10 // stride, 10 // stride)
            skip = map_of(*dy.shape).requires_grad_() if skipped else None
            leaves = [leaf for leaf in (x, skip) if leaf is not None]
            with torch.autocast("cpu", torch.bfloat16):
                given = kernels.conv_norm(x, conv, norm, skip, relu)
            z = reference(F.conv2d(x.float(), conv.weight, None, stride, 1)) + (0 if skip is None else skip.float())
            wanted = F.relu(z) if relu else z
            self.assertLess(distance(given, wanted), 0.01)
            got = torch.autograd.grad(given, [*leaves, conv.weight, *norm.parameters()], dy)
            right = torch.autograd.grad(wanted, [*leaves, conv.weight, *reference.parameters()], dy.float())
            for one, other in zip(got, right, strict=True):
                self.assertLess(distance(one, other), 0.05)
            for name in ("running_mean", "running_var"):
                torch.testing.assert_close(getattr(norm, name), getattr(reference, name), rtol=0.01, atol=0.001)
            self.assertEqual(norm.num_batches_tracked, 1)

    def test_a_grid_and_its_gradient_are_pytorchs(self):
        for side in (4, 5, 2):
            x = map_of(3, 32, side, side).requires_grad_()
            wanted = grid(x.float())
            weights = torch.randn_like(wanted)
            (right,) = torch.autograd.grad((wanted * weights).sum(), x)
            with torch.autocast("cpu", torch.bfloat16):
                given = grid(x)
            (got,) = torch.autograd.grad((given * weights).sum(), x)
            torch.testing.assert_close(given, wanted)
            self.assertLess(distance(got, right), 0.01)

    def test_maps_in_float_are_converted(self):
        conv, norm = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        x, skip = map_of(4, 16, 6, 6), map_of(4, 16, 6, 6)
        with torch.autocast("cpu", torch.bfloat16):
            given, plain = kernels.conv_norm(x, conv, norm, skip.float()), kernels.conv_norm(x, conv, norm, skip)
            self.assertTrue(torch.equal(given, plain))
            self.assertTrue(torch.equal(grid(x.float()), grid(x)))

    def test_a_network_learns_as_without_them(self):
        def losses() -> list[float]:
            torch.manual_seed(1)
            network = ExitResNet(3, 10, (2, 2), (16, 32)).to(memory_format=torch.channels_last).train()
            optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
            x, labels = torch.randn(32, 3, 12, 12), torch.randint(0, 10, (32,))
            seen = []
            for _ in range(12):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = exit_loss(network.answers(x), labels)
                loss.backward()
                optimizer.step()
                seen.append(loss.item())
            return seen

        fast = losses()
        with mock.patch.object(kernels, "library", lambda: None):
            plain = losses()
        self.assertLess(plain[-1], 0.75 * plain[0])
        torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.02)


if __name__ == "__main__":
    unittest.main()
