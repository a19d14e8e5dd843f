#!/usr/bin/env python3
"""Tests of the protocol: python3 -m unittest discover research"""

import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import images  # noqa: E402
import text  # noqa: E402
from data import Split, read_idx_pair  # noqa: E402

from early_exits import Exit, ExitResNet, exit_loss, grid, one_threshold  # noqa: E402
from encoder import Encoder, ExitEncoder  # noqa: E402
from images import DATASETS, augmented, cutout, held_out, resized_crops, write_validation  # noqa: E402
from learning import Training  # noqa: E402
from network import ResNet  # noqa: E402
from optimizers import Muon, orthogonal, sgd  # noqa: E402
from plan import PLAN, SMOKE, Recipe, Run, runs  # noqa: E402
from protocol import build, locked, loss_of, pretrain, status, train, twin_of  # noqa: E402


torch.set_num_threads(1)


def small_network() -> ExitResNet:
    torch.manual_seed(1)
    return ExitResNet(1, 10, (2, 2), (4, 8))


class ExitTest(unittest.TestCase):
    def test_where_no_exit_is_taken_the_answer_is_the_plain_networks(self):
        network, plain, x = small_network().eval(), ResNet(1, 10, (2, 2), (4, 8)).eval(), torch.rand(4, 1, 12, 12)
        plain.load_state_dict({key: value for key, value in network.state_dict().items() if key in plain.state_dict()})
        network.thresholds.fill_(2.0)
        torch.testing.assert_close(network(x), plain(x))
        self.assertEqual(network.points, [1, 2])

    def test_an_image_leaves_at_the_first_sure_exit(self):
        network, x = small_network().eval(), torch.rand(64, 1, 12, 12)
        answers = network.answers(x)
        sure = [answer.softmax(1).amax(1) for answer in answers]
        network.thresholds.copy_(torch.stack([sure[0].median(), sure[1].median()]))
        leaves = [0 if sure[0][i] >= network.thresholds[0] else 1 if sure[1][i] >= network.thresholds[1] else 2 for i in range(64)]
        self.assertEqual(set(leaves), {0, 1, 2})
        torch.testing.assert_close(network(x), torch.stack([answers[leave][i] for i, leave in enumerate(leaves)]))

    def test_the_trunk_receives_each_exits_share_of_its_gradient_and_the_exit_in_front_nothing(self):
        network, x = small_network().train(), torch.rand(8, 1, 12, 12)

        def gradients(gradient: float) -> tuple[torch.Tensor, ...]:
            answers = network.answers(x, gradient=gradient)
            weights = [network.stem.weight, network.exits[1].fc1.weight, network.exits[0].fc1.weight]
            return torch.autograd.grad(answers[1].square().sum(), weights, allow_unused=True)

        whole, half, none = gradients(1.0), gradients(0.5), gradients(0.0)
        torch.testing.assert_close(half[0], whole[0] / 2)
        self.assertEqual(none[0].abs().sum().item(), 0)
        torch.testing.assert_close(none[1], whole[1])
        self.assertIsNone(whole[2])
        self.assertAlmostEqual(sum(network.trunk_shares()), 1.0)

    def test_the_whole_network_learns_from_labels_and_not_from_its_exits(self):
        torch.manual_seed(2)
        labels, logits = torch.randint(0, 10, (8,)), [torch.randn(8, 10, requires_grad=True) for _ in range(4)]
        plain = torch.autograd.grad(exit_loss(logits, labels), logits)
        (alone,) = torch.autograd.grad(F.cross_entropy(logits[-1], labels), logits[-1])
        torch.testing.assert_close(plain[-1], alone)
        with self.subTest("only its own labels are smoothed"):
            smooth = torch.autograd.grad(exit_loss(logits, labels, smoothing=0.1), logits)
            (alone,) = torch.autograd.grad(F.cross_entropy(logits[-1], labels, label_smoothing=0.1), logits[-1])
            torch.testing.assert_close(smooth[-1], alone)
            torch.testing.assert_close(smooth[:-1], plain[:-1])

    def test_folding_keeps_the_logits(self):
        torch.manual_seed(3)
        exit_ = Exit(26, 10)
        for _ in range(20):
            exit_(torch.rand(16, 26) * torch.arange(1, 27))
        exit_.eval()
        with torch.no_grad():
            exit_.hidden_norm.weight.uniform_(0.5, 2)
            exit_.hidden_norm.bias.normal_()
        seen = torch.rand(16, 26)
        before, cost = exit_(seen)[1], exit_.multiply_adds
        exit_.fold()
        torch.testing.assert_close(exit_(seen)[1], before, rtol=1e-4, atol=1e-5)
        self.assertEqual(exit_.multiply_adds, cost)
        with self.subTest("rounding leaves weights that bytes hold, and the first layer's outputs for the mean"):
            mean, exact = exit_.mean, exit_(seen)[1]
            hidden = exit_.fc1(mean)
            exit_.round()
            for layer in (exit_.fc1, exit_.fc2):
                rows = layer.weight / torch.exp2((layer.weight.abs().amax(0) / 127).log2().ceil())
                self.assertTrue(torch.equal(rows, rows.round()))
                self.assertLessEqual(rows.abs().max().item(), 127)
            torch.testing.assert_close(exit_.fc1(mean), hidden, rtol=1e-4, atol=1e-5)
            change = exit_(seen)[1] - exact
            self.assertGreater(change.abs().max().item(), 0)
            self.assertLess(change.std().item(), 0.02 * exact.std().item())

    def test_a_grid_holds_quarters_that_overlap_where_a_side_is_odd_and_the_maxima(self):
        x = torch.arange(9.0).view(1, 1, 3, 3)
        self.assertEqual(grid(x).tolist(), [[2, 3, 5, 6, 8]])

    def test_costs_grow_from_exit_to_exit(self):
        network = small_network()
        first, second, whole = network.exit_costs(28)
        total, blocks = network.costs(28)
        heads = [exit_.multiply_adds for exit_ in network.exits]
        self.assertEqual(whole, total + sum(heads))
        self.assertEqual(second - first, blocks[2] + heads[1])


    def test_with_one_threshold_each_image_costs_what_it_takes_to_the_first_sure_exit(self):
        odds = torch.tensor([[0.8, 0.4], [0.94, 0.6], [0.5, 0.7]]).log()
        others = torch.tensor([[0.2, 0.6], [0.06, 0.4], [0.5, 0.3]]).log()
        logits = torch.stack([odds, others], 2)
        curve = {point["threshold"]: point for point in one_threshold(logits, torch.tensor([0, 0]), [0.2, 0.5, 1.0])}
        self.assertEqual(curve[0.5], {"threshold": 0.5, "cost": 0.2, "accuracy": 0.5})
        self.assertEqual(curve[0.9], {"threshold": 0.9, "cost": 0.75, "accuracy": 1.0})
        self.assertEqual(curve[2.0]["cost"], 1.0)


