#!/usr/bin/env python3
"""Tests of the recipe: python3 -m unittest discover research"""

import gzip
import sys
import tempfile
import unittest
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from data import DATASETS, Split, augment, read_idx  # noqa: E402
from evaluate import kept_flags, paired_interval  # noqa: E402
from gating import (  # noqa: E402
    EARLY,
    anytime_loss,
    distilled,
    hardest,
    lessons,
    nested_depth,
    observe,
    sureness,
    teach,
)
from network import Gate, ResNet  # noqa: E402
from recipes import SMOKE  # noqa: E402
from stages import Pipeline  # noqa: E402
from trainer import Stage, predict, sgd, smoothed_cross_entropy  # noqa: E402

MNIST = DATASETS["mnist"]


def small_network(gated: bool) -> ResNet:
    torch.manual_seed(3)
    return ResNet(1, 10, (2, 2), (4, 8), gated)


def random_split(count: int) -> Split:
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(0, 10, (count,), generator=generator), [str(i) for i in range(count)])


class NetworkTest(unittest.TestCase):
    def test_gates_decide_like_flags(self):
        network = small_network(gated=True).eval()
        images = torch.rand(32, 1, 28, 28)
        gated, scores = network.run(images)
        for index in range(len(images)):
            running = {gate for gate in range(len(scores)) if scores[gate][index] > 0}
            alone, _ = network.run(images[index : index + 1], kept_flags(network, running))
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
        lesson = inputs, (inputs[:, 2] > 0.5).float()
        first = teach(gate, lesson, 1, torch.Generator().manual_seed(7))
        last = teach(gate, lesson, 400, torch.Generator().manual_seed(7))
        self.assertLess(last, first / 4)
        opened = gate.score(inputs)[:, 0] > 0
        self.assertGreater((opened == (lesson[1] > 0)).float().mean().item(), 0.97)

    def test_lessons_hold_what_a_gate_sees_when_those_before_it_are_closed(self):
        pooled = [torch.full((4, 2), float(gate)) for gate in range(4)]
        sure = [torch.tensor(row) for row in ([0.2, 0.9, 0.8, 0.4], [0.9, 0.9, 0.1, 0.9], [0.6, 0.7, 0.8, 0.9])]
        first, second, third, fourth = lessons(pooled, sure, 0.7, [0.75, 0.5])
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


class TrainerTest(unittest.TestCase):
    def stage(self, folder: str, epochs_done_before_stopping: int) -> ResNet:
        """Trains three epochs, starting again from the checkpoint after some of them."""
        for epochs in sorted({epochs_done_before_stopping, 3} - {0}):
            network = small_network(gated=False)

            def loss(images, labels, step, steps):
                return smoothed_cross_entropy(network(images), labels)  # noqa: B023

            stage = Stage(
                "plain", network, [(sgd(network.parameters()), lambda done: 0.05)], loss, epochs,
                Path(folder) / f"{epochs_done_before_stopping}.pt",
            )  # fmt: skip
            stage.run(MNIST, random_split(96), lambda: "", batch=32, seed=1)
        return network

    def test_a_resumed_run_ends_where_an_uninterrupted_one_does(self):
        with tempfile.TemporaryDirectory() as folder:
            whole, resumed = self.stage(folder, 0), self.stage(folder, 2)
        for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
            self.assertTrue(torch.equal(a, b), name)

    def test_prediction_does_not_depend_on_the_batch(self):
        network, split = small_network(gated=True), random_split(260)
        together, _ = predict(network, MNIST, split, bf16=False)
        alone, _ = predict(network, MNIST, split.take(torch.tensor([255])), bf16=False)
        torch.testing.assert_close(alone[0], together[255], rtol=1e-4, atol=1e-4)


class PipelineTest(unittest.TestCase):
    def test_nothing_is_exported_or_taught_before_the_network_is_trained(self):
        split = random_split(8)
        with tempfile.TemporaryDirectory() as folder:
            options = Namespace(checkpoints=Path(folder), smoke=True, seed=1)
            pipeline = Pipeline(MNIST, SMOKE, split, split, options)
            for names, missing in ((["gates"], "depth"), (["export"], "plain")):
                with self.assertRaisesRegex(RuntimeError, f"stage {missing} is not finished.*--stages"):
                    pipeline.run(names)


class DataTest(unittest.TestCase):
    def test_idx(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "x.gz"
            file.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])))
            self.assertEqual(read_idx(file).tolist(), [[1, 2, 3], [4, 5, 6]])
            file.write_bytes(gzip.compress(b"\0\0\x0d\1\0\0\0\0"))
            with self.assertRaisesRegex(ValueError, "unsigned bytes"):
                read_idx(file)

    def test_augmentation_shifts_and_mirrors_whole_images(self):
        images = torch.arange(28).repeat(64, 1, 28, 1).to(torch.uint8)
        changed = augment(DATASETS["fashion-mnist"], images, torch.Generator().manual_seed(7))
        steps = changed[:, 0, 0, 4:24].int().diff(dim=1)
        self.assertTrue(((steps == 1).all(1) | (steps == -1).all(1)).all())
        self.assertGreater(len(steps[:, 0].unique()), 1)
        shifted = augment(MNIST, images, torch.Generator().manual_seed(7))[:, 0, 0, 4:24].int().diff(dim=1)
        self.assertTrue((shifted == 1).all())

    def test_crops_are_parts_of_the_padded_image(self):
        images = torch.arange(28).repeat(64, 1, 28, 1).to(torch.uint8)
        crops = augment(MNIST, images, torch.Generator().manual_seed(8))
        self.assertEqual(crops.shape, images.shape)
        middle = crops[:, 0, 0, 2:26].int()
        self.assertTrue((middle.diff(dim=1) == 1).all())
        self.assertEqual(sorted(set((middle[:, 0] - 2).tolist())), list(range(-2, 3)))

    def test_a_recipe_has_a_share_for_every_gate_before_the_last_stage(self):
        with self.assertRaisesRegex(ValueError, "1 shares for the 3 identity blocks before"):
            replace(SMOKE, depths=(2, 2, 2), run=(0.5,))

    def test_paired_interval(self):
        low, high = paired_interval(torch.tensor([1, 1, 1, 0] * 100), torch.tensor([1, 1, 0, 0] * 100))
        self.assertAlmostEqual((low + high) / 2, 0.25, places=3)
        self.assertAlmostEqual(high - low, 2 * 1.96 * (0.25 * 0.75 / 400) ** 0.5, places=2)


if __name__ == "__main__":
    unittest.main()
