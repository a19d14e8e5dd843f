#!/usr/bin/env python3
"""Tests of adapt.py: python3 -m unittest discover adapt"""

import io
import json
import sys
import tempfile
import unittest
import unittest.mock
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

import adapt  # noqa: E402
import engine  # noqa: E402
from common import decayed  # noqa: E402
from exits import ExitPoint, choose_points, find_classifier  # noqa: E402
from onnx_network import OnnxNetwork, Unsupported  # noqa: E402
from tail import TailPoint, find_tail  # noqa: E402
from teaching import Training, choose_thresholds, exits_loss  # noqa: E402
from unlabelled import altered, mixed  # noqa: E402

SIDE, CLASSES = 16, 4


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, early: bool = False):
        super().__init__()
        self.early = early
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs if early else outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x):
        if self.early:
            y = self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
            return self.shortcut(x) + y
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(self.shortcut(x) + y)


class Inverted(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 12, 1), nn.ReLU6(), nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.ReLU6(),
            nn.Conv2d(12, channels, 1),
        )  # fmt: skip

    def forward(self, x):
        return x + self.layers(x)


class Squeeze(nn.Module):
    """Squeeze-and-excitation and hard activations, as in MobileNetV3."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 3, 1), nn.ReLU(), nn.Conv2d(3, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x):
        y = nn.functional.hardswish(self.conv(x))
        return x + y * self.excite(y)


def network(*blocks: nn.Module, head: nn.Module | None = None) -> nn.Sequential:
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU())
    head = head or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    return nn.Sequential(stem, *blocks, head)


class Mobile(nn.Module):
    """What follows the last block of a MobileNetV2: a block without a shortcut, and a pointwise convolution."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1), nn.ReLU6(), nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.ReLU6())
        self.rest = nn.Sequential(
            nn.Conv2d(24, 10, 1), nn.BatchNorm2d(10), nn.Conv2d(10, 40, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(40, CLASSES),
        )  # fmt: skip

    def forward(self, x):
        return self.rest(self.expand(x))


NETWORKS = {
    "post-activation with projections": lambda: network(Residual(6, 6), Residual(6, 8, 2), Residual(8, 8)),
    "pre-activation": lambda: network(Residual(6, 8, 2, early=True), Residual(8, 8, early=True)),
    "inverted residuals": lambda: network(Inverted(6), nn.Conv2d(6, 8, 3, 2, 1), Inverted(8)),
    "mobile": lambda: network(Inverted(6), nn.Conv2d(6, 8, 3, 2, 1), Inverted(8), head=Mobile()),
    "squeeze and excitation": lambda: network(nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 8, 1), Squeeze(8)),
    "a convolution as its classifier": lambda: network(
        Residual(6, 8, 2), Residual(8, 8),
        head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, CLASSES, 1), nn.Flatten(), nn.Softmax(1)),
    ),
}  # fmt: skip


def exported(make, folder: Path) -> Path:
    """A network with statistics of its own, as PyTorch exports it without folding BatchNorm."""
    torch.manual_seed(3)
    module = make()
    for _ in range(5):
        module(torch.randn(16, 3, SIDE, SIDE))
    file = folder / "model.onnx"
    torch.onnx.export(
        module.eval(), torch.zeros(2, 3, SIDE, SIDE), str(file), dynamo=False, opset_version=17, input_names=["input"],
        output_names=["answer"], dynamic_axes={"input": {0: "N"}, "answer": {0: "N"}},
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
    )  # fmt: skip
    return file


def write_images(folder: Path, count: int) -> None:
    generator = np.random.default_rng(4)
    folder.mkdir()
    for i in range(count):
        coarse = generator.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{i}.png")


class SimpleExits(list):
    """Exits with nothing but their points and costs; the last one is a tail."""

    def __init__(self, done: list[float], work: list[int]):
        super().__init__(SimpleNamespace(point=ExitPoint("", "", (1, 1, 1), at), work=cost) for at, cost in zip(done, work, strict=True))
        self.tail = self[-1]


def quietly(*arguments) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        adapt.main([str(argument) for argument in arguments])


@contextmanager
def interruptions(*reports: int) -> Iterator[list[str]]:
    """Interrupts training behind these of its epochs, counted over all runs; gives what was trained in each epoch."""
    report, calls = Training.report, []

    def interrupt(training: Training, *arguments) -> None:
        report(training, *arguments)
        calls.append(training.name)
        if len(calls) in reports:
            raise KeyboardInterrupt

    with unittest.mock.patch.object(Training, "report", interrupt):
        yield calls