class WhiteningTest(unittest.TestCase):
    def test_a_whitened_stem_has_uncorrelated_outputs_of_variance_1_with_both_signs_and_stays(self):
        torch.manual_seed(6)
        images = F.avg_pool2d(torch.randn(64, 3, 18, 18), 3, 1) * 3 + torch.randn(64, 3, 16, 16)
        network = ResNet(3, 10, (1, 1), (16, 16)).to(memory_format=torch.channels_last)
        network.whiten(images)
        found = F.conv2d(images, network.stem.weight).transpose(0, 1).flatten(1)
        torch.testing.assert_close(found[8:], -found[:8])
        torch.testing.assert_close(found[:8] @ found[:8].T / found.shape[1], torch.eye(8), rtol=0, atol=0.02)
        self.assertFalse(network.stem.weight.requires_grad)


class MuonTest(unittest.TestCase):
    def test_steps_are_orthogonal(self):
        torch.manual_seed(4)
        for shape in ((8, 40), (40, 8)):
            steep = torch.randn(shape) * torch.logspace(-1, 1, shape[1])
            values = torch.linalg.svdvals(orthogonal(steep))
            self.assertGreater(values.min().item(), 0.6)
            self.assertLess(values.max().item(), 1.3)

    def test_kernels_take_orthogonal_steps_and_other_parameters_those_of_sgd(self):
        network, twin = small_network(), small_network()
        kernel = network.blocks[0].conv1.weight
        for optimizer, trained in ((Muon(network.parameters()), network), (sgd(twin.parameters()), twin)):
            for seed in range(3):
                torch.manual_seed(seed)
                for parameter in trained.parameters():
                    parameter.grad = torch.randn_like(parameter)
                for group in optimizer.param_groups:
                    group["lr"] = 0.1
                before = kernel.detach() * len(kernel) ** 0.5 / kernel.detach().norm()
                optimizer.step()
                if trained is network:
                    change = torch.linalg.svdvals((kernel - before).flatten(1).detach()) / 0.1
                    self.assertGreater(change.min().item(), 0.6)
                    self.assertLess(change.max().item(), 1.3)
        torch.testing.assert_close(network.head.weight, twin.head.weight)
        torch.testing.assert_close(network.stem_bn.bias, twin.stem_bn.bias)
        self.assertFalse(torch.equal(network.stem.weight, twin.stem.weight))


