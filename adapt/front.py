#!/usr/bin/env python3
"""Distils a small network that answers easy images in front of a larger one; see docs/adapt.md."""

import argparse
import copy
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import engine
from common import decayed, distance, seeded
from student import AllClasses, PlainNetwork, ShrunkNetwork, plan, shrink, work_at, write_plain, write_shrunk
from teaching import Training, fast_bf16, remember
from trained import ROOT, TOLERANCE, TrainedNetwork, count_work
from unlabelled import SMALL, pixels_of
from views import TEACHER_BATCH, Views, shrunk

# Side of a plain front for larger images.
PLAIN_SIDE = 96
BATCH = 64
PLAIN_RATE, PLAIN_DECAY = 2e-3, 0.05
SHRUNK_RATE, SHRUNK_DECAY = 5e-4, 1e-3
# The phase for the confidence: weights of the right answers in its loss, its rate beside the first phase's, and its epochs.
CONFIDENCE, CONFIDENCE_RATE, CONFIDENCE_EPOCHS = (0.3, 0.6, 0.9), 0.2, 0.05
# Share of the time that goes to the network's answers, the views of each image, and what is kept in reserve.
TEACHER_TIME, COPIES, RESERVE = 0.25, (2, 16), 0.1
LIMITS = (0.01, 0.02)
CHUNK = 250


