#!/usr/bin/env python3
"""Tests of front.py: python3 -m unittest discover adapt"""

import argparse
import io
import json
import math
import sys
import tempfile
import unittest
import unittest.mock
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, str(Path(__file__).parent))

import engine  # noqa: E402
import front  # noqa: E402
from student import AllClasses, PlainNetwork, plan  # noqa: E402
from test_adapt import NETWORKS, SIDE, exported, interruptions, write_images  # noqa: E402
from views import shrunk  # noqa: E402

SMALLER = 8


class FrontTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        cls.models = {"logits": "post-activation with projections", "probabilities": "a convolution as its classifier"}
        preprocessing = {"do_resize": False, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
        for name, kind in cls.models.items():
            (cls.folder / name).mkdir()
            exported(NETWORKS[kind], cls.folder / name)
            (cls.folder / name / "preprocessor_config.json").write_text(json.dumps(preprocessing))
        write_images(cls.folder / "images", 200)
        cls.images = torch.randn(24, 3, SMALLER, SMALLER, generator=torch.Generator().manual_seed(7)).numpy()

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def make(self, out: str, *more, model: str = "logits", given: bool = True) -> Path:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            front.main([str(argument) for argument in (
                self.folder / model, "--data", self.folder / "images", "--out", self.folder / out, "--cache",
                self.folder / f"cache-{out}", "--resolution", SMALLER, "--threads", 1,
                *(("--copies", 2, "--epochs", 2) if given else ()), *more,
            )])  # fmt: skip
        return self.folder / out

    def check(self, out: Path, model: str) -> None:
        """That the file has the network's names and classes, its own size, and costs what the report says."""
        file, whole = out / "model.onnx", onnx.load(str(self.folder / model / "model.onnx")).graph
        graph = onnx.load(str(file)).graph
        self.assertEqual([graph.input[0].name, graph.output[0].name], [whole.input[0].name, whole.output[0].name])
        self.assertEqual([dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim][1:], [3, SMALLER, SMALLER])
        (expected,) = ReferenceEvaluator(str(file)).run(None, {"input": self.images})
        answer = engine.run(file, self.images, "full").values
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)
        if model == "probabilities":
            np.testing.assert_allclose(answer.sum(1), 1, rtol=1e-5)
        report = json.loads((out / "front.json").read_text())
        work = [engine.inspect(path)["multiplyAdds"] for path in (file, self.folder / model / "model.onnx")]
        self.assertEqual(report["multiplyAdds"], work[0])
        self.assertAlmostEqual(report["cost"], work[0] / work[1], places=5)
        size = json.loads((out / "preprocessor_config.json").read_text())["size"]
        self.assertEqual(size, {"height": SMALLER, "width": SMALLER})

    def test_a_plain_front_answers_in_the_form_of_the_network(self):
        for model in self.models:
            with self.subTest(model):
                out = self.make(f"plain-{model}", "--kind", "plain", "--work", "80%", model=model)
                self.check(out, model)
                operators = {node.op_type for node in onnx.load(str(out / "model.onnx")).graph.node}
                self.assertNotIn("BatchNormalization", operators)

    def test_the_network_itself_becomes_smaller_and_learns(self):
        for model in self.models:
            with self.subTest(model):
                out = self.make(f"shrunk-{model}", "--kind", "shrunk", "--work", "50%", model=model)
                self.check(out, model)
                before, after = (onnx.load(str(folder / "model.onnx")) for folder in (self.folder / model, out))
                self.assertEqual([node.name for node in after.graph.node], [node.name for node in before.graph.node])
                same = [a.raw_data == b.raw_data for a, b in zip(before.graph.initializer, after.graph.initializer, strict=True)]
                self.assertFalse(all(same))

    def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(self):
        whole = self.make("whole", "--work", "50%")
        with interruptions(1, 3) as calls:
            for _ in range(2):
                with self.assertRaises(KeyboardInterrupt):
                    self.make("resumed", "--work", "50%")
            resumed = self.make("resumed", "--work", "50%")
        self.assertEqual(calls, ["distilled"] * 2 + [f"confidence-{weight}" for weight in front.CONFIDENCE])
        self.assertEqual((whole / "model.onnx").read_bytes(), (resumed / "model.onnx").read_bytes())
        with self.subTest("other options are refused"), self.assertRaisesRegex(ValueError, "work of other options"):
            self.make("whole", "--work", "50%", "--temperature", 3)
        with self.subTest("so is another seed"), self.assertRaisesRegex(ValueError, "another network, other data or options"):
            self.make("whole", "--work", "50%", "--seed", 3)

    def test_views_and_epochs_follow_from_the_minutes_and_the_machine(self):
        # 9 of the 10 minutes are planned, a quarter of them for views.
        for teacher, epochs in ((30.0, 3), (300.0, 2)):
            with self.subTest(teacher), unittest.mock.patch.object(front.Front, "seconds", lambda _, t=teacher: (t, 100.0)):
                out = self.make(f"minutes-{teacher}", "--work", "50%", "--minutes", 10, given=False)
                report = json.loads((out / "front.json").read_text())
                self.assertEqual([report["copies"], report["epochs"]], [4 if teacher == 30 else 2, epochs])

    def test_what_cannot_be_made_is_said(self):
        for arguments, message in (
            (("--work", "1%"), "more than the 0.0 million that --work allows"),
            (("--kind", "shrunk", "--work", "1%"), "use --kind plain"),
            (("--resolution", 40), "isn't between 8 and 16"),
        ):
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                self.make("none", *arguments)
        with self.assertRaisesRegex(ValueError, "name an ONNX file"):
            self.make("none", model="nothing")
        self.assertEqual([front.share("5%"), front.share("0.2")], [0.05, 0.2])
        for text in ("20", "0", "100%"):
            with self.assertRaises(argparse.ArgumentTypeError):
                front.share(text)


