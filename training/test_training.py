#!/usr/bin/env python3
"""Tests of the recipe: python3 -m unittest discover training"""

import gzip
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from data import DATASETS, Split, augment, read_idx  # noqa: E402
from evaluate import kept_flags, paired_interval  # noqa: E402
from gating import (  # noqa: E402
    Budget,
    depths_up_to,
    easiest,
    freeze_all_but_gates,
    freeze_statistics,
    mixed_paths,
    random_depth,
    recalibrate,
)
from network import Gate, ResNet, straight_through  # noqa: E402
from recipes import SMOKE  # noqa: E402
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

    def test_straight_through_is_hard_forward_and_soft_backward(self):
        score = torch.tensor([[-1.0], [2.0]], requires_grad=True)
        decision = straight_through(score)
        self.assertEqual(decision.flatten().tolist(), [0.0, 1.0])
        decision.sum().backward()
        soft = torch.sigmoid(score.detach())
        torch.testing.assert_close(score.grad, soft * (1 - soft))

    def test_multiply_adds(self):
        total, blocks = small_network(gated=False).costs(28)
        self.assertEqual(blocks[0], 2 * 9 * 4 * 4 * 28 * 28)
        self.assertEqual(blocks[2], (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8) * 14 * 14)
        self.assertEqual(total, 9 * 4 * 28 * 28 + sum(blocks) + 80)


class GatingTest(unittest.TestCase):
    def test_price_rises_only_above_the_target(self):
        budget, everyone = Budget([1, 3], target=0.5), torch.ones(4, dtype=torch.bool)
        budget([torch.full((4, 1), -1.0), torch.full((4, 1), 1.0)], everyone)
        self.assertAlmostEqual(budget.multiplier.item(), 0.05 * 0.25, places=6)
        for _ in range(9):
            budget([torch.full((4, 1), 1.0), torch.full((4, 1), -1.0)], everyone)
        self.assertEqual(budget.multiplier.item(), 0.0)

    def test_only_paying_images_raise_the_price(self):
        score = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], requires_grad=True)
        budget = Budget([1], target=0.2)
        budget([score], torch.tensor([False, False, True, True]))
        self.assertEqual(budget.multiplier.item(), 0.0)
        budget([score], torch.tensor([True, False, True, False]))
        self.assertAlmostEqual(budget.multiplier.item(), 0.05 * 0.3, places=6)

    def test_the_easiest_images_are_those_the_teacher_is_surest_of(self):
        teacher = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
        flags = easiest(teacher, torch.tensor([0, 0, 1, 0, 1]), 0.4)
        self.assertEqual(flags.tolist(), [True, False, False, True, False])

    def test_random_depth_keeps_all_but_identity_blocks(self):
        network = small_network(gated=False)
        generator = torch.Generator().manual_seed(6)
        draws = [random_depth(network, 0.9, generator) for _ in range(200)]
        kept = torch.tensor(draws).float().mean(0)
        for index, block in enumerate(network.blocks):
            self.assertTrue(0.3 < kept[index] < 0.8 if block.is_identity else kept[index] == 1)

    def test_only_gates_learn_when_frozen(self):
        network = small_network(gated=True).train()
        freeze_all_but_gates(network, True)
        logits, _ = network.run(torch.rand(8, 1, 28, 28))
        logits.sum().backward()
        for name, parameter in network.named_parameters():
            self.assertEqual(parameter.grad is not None, ".gate." in name, name)

    def test_recalibration_measures_statistics_and_keeps_weights(self):
        network = small_network(gated=False)
        weights = network.stem.weight.clone()
        network.stem_bn.running_mean.fill_(100.0)
        recalibrate(network, MNIST, random_split(500), batches=2, seed=1, paths=depths_up_to(network, 0.5))
        self.assertLess(network.stem_bn.running_mean.abs().max().item(), 10)
        self.assertTrue(torch.equal(network.stem.weight, weights))
        self.assertEqual(network.stem_bn.momentum, 0.1)

    def test_mixed_paths_ask_the_gates_every_other_time_and_run_everything_every_fourth(self):
        network = small_network(gated=True)
        paths = [mixed_paths(network)(step, torch.Generator().manual_seed(9)) for step in range(8)]
        self.assertTrue(all(kept is None for kept in paths[::2]))
        self.assertEqual(paths[3::4], [[True] * len(network.blocks)] * 2)
        self.assertTrue(all(len(kept) == len(network.blocks) for kept in paths[1::4]))

    def test_frozen_statistics_stay_while_weights_learn(self):
        network = small_network(gated=True).train()
        freeze_statistics(network)
        before = {name: value.clone() for name, value in network.named_buffers()}
        network.run(torch.rand(8, 1, 28, 28))[0].sum().backward()
        for name, value in network.named_buffers():
            self.assertTrue(torch.equal(value, before[name]), name)
        self.assertIsNotNone(network.stem_bn.weight.grad)


class TrainerTest(unittest.TestCase):
    def stage(self, folder: str, epochs_done_before_stopping: int) -> ResNet:
        """Trains three epochs, starting anew from the checkpoint after some of them."""
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

    def test_crops_are_parts_of_the_image(self):
        images = torch.arange(28).repeat(64, 1, 28, 1).to(torch.uint8)
        crops = augment(MNIST, images, torch.Generator().manual_seed(8), crop=20)
        self.assertEqual(tuple(crops.shape), (64, 1, 20, 20))
        middle = crops[:, 0, 0, 2:18].int()
        self.assertTrue((middle.diff(dim=1) == 1).all())
        self.assertEqual(sorted(set((middle[:, 0] - 2).tolist())), list(range(-2, 11)))

    def test_early_epochs_see_crops_and_the_last_ones_whole_images(self):
        crop = replace(SMOKE, early_crop=20).crop(8)
        self.assertEqual([crop(epoch) for epoch in range(8)], [20] * 6 + [None] * 2)
        self.assertIsNone(SMOKE.crop(8)(0))

    def test_paired_interval(self):
        low, high = paired_interval(torch.tensor([1, 1, 1, 0] * 100), torch.tensor([1, 1, 0, 0] * 100))
        self.assertAlmostEqual((low + high) / 2, 0.25, places=3)
        self.assertAlmostEqual(high - low, 2 * 1.96 * (0.25 * 0.75 / 400) ** 0.5, places=2)


if __name__ == "__main__":
    unittest.main()
