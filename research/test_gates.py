#!/usr/bin/env python3
"""Tests of networks with gates: python3 -m unittest discover research"""

import gzip
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from data import read_idx  # noqa: E402
from gating import (  # noqa: E402
    EARLY,
    anytime_loss,
    distilled,
    hardest,
    examples_of,
    nested_depth,
    observe,
    smoothed_cross_entropy,
    sureness,
    teach,
)
from network import Gate, ResNet  # noqa: E402
from plan import SMOKE  # noqa: E402


def small_network(gated: bool) -> ResNet:
    torch.manual_seed(3)
    return ResNet(1, 10, (2, 2), (4, 8), gated)


class NetworkTest(unittest.TestCase):
    def test_gates_decide_like_flags(self):
        network = small_network(gated=True).eval()
        images = torch.rand(32, 1, 28, 28)
        gated, scores = network.run(images)
        for index in range(len(images)):
            running = {gate for gate in range(len(scores)) if scores[gate][index] > 0}
            kept = [block.gate is None for block in network.blocks]
            for gate in running:
                kept[network.identity_blocks[gate]] = True
            alone, _ = network.run(images[index : index + 1], kept)
            torch.testing.assert_close(alone[0], gated[index], rtol=1e-4, atol=1e-4)

    def test_folding_keeps_the_score(self):
        torch.manual_seed(5)
        gate = Gate(8)
        for _ in range(20):
            gate(torch.rand(16, 8, 4, 4) * torch.arange(1, 9).view(1, 8, 1, 1))
        gate.eval()
        x = torch.rand(16, 8, 4, 4)
        before = gate(x)
        gate.fold()
        torch.testing.assert_close(gate(x), before, rtol=1e-4, atol=1e-5)

    def test_multiply_adds(self):
        total, blocks = small_network(gated=False).costs(28)
        self.assertEqual(blocks[0], 2 * 9 * 4 * 4 * 28 * 28)
        self.assertEqual(blocks[2], (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8) * 14 * 14)
        self.assertEqual(total, 9 * 4 * 28 * 28 + sum(blocks) + 80)


class GatingTest(unittest.TestCase):
    def test_the_hardest_are_those_a_network_is_least_sure_of(self):
        sure = sureness(torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 4.0], [2.0, 0.0], [0.5, 0.0]]))
        self.assertEqual(hardest(sure, 0.4).tolist(), [0, 1, 0, 0, 1])
        self.assertEqual(hardest(sure, 0.0).sum().item(), 0)
        self.assertEqual(hardest(sure, 1.0).sum().item(), 5)

    def test_a_gate_learns_to_open_where_it_should(self):
        torch.manual_seed(6)
        gate, inputs = Gate(8), torch.randn(512, 8)
        examples = inputs, (inputs[:, 2] > 0.5).float()
        first = teach(gate, examples, 1, torch.Generator().manual_seed(7))
        last = teach(gate, examples, 400, torch.Generator().manual_seed(7))
        self.assertLess(last, first / 4)
        opened = gate.score(inputs)[:, 0] > 0
        self.assertGreater((opened == (examples[1] > 0)).float().mean().item(), 0.97)

    def test_lessons_hold_what_a_gate_sees_when_those_before_it_are_closed(self):
        pooled = [torch.full((4, 2), float(gate)) for gate in range(4)]
        sure = [torch.tensor(row) for row in ([0.2, 0.9, 0.8, 0.4], [0.9, 0.9, 0.1, 0.9], [0.6, 0.7, 0.8, 0.9])]
        first, second, third, fourth = examples_of(pooled, sure, 0.7, [0.75, 0.5])
        self.assertEqual(first[1].tolist(), [1, 1, 1, 0])
        self.assertEqual(second[1].tolist(), [1, 1, 0, 0])
        self.assertTrue(torch.equal(third[0], pooled[2]))
        self.assertEqual(third[1].tolist(), [1, 0, 0, 1])
        self.assertTrue(torch.equal(fourth[0], torch.cat(pooled[2:])))
        self.assertEqual(fourth[1].tolist(), [1, 0, 0, 1, 0, 0, 1, 0])

    def test_observed_are_what_gates_pool_and_how_sure_the_answer_is_at_each_depth(self):
        torch.manual_seed(12)
        network = ResNet(1, 10, (2, 3), (4, 8), gated=True)
        images = torch.rand(6, 1, 28, 28)
        pooled, sure = observe(network, images.split(4))
        self.assertEqual([tuple(inputs.shape) for inputs in pooled], [(6, 4), (6, 4), (6, 8), (6, 8)])
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network.anytime(images, [True] * 5)
        for answer, observed in zip(outputs, sure, strict=True):
            torch.testing.assert_close(observed, sureness(answer))
        torch.testing.assert_close(sureness(network.head(pooled[2])), sure[0], rtol=0.01, atol=0.01)

    def test_nested_depth_leaves_out_the_last_identity_blocks_of_a_stage(self):
        network = ResNet(1, 10, (2, 4), (4, 8))
        generator = torch.Generator().manual_seed(6)
        draws = {tuple(nested_depth(network, 0.5, generator)) for _ in range(400)}
        first = {draw[:2] for draw in draws}
        second = {draw[2:] for draw in draws}
        self.assertEqual(first, {(False, False), (True, False), (True, True)})
        self.assertEqual(second, {(True,) * (4 - left_out) + (False,) * left_out for left_out in range(4)})
        self.assertEqual(nested_depth(network, 0.0, generator), [True] * 6)

    def test_anytime_answers_are_those_of_the_network_without_its_last_blocks(self):
        torch.manual_seed(10)
        network = ResNet(1, 10, (2, 3), (4, 8)).eval()
        images, kept = torch.rand(4, 1, 28, 28), [True, False, True, True, True]
        outputs = network.anytime(images, kept)
        self.assertEqual(len(outputs), 3)
        for left_out, output in zip((2, 1, 0), outputs, strict=True):
            alone, _ = network.run(images, kept[: 5 - left_out] + [False] * left_out)
            torch.testing.assert_close(output, alone)

    def test_early_answers_learn_from_the_deepest_and_it_not_from_them(self):
        torch.manual_seed(11)
        labels, outputs = torch.randint(0, 10, (8,)), [torch.randn(8, 10, requires_grad=True) for _ in range(3)]
        loss = anytime_loss(outputs, labels)
        early = [distilled(output, labels, outputs[2]) for output in outputs[:2]]
        deepest = smoothed_cross_entropy(outputs[2], labels)
        torch.testing.assert_close(loss, deepest + EARLY * (early[0] + early[1]) / 2)
        alone = torch.autograd.grad(deepest, outputs[2])[0]
        torch.testing.assert_close(torch.autograd.grad(loss, outputs[2])[0], alone)
        torch.testing.assert_close(anytime_loss(outputs[:1], labels), smoothed_cross_entropy(outputs[0], labels))


class DataTest(unittest.TestCase):
    def test_idx(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "x.gz"
            file.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])))
            self.assertEqual(read_idx(file).tolist(), [[1, 2, 3], [4, 5, 6]])
            file.write_bytes(gzip.compress(b"\0\0\x0d\1\0\0\0\0"))
            with self.assertRaisesRegex(ValueError, "unsigned bytes"):
                read_idx(file)

    def test_a_recipe_has_a_share_for_every_gate_before_the_last_stage(self):
        with self.assertRaisesRegex(ValueError, "2 shares for the 3 identity blocks before"):
            replace(SMOKE["mnist"], twin=((2, 2, 2), (8, 16, 32)))


if __name__ == "__main__":
    unittest.main()