def share(text: str) -> float:
    value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share of the network's work; write 5% or 0.05")
    return value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="ONNX file, or a folder with model.onnx")
    parser.add_argument("--data", type=Path, required=True, help="any folder of images; labels are not needed")
    parser.add_argument("--out", type=Path, help="folder to write (default: MODEL-front)")
    parser.add_argument("--work", type=share, default=0.1, help="multiply-adds, as a share of the network's (default: 10%%)")
    parser.add_argument("--minutes", type=float, default=60, help="about so long, by the speed measured at the start (default: 60)")
    parser.add_argument("--kind", choices=["plain", "shrunk"], help="a small ResNet, or the network itself at a lower resolution")
    parser.add_argument("--resolution", type=int, help="shorter side of the front's input (default: by the images and --work)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the answers that are learnt (default: 1)")
    parser.add_argument("--max-disagreement", type=float, default=0.01, help="answers that may change, where fronts are compared")
    parser.add_argument("--copies", type=int, help="altered copies of each image (default: by --minutes)")
    parser.add_argument("--epochs", type=int, help="each over one copy (default: by --minutes)")
    parser.add_argument("--cache", type=Path, help="intermediate results, to resume from (default: .cache/front/...)")
    parser.add_argument("--max-images", type=int, help="use so many of the images only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args(arguments)


@dataclass
class Cascade:
    """A front that answers where its largest probability reaches `threshold`; `work` is the mean, as a share of the network's."""

    limit: float
    threshold: float
    answered: float
    changed: float
    work: float


def cascade(scores: torch.Tensor, agrees: torch.Tensor, cost: float, limit: float) -> Cascade:
    """The lowest threshold at which at most `limit` of all answers change."""
    order = scores.sort(descending=True)
    changed = (~agrees[order.indices]).cumsum(0)
    # A threshold can't part equal scores.
    last = torch.cat([order.values[:-1] > order.values[1:], torch.ones(1, dtype=torch.bool)])
    fit = (last & (changed <= limit * len(scores))).nonzero().flatten()
    if len(fit) == 0:
        return Cascade(limit, 1.0, 0.0, 0.0, 1 + cost)
    end = fit[-1].item()
    answered = (end + 1) / len(scores)
    return Cascade(limit, order.values[end].item(), answered, changed[end].item() / len(scores), cost + 1 - answered)


def deferral(own: torch.Tensor, answer: torch.Tensor, right_weight: float) -> torch.Tensor:
    """Gatekeeper (Rabanser et al. 2025): answers like the network's get surer, others go towards the uniform distribution.
    `answer` has the network's classes.
    """
    log = own.log_softmax(1)
    right = own.argmax(1) == answer
    surer = -(log.gather(1, answer.clamp(min=0).unsqueeze(1)).squeeze(1) * right).mean()
    flat = ((log.exp() * log).sum(1) + math.log(own.shape[1])) * ~right
    return right_weight * surer + (1 - right_weight) * flat.mean()


class Front(TrainedNetwork):
    """The small network that is made, and what it is made from."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options.model, options.data, options.max_images, options.seed, options.threads)
        self.options = options
        self.cache = options.cache or ROOT / ".cache/front" / self.sha256[:12]
        remember(self.cache, {"model": self.sha256, "images": self.images_sha256, "seed": options.seed})
        self.read(self.cache / "images.npy")
        self.check_rebuilt()
        self.multiply_adds, _ = count_work(self.network, torch.zeros(1, self.channels, *self.side), [])
        self.choose_size()
        self.views = Views(self.cache, self, self.size, options.seed, self.minds_no_mirror())
        self.check = self.held_out_answers()
        self.make_student()
        self.plan_time()

    def choose_size(self) -> None:
        """The kind of the front, its size and its work: the network itself for photographs, if it can be made that small."""
        options = self.options
        budget = options.work * self.multiply_adds
        found = None
        if options.kind == "shrunk" or (options.kind is None and min(self.side) > SMALL):
            found = self.shrunk_size(budget)
        if found:
            self.kind, (self.size, self.work) = "shrunk", found
        elif options.kind == "shrunk":
            raise ValueError(f"{self.file} can't be a front of {options.work:.1%} at a lower resolution; use --kind plain")
        else:
            self.kind, self.size = "plain", self.plain_size()
            self.shape = plan(self.channels, self.size, self.count_classes(), budget)
            self.work = self.shape.work
        self.cost = self.work / self.multiply_adds
        size, work = f"{self.size[0]}x{self.size[1]}", f"{self.work / 1e6:.1f} of {self.multiply_adds / 1e6:.1f}"
        print(f"front: {self.kind}, {size}, {work} million multiply-adds ({self.cost:.1%})", flush=True)

    def count_classes(self) -> int:
        image = torch.zeros(1, self.channels, *self.side)
        return self.network(image, [self.classifier.logits])[self.classifier.logits].numel()

    def held_out_answers(self) -> torch.Tensor:
        """The class that the network answers on each held-out image, by the engine."""
        answers = []
        for rows in self.held_out.split(CHUNK):
            images = self.preprocessing.normalize(pixels_of(self.images, rows)).contiguous()
            values = engine.run(self.file, images.numpy(), "full").values.reshape(len(rows), -1)
            answers.append(torch.from_numpy(values.argmax(1)))
        return torch.cat(answers)

    def make_student(self) -> None:
        """A plain front has only those classes that are the network's answer to one of the images."""
        answers = torch.from_numpy(self.views.copy(0)[1].argmax(1)).unique()
        if len(answers) < 2:
            raise ValueError(f"{self.file} gives one answer to all images; a front needs images that differ")
        count = self.count_classes()
        torch.manual_seed(self.options.seed)
        if self.kind == "shrunk":
            self.classes, self.student = torch.arange(count), ShrunkNetwork(self)
        else:
            self.classes = answers
            self.student = PlainNetwork(self.shape, len(answers)).to(memory_format=torch.channels_last)
        # The place of each class among those of the front, -1 for one that it doesn't answer.
        self.place = torch.full((count,), -1)
        self.place[self.classes] = torch.arange(len(self.classes))

    def shrunk_size(self, budget: float) -> tuple[tuple[int, int], int] | None:
        side = self.options.resolution
        if side is None:
            return shrink(self, budget)
        size = self.scaled(side)
        work = work_at(self, size)
        return (size, work) if work is not None and work <= budget else None

    def plain_size(self) -> tuple[int, int]:
        least = min(self.side)
        return self.scaled(self.options.resolution or (least if least <= SMALL else min(least, PLAIN_SIDE)))

    def scaled(self, side: int) -> tuple[int, int]:
        least = min(self.side)
        if not 8 <= side <= least:
            raise ValueError(f"--resolution {side} isn't between 8 and {least}, the shorter side of the network's input")
        return round(self.side[0] * side / least), round(self.side[1] * side / least)

    def plan_time(self) -> None:
        """Views and epochs that fit into --minutes, by the speed of this machine; a resumed run keeps to the first plan."""
        options = self.options
        self.folder = self.cache / f"{self.kind}-{self.size[0]}x{self.size[1]}-{self.work}"
        file = self.folder / "plan.json"
        chosen = {name: getattr(options, name) for name in ("minutes", "temperature", "max_disagreement")}
        if file.exists():
            known = json.loads(file.read_text())
            given = {"copies": options.copies, "epochs": options.epochs}
            if known["options"] != chosen or any(value not in (None, known[name]) for name, value in given.items()):
                raise ValueError(f"{self.folder} holds work of other options; name another --cache, or delete it")
        else:
            teacher, student = self.seconds()
            seconds = 60 * options.minutes * (1 - RESERVE)
            few, many = COPIES
            copies = options.copies or min(many, max(few, int(seconds * TEACHER_TIME / teacher)))
            phases = 1 + len(CONFIDENCE) * CONFIDENCE_EPOCHS
            epochs = options.epochs or max(2, int((seconds - copies * teacher) / (student * phases)))
            self.folder.mkdir(parents=True, exist_ok=True)
            known = {"options": chosen, "copies": copies, "epochs": epochs}
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(known))
            partial.replace(file)
        self.copies, self.epochs = known["copies"], known["epochs"]
        print(f"{self.copies} views of {len(self.train)} images, {self.epochs} epochs", flush=True)

    def seconds(self) -> tuple[float, float]:
        """Of the network for one view of all training images, and of one epoch."""
        pixels = pixels_of(self.images, self.train[:TEACHER_BATCH])
        images = self.preprocessing.normalize(pixels)
        small = shrunk(images, self.size)

        def answer() -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
                self.network(images, [self.network.output])

        def learn() -> None:
            self.student.train()
            self.run(self.student, small).square().mean().backward()

        state = copy.deepcopy(self.student.state_dict())
        times = []
        for run in (answer, learn):
            run()
            start = time.monotonic()
            run()
            times.append((time.monotonic() - start) * len(self.train) / len(pixels))
        self.student.load_state_dict(state)
        self.student.zero_grad(set_to_none=True)
        return times[0], times[1]

    def batches(self, stage: str, epoch: int) -> tuple[int, Iterator]:
        pixels, logits = self.views.copy(epoch % self.copies)
        generator = seeded(self.options.seed, stage, epoch)
        order = [rows for rows in torch.randperm(len(pixels), generator=generator).split(BATCH) if len(rows) > 1]

        def made() -> Iterator:
            for rows in order:
                rows = rows.sort()[0].numpy()
                view, wanted = torch.from_numpy(pixels[rows]), torch.from_numpy(logits[rows]).float()
                if self.views.mirror:
                    flip = torch.rand(len(rows), generator=generator) < 0.5
                    view = torch.where(flip.view(-1, 1, 1, 1), view.flip(3), view)
                yield self.preprocessing.normalize(view), wanted

        return len(order), made()

    def train_student(self) -> tuple[nn.Module, list[dict]]:
        """The best front on the held-out images, and what was tried."""
        for number in range(self.copies):
            self.views.copy(number)
        rate, decay = (PLAIN_RATE, PLAIN_DECAY) if self.kind == "plain" else (SHRUNK_RATE, SHRUNK_DECAY)

        def learn(module: nn.Module, name: str, rate: float, epochs: int, loss: Callable) -> tuple[float, nn.Module]:
            groups = [(decayed(module.parameters(), decay), rate)]
            training = Training(name, module, groups, epochs, self.folder / f"{name}.pt", self.options.seed)
            best = training.run(lambda epoch: self.batches(name, epoch), lambda *batch: loss(module, *batch), self.evaluate)
            return training.score, best

        def distil(module: nn.Module, images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return distance(self.run(module, images), wanted[:, self.classes], self.options.temperature)

        score, distilled = learn(self.student, "distilled", rate, self.epochs, distil)
        tried = [self.result("distilled", distilled)]
        best = distilled
        for weight in CONFIDENCE:
            def defer(module: nn.Module, images: torch.Tensor, wanted: torch.Tensor, weight: float = weight) -> torch.Tensor:
                return deferral(self.run(module, images), self.place[wanted.argmax(1)], weight)

            module = copy.deepcopy(distilled).requires_grad_(True)
            epochs = max(1, round(CONFIDENCE_EPOCHS * self.epochs))
            reached, surer = learn(module, f"confidence-{weight}", CONFIDENCE_RATE * rate, epochs, defer)
            tried.append(self.result(f"confidence, weight {weight}", surer))
            if reached > score:
                score, best = reached, surer
        return best, tried

    def run(self, front: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Logits in training; bfloat16 slows the depthwise convolutions of small networks down."""
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16() and self.kind == "plain"):
            return front(images).float()

    @torch.no_grad()
    def answers(self, front: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the held-out images: the front's largest probability, and whether its answer is the network's."""
        front.eval()
        logits = []
        for rows in self.held_out.split(CHUNK):
            logits.append(front(shrunk(self.preprocessing.normalize(pixels_of(self.images, rows)), self.size)))
        scores, answers = torch.cat(logits).softmax(1).max(1)
        return scores, self.classes[answers] == self.check

    def evaluate(self, front: nn.Module) -> tuple[float, str]:
        """The work that a cascade saves, mean over limits around that of --max-disagreement: one limit alone is noisy."""
        scores, agrees = self.answers(front)
        limit = self.options.max_disagreement
        saved = [1 - cascade(scores, agrees, self.cost, limit * factor).work for factor in (0.5, 0.75, 1, 1.5, 2)]
        at = cascade(scores, agrees, self.cost, limit)
        answered = f"answers {at.answered:.1%} with {at.changed:.2%} changed, work {at.work:.1%}"
        return sum(saved) / len(saved), f"agrees on {agrees.float().mean():.1%}; {answered}"

    def result(self, name: str, front: nn.Module) -> dict:
        scores, agrees = self.answers(front)
        limits = sorted({*LIMITS, self.options.max_disagreement})
        cascades = [asdict(cascade(scores, agrees, self.cost, limit)) for limit in limits]
        return {
            "name": name,
            "agreement": round(agrees.float().mean().item(), 4),
            "saved": round(self.evaluate(front)[0], 4),
            "cascades": [{key: round(value, 4) for key, value in found.items()} for found in cascades],
        }

    @torch.no_grad()
    def check_written(self, file: Path, front: nn.Module) -> None:
        """That the engine answers with the file as PyTorch does."""
        images = shrunk(self.some_images(), self.size).contiguous()
        own = front.eval()(images)
        own = own.softmax(1) if self.classifier.softmax else own
        written = engine.run(file, images.numpy(), "full").values.reshape(len(images), -1)
        difference = np.abs(written[:, self.classes.numpy()] - own.numpy()).max()
        if not difference <= TOLERANCE * max(1.0, own.abs().max().item()):
            raise ValueError(f"{file}: its answers differ by {difference:.2g} from those in PyTorch; please report this")

    def smaller_preprocessing(self) -> dict:
        """The network's preprocessor_config.json with lengths for the front's size."""
        file = self.file.parent / "preprocessor_config.json"
        config = json.loads(file.read_text()) if file.exists() else {}
        if self.size == self.side:
            return config

        def scaled(value: dict | int | None, axis: int = 0) -> dict | int | None:
            if isinstance(value, dict):
                return {key: scaled(length, int(key == "width")) for key, length in value.items()}
            return value and round(value * self.size[axis] / self.side[axis])

        if not config.get("do_resize", "size" in config):
            return config | {"do_resize": True, "size": {"height": self.size[0], "width": self.size[1]}}
        return config | {name: scaled(config[name]) for name in ("size", "crop_size") if name in config}

    def write(self, out: Path, front: nn.Module, tried: list[dict]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        file = out / "model.onnx"
        if self.kind == "plain":
            whole = AllClasses(front, self.classes, len(self.place), self.classifier.softmax).eval()
            write_plain(file, whole, self, self.size)
        else:
            write_shrunk(file, front, self, self.size)
        self.check_written(file, front)
        (out / "preprocessor_config.json").write_text(json.dumps(self.smaller_preprocessing(), indent=1) + "\n")
        for name in ("config.json", "LICENSE"):
            if (self.file.parent / name).exists():
                shutil.copyfile(self.file.parent / name, out / name)
        report = {
            "network": self.sha256,
            "kind": self.kind,
            "size": self.size,
            "multiplyAdds": self.work,
            "cost": round(self.cost, 5),
            "classes": len(self.classes),
            "images": len(self.train),
            "validationImages": len(self.held_out),
            "copies": self.copies,
            "epochs": self.epochs,
            "temperature": self.options.temperature,
            "tried": tried,
        }
        (out / "front.json").write_text(json.dumps(report, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    front = Front(options)
    best, tried = front.train_student()
    out = options.out or Path(f"{front.name}-front")
    front.write(out, best, tried)
    saved, text = front.evaluate(best)
    print(f"wrote {out}: {text}")
    if saved <= 0:
        print("this front saves no work on the held-out images; try another --work, more --minutes or more images")


if __name__ == "__main__":
    main()