class InterpreterTest(unittest.TestCase):
    def test_it_computes_what_the_graph_says(self):
        images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
        for name, make in NETWORKS.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                file = exported(make, Path(folder))
                (expected,) = ReferenceEvaluator(str(file)).run(None, {"input": images.numpy()})
                with torch.no_grad():
                    answer = OnnxNetwork(onnx.load(str(file)))(images, ["answer"])["answer"]
                np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-4, atol=1e-4)

    def test_the_classifier_answers_from_the_features(self):
        images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(6))
        for name, make in NETWORKS.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                built = OnnxNetwork(onnx.load(str(exported(make, Path(folder)))))
                found = find_classifier(built)
                with torch.no_grad():
                    values = built(images, [found.features, found.logits])
                again = values[found.features].flatten(1) @ found.weight.t() + found.bias
                torch.testing.assert_close(again, values[found.logits].flatten(1), rtol=1e-4, atol=1e-5)
                self.assertEqual(found.softmax, name.startswith("a convolution"))

    def test_unknown_operators_are_named(self):
        graph = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (float[N, 3] y) { y = Sin(x) }')
        with self.assertRaisesRegex(Unsupported, "Sin"):
            OnnxNetwork(graph)


class AdaptTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        (cls.folder / "network").mkdir()
        (cls.folder / "mobile").mkdir()
        cls.file = exported(NETWORKS["post-activation with projections"], cls.folder / "network")
        cls.mobile = exported(NETWORKS["mobile"], cls.folder / "mobile")
        preprocessing = {"do_resize": False, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
        for file in (cls.file, cls.mobile):
            (file.parent / "preprocessor_config.json").write_text(json.dumps(preprocessing))
        write_images(cls.folder / "images", 300)
        cls.images = torch.randn(24, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def adapt(self, name: str, *more, file: Path | None = None) -> Path:
        out = self.folder / name
        quietly(
            (file or self.file).parent, "--data", self.folder / "images", "--out", out, "--work", self.folder / f"work-{name}",
            "--epochs", 3, "--copies", 2, "--exits", 2, "--exit-cost", 0.2, "--max-disagreement", 0.3, "--threads", 1, *more,
        )  # fmt: skip
        return out

    def answers(self, model: Path, policy: str) -> engine.Answers:
        return engine.run(model, self.images.numpy(), policy)

    def test_exits_alone_leave_the_answers_in_full_bit_for_bit(self):
        model = self.adapt("exits") / "model.onnx"
        original, adapted = (self.answers(file, "full").values for file in (self.file, model))
        self.assertEqual(adapted.tobytes(), original.tobytes())
        points = [exit_["after"] for exit_ in engine.inspect(model)["exits"]]
        self.assertEqual(len(points), 2)
        with self.subTest("the engine leaves where the graph chooses an exit"):
            left = self.answers(model, "model")
            (expected,) = ReferenceEvaluator(str(model)).run(None, {"input": self.images.numpy()})
            np.testing.assert_allclose(left.values, expected, rtol=1e-4, atol=1e-4)
            self.assertTrue(set(points) & set(left.exits))

    def test_a_mobile_network_has_a_tail_exit_behind_its_last_block(self):
        model = self.adapt("mobile-exits", file=self.mobile) / "model.onnx"
        original, adapted = (self.answers(file, "full").values for file in (self.mobile, model))
        self.assertEqual(adapted.tobytes(), original.tobytes())
        report = engine.inspect(model)
        first, last = (exit_["after"] for exit_ in report["exits"])
        self.assertEqual([first, last], [block["name"] for block in report["blocks"]])
        written = json.loads((model.parent / "adaptation.json").read_text())["exits"][-1]
        with self.subTest("it lies beyond that block and costs what the engine says"):
            until = sum(block["share"] for block in report["blocks"])
            self.assertGreater(written["done"], until)
            self.assertLess(written["done"] + written["cost"], 1)
            self.assertAlmostEqual(written["cost"] * report["multiplyAdds"], report["exits"][-1]["multiplyAdds"], delta=1)
        with self.subTest("the engine answers as the graph does"):
            (expected,) = ReferenceEvaluator(str(model)).run(None, {"input": self.images.numpy()})
            np.testing.assert_allclose(self.answers(model, "model").values, expected, rtol=1e-4, atol=1e-4)
        with self.subTest("and leaves there with the tail's answer"):
            graph = onnx.load(str(model))
            graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(f"exits/{last}/logits"))
            _, expected = ReferenceEvaluator(graph).run(None, {"input": self.images.numpy()})
            policy = self.folder / "tail.json"
            policy.write_text(json.dumps({"heads": {"exits": [{"after": last, "threshold": 0}]}}))
            left = self.answers(model, str(policy))
            self.assertEqual(set(left.exits), {last})
            np.testing.assert_allclose(left.values, expected, rtol=1e-4, atol=1e-4)
        with self.subTest("fine-tuned"):
            tuned = self.adapt("mobile-tuned", "--fine-tune", "--tune-epochs", 1, file=self.mobile) / "model.onnx"
            (expected,) = ReferenceEvaluator(str(tuned)).run(None, {"input": self.images.numpy()})
            np.testing.assert_allclose(self.answers(tuned, "model").values, expected, rtol=1e-4, atol=1e-4)

    def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(self):
        whole = self.adapt("whole", "--fine-tune", "--tune-epochs", 2)
        with interruptions(2, 4) as calls:
            for _ in range(2):
                with self.assertRaises(KeyboardInterrupt):
                    self.adapt("resumed", "--fine-tune", "--tune-epochs", 2)
            resumed = self.adapt("resumed", "--fine-tune", "--tune-epochs", 2)
        self.assertEqual(calls, ["exits", "exits", "exits", "tuning", "tuning"])
        self.assertEqual((whole / "model.onnx").read_bytes(), (resumed / "model.onnx").read_bytes())
        with self.subTest("fine-tuning changes the network's own weights"):
            answers = [self.answers(file, "full").values.tobytes() for file in (self.file, whole / "model.onnx")]
            self.assertNotEqual(*answers)

    def test_work_of_other_options_is_refused(self):
        self.adapt("options")
        with self.assertRaisesRegex(ValueError, "another network, other data or options"):
            self.adapt("options", "--seed", 2)

    def test_a_network_with_exits_or_gates_is_refused(self):
        out = self.adapt("twice")
        with self.assertRaisesRegex(ValueError, "has exits or gates already"):
            quietly(out, "--data", self.folder / "images", "--work", self.folder / "work-twice-again")


class PartsTest(unittest.TestCase):
    def test_a_tail_is_what_computes_each_position_alone(self):
        images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(8))
        for name, make in NETWORKS.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                built = OnnxNetwork(onnx.load(str(exported(make, Path(folder)))))
                names = [output for node in built.nodes for output in node.outputs]
                values = built(images, names)
                last = next(node.outputs[0] for node in reversed(built.nodes) if node.op == "Add")
                found = find_tail(built, find_classifier(built), last, values)
                if name == "mobile":
                    self.assertEqual(values[found].shape[1:], (24, 8, 8))
                    self.assertEqual(built.producers[found].op, "Clip")
                else:
                    self.assertIsNone(found)

    def test_a_map_of_constants_is_not_per_position(self):
        text = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2, 6, 6] x) => (float[N, 3] y)
            <float[2, 2, 1, 1] w = {1, 0, 0, 1}, float[2, MAP] c = {VALUES}, float[2, 3] v = {1, 2, 3, 4, 5, 6}>
            { a = Relu(x) b = Conv(a, w) d = Add(b, c) e = GlobalAveragePool(d) f = Flatten(e) y = MatMul(f, v) }"""
        for side, expected in ((1, "a"), (6, None)):
            graph = text.replace("MAP", f"{side}, {side}").replace("VALUES", ", ".join(["0.5"] * 2 * side * side))
            built = OnnxNetwork(onnx.parser.parse_model(graph))
            values = built(torch.randn(1, 2, 6, 6), [name for node in built.nodes for name in node.outputs])
            self.assertEqual(find_tail(built, find_classifier(built), "a", values), expected)

    def test_windows_of_a_tail_cover_a_map_evenly(self):
        for side, kernel, stride in ((5, 3, 1), (7, 3, 2), (8, 4, 2), (10, 4, 3)):
            self.assertEqual(TailPoint("", "", (1, side, side), 0.9).windows(), ([kernel] * 2, [stride] * 2))
            self.assertEqual(kernel + 2 * stride, side)

    def test_the_tail_has_a_threshold_of_its_own(self):
        exits = SimpleExits([0.4, 0.8], [10, 50])
        scores = torch.tensor([[0.9, 0.6, 0.5, 0.4], [1.0, 0.7, 0.95, 0.65]])
        agrees = torch.tensor([[True, False, True, True], [True, True, True, False]])
        outcome = choose_thresholds(exits, scores, agrees, 1000, 0.0)
        # The first image leaves at once; two leave at the tail; the last would change its answer.
        saved = (0.6 + 2 * 0.2) / 4 - (4 * 0.01 + 3 * 0.05) / 4
        self.assertEqual(outcome.leaving, [0.25, 0.5])
        self.assertAlmostEqual(outcome.saved, saved, places=6)
        self.assertEqual(outcome.changed, 0.0)
        self.assertTrue(0.6 < outcome.thresholds[0] <= 0.9 and 0.65 < outcome.thresholds[1] <= 0.7)
        with self.subTest("never where nothing may leave"):
            outcome = choose_thresholds(exits, scores, ~agrees & agrees, 1000, 0.0)
            self.assertEqual((outcome.saved, outcome.leaving), (0.0, [0.0, 0.0]))

    def test_places_are_spread_over_the_work(self):
        shares = [0.1, 0.22, 0.24, 0.5, 0.7, 0.72, 0.9, 0.94]
        chosen = choose_points([ExitPoint(str(share), "", (1, 1, 1), share) for share in shares], 4)
        self.assertEqual([point.done for point in chosen], [0.22, 0.5, 0.7, 0.9])

    def test_fewer_images_are_altered_more_often(self):
        def filled(images: int, *given: str) -> tuple[int, int]:
            options = adapt.parse(["model.onnx", "--data", "images", *given])
            adapt.fill_in(options, images)
            return options.copies, options.epochs

        self.assertEqual([filled(images) for images in (300, 9469, 50_000)], [(24, 48), (21, 42), (4, 20)])
        self.assertEqual(filled(300, "--copies", "2"), (2, 20))
        self.assertEqual(filled(300, "--epochs", "3"), (24, 3))

    def test_images_that_an_exit_is_sure_of_count_less_for_the_next(self):
        torch.manual_seed(1)
        logits, features = torch.randn(2, 3), torch.randn(2, 5)

        def gradient(first: list[float]) -> list[float]:
            own = torch.randn(2, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
            answers = [(features, torch.tensor([first, [0.0, 0.0, 0.0]])), (features, own)]
            exits_loss(answers, features, logits, torch.ones(5)).backward()
            return own.grad.abs().sum(1).tolist()

        (sure, other), (unsure, alike) = gradient([20.0, 0.0, 0.0]), gradient([0.0, 0.0, 0.0])
        self.assertLess(sure, unsure)
        self.assertGreater(other, alike)

    def test_the_weights_of_the_best_epoch_are_kept(self):
        torch.manual_seed(2)
        module, weights, scores = nn.Linear(2, 1), [], iter([0.1, 0.3, 0.2])

        def monitor(average: nn.Module) -> tuple[float, str]:
            weights.append(average.weight.tolist())
            return next(scores), ""

        def loss(images: torch.Tensor) -> torch.Tensor:
            return (module(images) - 1).square().mean()

        with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            training = Training("test", module, [(decayed(module.parameters(), 0.01), 0.1)], 3, Path(folder) / "test.pt", 1)
            kept = training.run(lambda epoch: (2, iter([(torch.ones(4, 2),)] * 2)), loss, monitor)
        self.assertEqual(kept.weight.tolist(), weights[1])
        self.assertNotEqual(weights[1], weights[2])

    def test_altered_images_are_shifted_and_mixed_ones_have_a_rectangle_of_another(self):
        generator = torch.Generator().manual_seed(3)
        pixels = torch.arange(SIDE).repeat(32, 1, SIDE, 1).to(torch.uint8)
        changed = altered(pixels, mirror=False, generator=generator)
        self.assertTrue((changed[..., 3:-3].diff(dim=-1) == 1).all())
        plain = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, SIDE, SIDE)
        seen = [len(image.unique()) for image in mixed(plain, 1.0, generator)]
        self.assertIn(2, seen)
        self.assertLessEqual(max(seen), 2)
        self.assertTrue(torch.equal(mixed(plain, 0.0, generator), plain))


if __name__ == "__main__":
    unittest.main()