class ImagesTest(unittest.TestCase):
    def test_the_same_share_of_each_class_is_held_out_each_time(self):
        labels = torch.arange(500) % 5
        chosen = held_out(labels)
        self.assertEqual(labels[chosen].bincount().tolist(), [10] * 5)
        self.assertTrue(torch.equal(chosen, held_out(labels)))

    def test_the_validation_part_is_written_as_it_was_read(self):
        images = torch.randint(0, 256, (6, 1, 28, 28), dtype=torch.uint8)
        split = Split(images, torch.arange(6), [str(i) for i in range(6)])
        with tempfile.TemporaryDirectory() as folder:
            write_validation(DATASETS["mnist"], Path(folder), split, Path(folder) / "validation")
            again = read_idx_pair(Path(folder) / "validation", "validation")
        self.assertTrue(torch.equal(again.images, split.images))
        self.assertTrue(torch.equal(again.labels, split.labels))

    def test_resized_crops_show_parts_of_the_image(self):
        images = torch.arange(64).repeat(40, 1, 64, 1).to(torch.uint8)
        crops = resized_crops(images, 32, False, torch.Generator().manual_seed(4))
        self.assertEqual(tuple(crops.shape), (40, 1, 32, 32))
        self.assertTrue((crops[:, 0, 0].diff(dim=1) > 0).all())
        spans = crops[:, 0, 0, -1] - crops[:, 0, 0, 0]
        self.assertGreater(spans.min().item(), 25)
        self.assertGreater(len(spans.round().unique()), 1)

    def test_strong_changes_are_further_ones_that_the_seed_decides(self):
        images = torch.randint(0, 256, (8, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))

        def made(seed: int, strong: bool) -> torch.Tensor:
            torch.manual_seed(seed)
            return augmented(DATASETS["imagenette"], images, 64, 0.0, torch.Generator().manual_seed(1), strong)

        plain, strong = made(1, False), made(1, True)
        self.assertEqual(strong.shape, (8, 3, 64, 64))
        self.assertTrue(torch.equal(strong, made(1, True)))
        self.assertFalse(torch.equal(strong, made(2, True)))
        self.assertTrue(torch.equal(plain, made(2, False)))
        # Each was changed by itself, most of them visibly.
        changed = (strong - plain).abs().amax((1, 2, 3)) > 0.1
        self.assertGreaterEqual(changed.sum().item(), 4)

    def test_images_are_mirrored_as_told_where_that_keeps_labels(self):
        for name, channels, kept in (("cifar10", 3, False), ("mnist", 1, True)):
            images = torch.randint(0, 256, (6, channels, 28, 28), dtype=torch.uint8)
            seen, mirrored = (
                augmented(DATASETS[name], images, 28, 0.0, torch.Generator().manual_seed(7), mirrored=torch.full((6,), which))
                for which in (False, True)
            )
            self.assertTrue(torch.equal(mirrored, seen if kept else seen.flip(3)))

    def test_each_image_is_mirrored_in_every_second_epoch(self):
        def record(dataset, whole, *options, mirrored):
            seen.extend(zip(whole[:, 0, 0, :2].flatten(1).tolist(), mirrored.tolist(), strict=True))
            return augmented(dataset, whole, *options, mirrored=mirrored)

        count, seen = 2000, []
        pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(8))
        numbers = torch.arange(count)
        pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = numbers // 256, numbers % 256
        split = Split(pixels, numbers % 10, [f"{index}.png" for index in range(count)])
        recipe = Recipe(((1,), (8,)), {}, epochs=3, early_side=8, early=1.0, batch=500, seeds=(1,), fast=True)
        with tempfile.TemporaryDirectory() as name, patch.object(images, "augmented", record):
            folder = Path(name) / "cifar10" / "twin-seed1"
            folder.mkdir(parents=True)
            train(Run("cifar10", "twin", 1, recipe), folder, split, split.take(numbers[:20]))
        first, second, third = (sorted(seen[epoch * count : (epoch + 1) * count]) for epoch in range(3))
        self.assertEqual(len(seen), 3 * count)
        self.assertTrue(all(one[0] == two[0] and one[1] != two[1] for one, two in zip(first, second, strict=True)))
        self.assertEqual(first, third)
        self.assertGreater(sum(flag for _, flag in first), 0.4 * count)
        self.assertLess(sum(flag for _, flag in first), 0.6 * count)

    def test_cutout_blanks_one_square(self):
        blanked = cutout(torch.ones(50, 3, 12, 12), 4, torch.Generator().manual_seed(5)) == 0
        self.assertTrue((blanked[:, 0] == blanked[:, 2]).all())
        self.assertEqual(blanked[:, 0].sum((1, 2)).max().item(), 16)
        self.assertGreater(blanked[:, 0].sum((1, 2)).min().item(), 0)


