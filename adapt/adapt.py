#!/usr/bin/env python3
"""Gives a trained residual network early exits, from unlabelled images; see docs/adapt.md."""

import argparse
import copy
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

import engine
from common import decayed, seeded
from exit_graph import write_adapted
from exits import ExitPoint, Exits, choose_points
from onnx_network import OnnxNetwork
from teaching import (
    BATCH,
    MIXED,
    TUNE_BATCH,
    Library,
    Outcome,
    Seen,
    Training,
    ask,
    choose_thresholds,
    exits_loss,
    fast_bf16,
    observe,
    remember,
)
from tail import MIN_SAVING, Tail, TailPoint, find_tail, tail_model
from trained import ROOT, TrainedNetwork, count_work
from unlabelled import altered, mixed, pixels_of

HEADS_RATE, TAIL_RATE, TRUNK_RATE = 3e-3, 3e-4, 5e-4
# Fewer images than this teach exits in smaller batches, at a lower rate: there would be too few steps.
FEW_IMAGES, SMALL_BATCH, SMALL_BATCH_RATE = 16_000, 64, 2e-3
HEADS_DECAY, TAIL_DECAY, TRUNK_DECAY = 0.01, 0.1, 1e-3
EXITS, FEW_EXITS = 12, 8
# Altered images that teach exits, of all copies together; copies of each image; and epochs.
TAUGHT, COPIES, MIN_EPOCHS = 200_000, (4, 24), 20


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="ONNX file, or a folder with model.onnx")
    parser.add_argument("--data", type=Path, required=True, help="any folder of images; labels are not needed")
    parser.add_argument("--out", type=Path, help="folder to write (default: MODEL-exits or MODEL-tuned)")
    parser.add_argument("--work", type=Path, help="intermediate results, to resume from (default: .cache/adapt/...)")
    parser.add_argument("--fine-tune", action="store_true", help="train the network too, while it keeps its answers")
    parser.add_argument("--keep", type=float, default=2.0, help="weight of those answers; all exits together have 1")
    parser.add_argument("--epochs", type=int, help="each over one copy of the images (default: two for each copy, at least 20)")
    parser.add_argument("--tune-epochs", type=int, default=12, help="over images, with --fine-tune")
    parser.add_argument("--copies", type=int, help="altered copies of each image (default: 200,000 in all, 4 to 24 of each)")
    parser.add_argument("--exits", type=int, help="exits at most (default: 12; 8 if fewer than 16,000 images teach them)")
    parser.add_argument("--exit-cost", type=float, default=0.001, help="largest cost of an exit, as a share of the whole")
    parser.add_argument("--max-disagreement", type=float, default=0.01, help="for the thresholds in the file")
    parser.add_argument("--max-images", type=int, help="use so many of the images only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args(arguments)


def fill_in(options: argparse.Namespace, images: int) -> None:
    """Sets what was not given by the number of images: the fewer there are, the more often each is altered."""
    least, most = COPIES
    options.copies = options.copies or min(most, max(least, TAUGHT // images))
    options.epochs = options.epochs or max(MIN_EPOCHS, 2 * options.copies)
    options.exits = options.exits or (FEW_EXITS if images < FEW_IMAGES else EXITS)


class Adaptation(TrainedNetwork):
    """One network, its images and its exits."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options.model, options.data, options.max_images, options.seed, options.threads)
        self.options = options
        self.work = options.work or ROOT / ".cache/adapt" / self.sha256[:12]
        fill_in(options, len(self.files))
        chosen = {name: getattr(options, name) for name in ("seed", "copies", "exits", "exit_cost", "epochs")}
        self.points = self.find_points()
        chosen["points"] = [point.tensor for point in self.points]
        remember(self.work, {"model": self.sha256, "images": self.images_sha256, **chosen})
        self.read(self.work / "images.npy")
        self.check_rebuilt()
        self.library = Library(
            self.work, self.network, self.points, self.classifier, self.images, self.preprocessing, options.seed,
            self.minds_no_mirror(),
        )  # fmt: skip

    def find_points(self) -> list[ExitPoint]:
        """Where exits can be: behind residual blocks whose output is a map of the graph."""
        blocks = self.report["blocks"]
        image = torch.zeros(1, self.channels, *self.side)
        tensors = [block["output"] for block in blocks if block["output"] in self.network.producers]
        values = self.network(image, tensors) if tensors else {}
        self.multiply_adds, until = count_work(self.network, image, tensors)
        fit = [
            ExitPoint(block["name"], block["output"], tuple(values[block["output"]].shape[1:]), until[block["output"]])
            for block in blocks
            if block["output"] in values and values[block["output"]].ndim == 4
        ]
        tail = self.find_tail(blocks[-1]["name"], tensors[-1]) if tensors else None
        if tail:
            # The engine takes one exit behind each block.
            fit = [point for point in fit if point.block != tail.block]
            points = [*choose_points(fit, self.options.exits - 1), tail]
        else:
            points = choose_points(fit, self.options.exits)
        if not points:
            raise ValueError(f"{self.file} has no residual block behind which an exit would save work")
        return points

    def find_tail(self, block: str, tensor: str) -> TailPoint | None:
        """The point of the tail exit, if the network has one that would save work. `tensor` is the output of the last block."""
        image = torch.zeros(1, self.channels, *self.side)
        values = self.network(image, [name for node in self.network.nodes for name in node.outputs])
        found = find_tail(self.network, self.classifier, tensor, values)
        if not found:
            return None
        done = count_work(self.network, image, [found])[1][found]
        point = TailPoint(block, found, tuple(values[found].shape[1:]), done)
        saving = 1 - done - self.new_tail(point).work / self.multiply_adds
        return point if saving >= MIN_SAVING else None

    def new_tail(self, point: TailPoint) -> Tail:
        model = tail_model(self.model, self.network, self.classifier, point)
        work, _ = count_work(OnnxNetwork(model), torch.zeros(1, *point.coarse), [])
        weight = self.classifier.weight
        return Tail(point, model, self.classifier, work + (0 if weight is None else weight.numel()))

    def check_written(self, file: Path) -> None:
        """That a file with exits alone answers as the original does, at full depth."""
        images = self.some_images().numpy()
        answers = [engine.run(model, images, "full").values.tobytes() for model in (self.file, file)]
        if answers[0] != answers[1]:
            raise ValueError(f"{file} does not answer as {self.file} does at full depth; please report this")

    def new_exits(self) -> Exits:
        torch.manual_seed(self.options.seed)
        heads, tail = self.points, None
        if isinstance(heads[-1], TailPoint):
            heads, tail = heads[:-1], self.new_tail(heads[-1])
        return Exits(heads, self.classifier, self.classes, self.options.exit_cost * self.multiply_adds, tail)

    def teach_exits(self) -> Exits:
        """With the network frozen."""
        self.check = self.library.made("validation", self.held_out, lambda pixels: pixels.float())
        self.classes = self.check.logits.shape[1]
        first = self.library.copy(0, self.train)
        self.spread = torch.from_numpy(np.asarray(first.features[:4096], np.float32)).var(0).clamp(min=1e-6)
        exits = self.new_exits()
        options = self.options
        size, rate = (SMALL_BATCH, SMALL_BATCH_RATE) if len(self.train) < FEW_IMAGES else (BATCH, HEADS_RATE)

        def batches(epoch: int) -> tuple[int, Iterator]:
            seen = self.library.copy(epoch % options.copies, self.train)
            order = torch.randperm(len(seen), generator=seeded(options.seed, "order", epoch)).split(size)
            return len(order), ((seen.rows(rows.sort()[0]),) for rows in order if len(rows) > 1)

        def loss(seen: Seen) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
                answers = exits(seen.summaries)
            return exits_loss(answers, seen.features, seen.logits, self.spread)

        groups = exit_groups(exits, rate)
        training = Training("exits", exits, groups, options.epochs, self.work / "exits.pt", options.seed)
        return training.run(batches, loss, lambda average: self.evaluate(average, self.check))

    def fine_tune(self, exits: Exits) -> tuple[OnnxNetwork, Exits]:
        options = self.options
        student = copy.deepcopy(self.network).requires_grad_(True)
        both = nn.ModuleDict({"network": student, "exits": exits.requires_grad_(True)})
        kept = [point.tensor for point in self.points]

        def batches(epoch: int) -> tuple[int, Iterator]:
            generator = seeded(options.seed, "tune", epoch)
            order = self.train[torch.randperm(len(self.train), generator=generator)].split(TUNE_BATCH)

            def made() -> Iterator:
                for rows in order:
                    changed = altered(pixels_of(self.images, rows.sort()[0]), self.library.mirror, generator)
                    half = mixed(changed, MIXED / 2, generator)
                    yield (self.preprocessing.normalize(half),)

            return len(order), made()

        def loss(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
                with torch.no_grad():
                    original = observe(self.network, [], self.classifier, images)
                own = observe(student, self.points, self.classifier, images)
                answers = exits(own.summaries)
            full = -(original.logits.softmax(1) * own.logits.log_softmax(1)).sum(1).mean()
            drift = ((own.features - original.features) ** 2 / self.spread).mean()
            early = exits_loss(answers, original.features, original.logits, self.spread) / len(kept)
            return options.keep * (full + drift) + early

        groups = [(decayed(student.parameters(), TRUNK_DECAY), TRUNK_RATE), *exit_groups(exits, HEADS_RATE / 2)]
        name = f"tuned-{options.tune_epochs}-{options.keep}.pt"
        training = Training("tuning", both, groups, options.tune_epochs, self.work / name, options.seed)
        tuned = training.run(batches, loss, self.evaluate_tuned)
        return tuned["network"], tuned["exits"]

    @torch.no_grad()
    def seen_by(self, network: OnnxNetwork) -> Seen:
        """The validation images through a fine-tuned network, with the original's answers."""
        parts = []
        for rows in torch.arange(len(self.held_out)).split(250):
            images = self.preprocessing.normalize(pixels_of(self.images, self.held_out[rows]))
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
                parts.append(observe(network, self.points, self.classifier, images))
        own = torch.cat([part.logits for part in parts])
        self.full_changed = (own.argmax(1) != torch.from_numpy(self.check.logits).argmax(1)).float().mean().item()
        summaries = [torch.cat([part.summaries[i] for part in parts]).numpy() for i in range(len(self.points))]
        return Seen(summaries, self.check.features, self.check.logits)

    def evaluate_tuned(self, both: nn.ModuleDict) -> tuple[float, str]:
        saved, text = self.evaluate(both["exits"], self.seen_by(both["network"]))
        return saved, f"{text}; in full {self.full_changed:.2%} changed"

    def outcome(self, exits: Exits, seen: Seen) -> tuple[Outcome, torch.Tensor]:
        scores, agrees = ask(exits, seen)
        best = choose_thresholds(exits, scores, agrees, self.multiply_adds, self.options.max_disagreement)
        return best, agrees.float().mean(1)

    def evaluate(self, exits: Exits, seen: Seen) -> tuple[float, str]:
        """What the exits save on the held-out images, and a description."""
        best, agreement = self.outcome(exits, seen)
        shares = " ".join(f"{share:.1%}" for share in agreement.tolist())
        return best.saved, f"exits agree on {shares}; {best.saved:.1%} saved with {best.changed:.2%} changed"


def exit_groups(exits: Exits, rate: float) -> list[tuple[list[dict], float]]:
    """Groups of parameters with their rates: a tail begins with trained weights, and learns more slowly."""
    tail = exits.tail.parameters() if exits.tail else []
    heads = [weight for exit_ in exits if exit_ is not exits.tail for weight in exit_.parameters()]
    return [(decayed(heads, HEADS_DECAY), rate), (decayed(tail, TAIL_DECAY), TAIL_RATE)]


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    adaptation = Adaptation(options)
    exits = adaptation.teach_exits()
    network, seen = None, adaptation.check
    if options.fine_tune:
        network, exits = adaptation.fine_tune(exits)
        seen = adaptation.seen_by(network)
    outcome, agreement = adaptation.outcome(exits, seen)
    out = options.out or Path(f"{adaptation.name}-{'tuned' if options.fine_tune else 'exits'}")
    write_adapted(out, adaptation, network, exits, outcome, agreement)
    if network is None:
        adaptation.check_written(out / "model.onnx")
    print(f"wrote {out}: {adaptation.evaluate(exits, seen)[1]}")


if __name__ == "__main__":
    main()