class PartsTest(unittest.TestCase):
    def test_a_cascade_answers_as_often_as_the_limit_allows(self):
        scores = torch.tensor([0.5, 0.9, 0.8, 0.7, 0.6])
        agrees = torch.tensor([False, True, True, False, True])
        found = front.cascade(scores, agrees, 0.1, 0.2)
        self.assertEqual((found.answered, found.changed), (0.8, 0.2))
        self.assertAlmostEqual(found.threshold, 0.6, places=6)
        self.assertAlmostEqual(found.work, 0.1 + 0.2)
        self.assertEqual(front.cascade(scores, agrees, 0.1, 0.1).answered, 0.4)
        with self.subTest("equal scores stay together"):
            tied = front.cascade(torch.tensor([0.9, 0.8, 0.8, 0.8]), torch.tensor([True, True, True, False]), 0.1, 0.0)
            self.assertEqual((tied.answered, tied.changed), (0.25, 0.0))
        with self.subTest("nothing is answered where the surest answer is wrong"):
            none = front.cascade(scores, ~agrees, 0.1, 0.0)
            self.assertEqual((none.answered, none.work), (0.0, 1.1))

    def test_right_answers_get_surer_and_wrong_ones_flat(self):
        own = torch.tensor([[2.0, 0.0, -1.0], [2.0, 0.0, -1.0], [2.0, 0.0, -1.0]], requires_grad=True)
        loss = front.deferral(own, torch.tensor([0, 1, -1]), 0.5)
        loss.backward()
        self.assertLess(own.grad[0, 0], 0)
        self.assertGreater(own.grad[0, 1], 0)
        for wrong in (1, 2):
            self.assertGreater(own.grad[wrong, 0], 0)
            self.assertLess(own.grad[wrong, 2], 0)
        with self.subTest("its terms are the cross-entropy and the divergence from the uniform distribution"):
            log = torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64).log_softmax(0)
            flat = (log.exp() * (log - math.log(1 / 3))).sum()
            self.assertAlmostEqual(loss.item(), (0.5 * (-log[0] + 2 * flat) / 3).item(), places=6)

    def test_distillation_ends_at_the_network_s_probabilities(self):
        wanted = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
        for temperature in (1.0, 3.0):
            own = (wanted + 2).requires_grad_()
            loss = front.distance(own, wanted, temperature)
            loss.backward()
            self.assertAlmostEqual(loss.item(), 0, places=5)
            self.assertLess(own.grad.abs().max(), 1e-6)
            self.assertGreater(front.distance(wanted.flip(1), wanted, temperature), 0.1)

    def test_images_shrink_with_antialiasing(self):
        images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))
        small = shrunk(images, (6, 6))
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        for row, column in ((1, 1), (2, 4)):
            window = images[:, :, 2 * row - 1 : 2 * row + 3, 2 * column - 1 : 2 * column + 3]
            expected = torch.einsum("nchw,h,w->nc", window, taps, taps)
            torch.testing.assert_close(small[:, :, row, column], expected)

    def test_a_plan_fills_the_budget(self):
        for size, budget in (((96, 96), 24e6), ((64, 80), 9e6), ((32, 32), 12.6e6), ((32, 32), 4e6)):
            shape = plan(3, size, 10, budget)
            self.assertTrue(0.5 * budget < shape.work <= budget, shape)
            self.assertEqual(shape.width % 8, 0)
        deep, shallow = plan(3, (96, 96), 10, 60e6), plan(3, (96, 96), 10, 9e6)
        self.assertGreater(sum(deep.blocks), sum(shallow.blocks))

    def test_classes_that_a_domain_has_not_are_never_answered(self):
        torch.manual_seed(4)
        plain = PlainNetwork(plan(3, (SIDE, SIDE), 20, 2e6), 3).eval()
        classes = torch.tensor([4, 7, 19])
        images = torch.randn(8, 3, SIDE, SIDE)
        with torch.no_grad():
            logits = plain(images)
            answer = AllClasses(plain, classes, 20, softmax=True).eval()(images)
        self.assertTrue(set(answer.argmax(1).tolist()) <= set(classes.tolist()))
        torch.testing.assert_close(answer[:, classes], logits.softmax(1), rtol=1e-5, atol=1e-6)
        self.assertEqual(answer.shape, (8, 20))


if __name__ == "__main__":
    unittest.main()