class TextTest(unittest.TestCase):
    LINES = ["a fine , fine film", "a dull film", "the finest film", "it 's _not_ a film"]

    def test_words_that_the_vocabulary_lacks_come_as_known_beginnings_and_endings(self):
        dataset = text.TextSet("few", "Few", ["no", "yes"], words=4, endings=1, size=8)
        listed = text.vocabulary_of(dataset, self.LINES)
        self.assertEqual(listed, ["[PAD]", "[UNK]", "[CLS]", "film", "a", "_", "fine", "##st"])
        vocabulary = {token: index for index, token in enumerate(listed)}
        self.assertEqual(text.encode(["A finest FILM", "dull"], vocabulary, 8).tolist(), [[2, 4, 6, 7, 3, 0, 0, 0], [2, 1] + [0] * 6])

    def test_the_vocabulary_is_that_of_the_training_part(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows = [f"common word{index}\t{index % 2}" for index in range(40)]
            (folder / "train.tsv").write_text("\n".join(rows) + "\n")
            train, validation = text.load(text.DATASETS["sst2"], folder, folder)
            tokens = json.loads((folder / "sst2-tokenizer.json").read_text())["model"]["vocab"]
        self.assertEqual((len(train), len(validation)), (36, 4))
        self.assertTrue(all(one.split()[1] in tokens for one in train.names))
        self.assertFalse(any(one.split()[1] in tokens for one in validation.names))
        self.assertEqual(validation.images[:, 2].tolist(), [text.UNKNOWN] * 4)

    def test_parts_of_texts_begin_with_the_token_of_the_answer_and_miss_some_words(self):
        ids = torch.zeros(400, 64, dtype=torch.long)
        ids[:, 0], ids[:, 1:41] = text.START, torch.arange(10, 50)
        cut = text.augmented(text.DATASETS["sst2"], ids, 20, 0.25, torch.Generator().manual_seed(6))
        self.assertEqual(tuple(cut.shape), (400, 20))
        self.assertTrue((cut[:, 0] == text.START).all())
        words = cut[:, 1:]
        self.assertAlmostEqual((words == text.UNKNOWN).float().mean().item(), 0.25, delta=0.02)
        self.assertTrue(((words == text.UNKNOWN) | (words - words.roll(1, 1) == 1) | (words.roll(1, 1) == text.UNKNOWN))[:, 1:].all())
        self.assertEqual(set(range(10, 50)) - set(words.flatten().tolist()), set())

    def test_padding_changes_no_answer_and_exits_no_trunk(self):
        torch.manual_seed(7)
        network, plain = ExitEncoder(50, 2, (1, 2), (32, 32)).eval(), Encoder(50, 2, (1, 2), (32, 32)).eval()
        plain.load_state_dict({key: value for key, value in network.state_dict().items() if key in plain.state_dict()})
        ids = torch.randint(3, 50, (4, 9))
        padded = F.pad(ids, (0, 5))
        for alone, filled in zip(network.answers(ids), network.answers(padded), strict=True):
            torch.testing.assert_close(filled, alone)
        torch.testing.assert_close(network.answers(ids)[-1], plain(padded, (padded != 0).long()))
        self.assertEqual(network.points, [0, 1])

    def test_twin_and_gated_network_learn_the_same_from_blanked_words_and_no_label(self):
        few = text.TextSet("few", "Few", ["no", "yes"], words=12, endings=0, size=9)
        # Each word decides the next one.
        ids = 3 + (torch.arange(64)[:, None] + torch.arange(9)) % 12
        ids[:, 0], ids[::2, 6:] = text.START, text.PADDING
        recipe = Recipe(((1, 1), (32, 32)), {}, epochs=1, early_side=9, cutout=0.3, batch=16, peak_rate=0.005, pretraining=60)
        trained = {}
        with tempfile.TemporaryDirectory() as name, patch.dict(text.DATASETS, few=few), patch("learning.report"):
            for role in ("twin", "gated"):
                run, folder = Run("few", role, 1, recipe), Path(name) / role
                folder.mkdir()
                trained[role] = build(run)
                pretrain(trained[role], run, folder / "pretraining", Split(ids, torch.full((64,), -1), []))
                losses = [json.loads(line)["loss"] for line in (folder / "pretraining" / "log.jsonl").read_text().splitlines()]
                self.assertGreater(losses[0], 2)
                self.assertLess(losses[-1], 0.5)
                self.assertIn("60 epochs of 61, 240 steps", status(run, folder))
        twin, gated = (network.state_dict() for network in trained.values())
        for key, value in twin.items():
            torch.testing.assert_close(gated[key], value, rtol=0, atol=0)


class Killed(Exception):
    pass


class TrainingTest(unittest.TestCase):
    def train(self, folder: Path, killed_at: int | None = None) -> dict:
        """Six epochs of four steps, and two epochs that are averaged; where it is killed in a step, it begins
        again from the last checkpoint.
        """
        torch.manual_seed(6)
        pixels, labels = torch.rand(32, 1, 12, 12), torch.randint(0, 10, (32,))

        def attempt(killed: int | None) -> dict:
            network = small_network()

            def batch(picked, epoch, generator):
                if training.state["step"] == killed:
                    raise Killed
                return pixels[picked] + torch.rand(1, generator=generator), labels[picked]

            def loss(network, images, labels, done):
                return exit_loss(network.answers(images, gradient=done), labels)

            optimizer, rates = sgd(network.parameters()), []
            training = Training(network, optimizer, 32, 6, 8, 0.05, 7, folder, batch, loss, 2, 0.0)
            training.run(lambda epochs: rates.append(optimizer.param_groups[0]["lr"]) or {})
            if killed_at is None:
                self.assertEqual(sorted(rates[:6], reverse=True), rates[:6])
                self.assertEqual(rates[6:], [0.25 * 0.05] * 2)
            return network.state_dict()

        if killed_at is not None:
            with self.assertRaises(Killed):
                attempt(killed_at)
        return attempt(None)

    def test_a_training_killed_in_any_step_ends_as_one_that_was_not(self):
        with tempfile.TemporaryDirectory() as folder:
            folders = [Path(folder) / name for name in ("whole", "0", "4", "6", "12", "17", "24", "29")]
            for one in folders:
                one.mkdir()
            whole = self.train(folders[0])
            for one in folders[1:]:
                resumed = self.train(one, int(one.name))
                for name, value in whole.items():
                    self.assertTrue(torch.equal(value, resumed[name]), f"{one.name}: {name}")
                self.assertEqual(len((one / "log.jsonl").read_text().splitlines()), 8)

    def test_a_network_ends_with_the_mean_of_its_weights_and_batch_statistics_that_fit_it(self):
        network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
        inputs = torch.randn(12, 2, generator=torch.Generator().manual_seed(4))
        weights = []

        def remember(*_) -> dict:
            weights.append(network[0].weight.detach().clone())
            return {}

        def loss(network, inputs, labels, done):
            remember()
            return (network(inputs) - labels).square().mean()

        epochs = []

        def batch(picked, epoch, generator):
            epochs.append(epoch)
            return inputs[picked], picked[:, None].float()

        with tempfile.TemporaryDirectory() as folder:
            training = Training(network, sgd(network.parameters()), 12, 1, 6, 0.05, 1, Path(folder), batch, loss, averaged=3)
            training.run(lambda epochs: remember() if epochs == 4 else {})
        # The batches of the statistics, too, are those of an averaged epoch, whose images are whole.
        self.assertEqual(epochs, [0, 0, 1, 1, 2, 2, 3, 3, 1, 1])
        # The schedule has two steps, and the first half epoch after it has one: weights before each step, and the last ones.
        self.assertEqual(len(weights), 9)
        torch.testing.assert_close(network[0].weight.detach(), torch.stack(weights[4:]).mean(0))
        torch.testing.assert_close(network[1].running_mean, (inputs @ network[0].weight.detach().T).mean(0))

    def test_a_loss_that_is_not_finite_ends_the_training(self):
        with tempfile.TemporaryDirectory() as folder:
            batch = lambda picked, epoch, generator: (torch.full((len(picked), 1, 12, 12), torch.nan), picked % 10)  # noqa: E731
            loss = lambda network, images, labels, done: F.cross_entropy(network(images), labels)  # noqa: E731
            network = small_network()
            training = Training(network, sgd(network.parameters()), 32, 1, 8, 0.05, 1, Path(folder), batch, loss)
            with self.assertRaisesRegex(FloatingPointError, "not finite in step 0"):
                training.run(lambda epochs: {})


class DistillingTest(unittest.TestCase):
    def test_a_student_learns_the_answers_of_the_exported_twin_and_no_label(self):
        split = Split(torch.randint(0, 256, (200, 1, 28, 28), dtype=torch.uint8), torch.arange(200) % 10, [""] * 200)
        recipe = Recipe(((1, 1), (8, 8)), {"plain-1": ((1,), (8,))}, epochs=2, early_side=14, batch=50, seeds=(1,), taught=("plain-1",))
        twin, student = Run("mnist", "twin", 1, recipe), Run("mnist", "distilled-1", 1, recipe)
        with tempfile.TemporaryDirectory() as name:
            folders = [Path(name) / run.name for run in (twin, student)]
            with self.assertRaisesRegex(ValueError, "twin-seed1"):
                twin_of(student, folders[1])
            for folder in folders:
                folder.mkdir(parents=True)
            train(twin, folders[0], split, split)
            network = build(twin)
            network.load_state_dict(torch.load(folders[0] / "network.pt", weights_only=True))
            x = images.inputs(DATASETS["mnist"], split.images)
            teacher = twin_of(student, folders[1])
            torch.testing.assert_close(teacher(x), network.eval()(x), atol=1e-4, rtol=1e-3)
            same = loss_of(network, x, split.labels, 1.0, teacher=teacher)
            self.assertLess(same.item(), 1e-6)
            other = loss_of(build(student), x, split.labels, 1.0, teacher=teacher)
            self.assertGreater(other.item(), 0.01)
            torch.testing.assert_close(other, loss_of(build(student), x, 9 - split.labels, 1.0, teacher=teacher))
            train(student, folders[1], split, split)
            self.assertTrue((folders[1] / "model.onnx").exists())


class LockTest(unittest.TestCase):
    def test_a_network_that_is_being_trained_is_left_to_its_process(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with locked(folder, wait=False) as first, locked(folder, wait=False) as second:
                self.assertEqual((first, second), (True, False))
            with locked(folder, wait=False) as again:
                self.assertTrue(again)


class PlanTest(unittest.TestCase):
    def test_every_set_begins_with_one_seed_of_twin_gated_network_and_rival(self):
        planned = runs()
        self.assertEqual(len({run.name for run in planned}), len(planned))
        first = [(run.dataset, run.role) for run in planned[: 3 * len(PLAN)]]
        self.assertEqual(first, [(name, role) for name in PLAN for role in ("twin", "gated", next(iter(PLAN[name].family)))])
        self.assertEqual({run.seed for run in planned[: 3 * len(PLAN)]}, {1})
        self.assertEqual(sum(run.seed == 3 for run in planned), 23)

    def test_a_distilled_network_has_the_shape_and_the_seeds_of_a_plain_one_and_follows_its_teacher(self):
        planned = runs()
        taught = [run for run in planned if run.taught]
        self.assertEqual(len(taught), 18)
        for run in taught:
            plain = Run(run.dataset, run.role.replace("distilled-", "plain-"), run.seed, run.recipe)
            self.assertIn(plain, planned)
            self.assertEqual(run.shape, plain.shape)
            self.assertLess(planned.index(Run(run.dataset, "twin", run.seed, run.recipe)), planned.index(run))

    def test_images_are_whole_while_weights_are_averaged(self):
        recipe = SMOKE["mnist"]
        self.assertEqual([recipe.side(epoch, 28) for epoch in range(recipe.total)], [20, 28, 28])

    def test_all_networks_of_a_family_cost_less_than_the_twin(self):
        for name, recipe in PLAN.items():
            kind = text if name in text.DATASETS else images
            dataset = kind.DATASETS[name]
            twin, *family = (
                kind.network(dataset, recipe, shape, "twin").costs(dataset.size)[0]
                for shape in (recipe.twin, *recipe.family.values())
            )
            self.assertGreaterEqual(len(family), {"mnist": 1}.get(name, 4))
            self.assertLess(max(family), 0.85 * twin)


if __name__ == "__main__":
    unittest.main()
