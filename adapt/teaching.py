"""What teaches exits: the network's own answers on altered copies of images, with the network frozen or fine-tuned."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common import save_atomically, seeded
from exits import Classifier, ExitPoint, Exits
from onnx_network import OnnxNetwork
from unlabelled import Preprocessing, altered, mixed, pixels_of

BATCH, TUNE_BATCH = 256, 128
# Weight of the features beside that of the answers, and of an image that the exit before is sure of.
FEATURES, EASY = 0.5, 0.3
# Of every second copy so many images are mixed with another.
MIXED = 0.7
# Thresholds that are tried, evenly over the exits' scores.
THRESHOLDS = 400
# No score reaches this threshold.
NEVER = 2.0
# The average of the weights reaches back over so large a part of the steps.
AVERAGED = 0.05


@dataclass
class Seen:
    """What the network makes of some images: the summary at each point, penultimate features and logits."""

    summaries: list[np.ndarray | torch.Tensor]
    features: np.ndarray | torch.Tensor
    logits: np.ndarray | torch.Tensor

    def rows(self, rows: torch.Tensor) -> "Seen":
        def take(array):
            return torch.from_numpy(array[rows.numpy()]).float()

        return Seen([take(array) for array in self.summaries], take(self.features), take(self.logits))

    def __len__(self) -> int:
        return len(self.logits)


@cache
def fast_bf16() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 in hardware."""
    file = Path("/proc/cpuinfo")
    flags = set(file.read_text().split()) if file.exists() else set()
    return not flags.isdisjoint({"amx_bf16", "avx512_bf16"})


def observe(network: OnnxNetwork, points: list[ExitPoint], classifier: Classifier, images: torch.Tensor) -> Seen:
    names = [point.tensor for point in points] + [classifier.features, classifier.logits]
    values = network(images, names)
    summaries = [point.summary(values[point.tensor]).float() for point in points]
    return Seen(summaries, values[classifier.features].float().flatten(1), values[classifier.logits].float().flatten(1))


class Library:
    """Files of what the network makes of copies of the images, each made once.

    Copy k of the training images is altered, every second one mixed as well; validation images are as they are.
    """

    def __init__(self, folder: Path, network: OnnxNetwork, points: list[ExitPoint], classifier: Classifier,
                 images: np.ndarray, preprocessing: Preprocessing, seed: int, mirror: bool):  # fmt: skip
        self.folder, self.network, self.points, self.classifier = folder, network, points, classifier
        self.images, self.preprocessing, self.seed, self.mirror = images, preprocessing, seed, mirror

    def copy(self, number: int, rows: torch.Tensor) -> Seen:
        generator = seeded(self.seed, "copy", number)

        def change(pixels: torch.Tensor) -> torch.Tensor:
            changed = altered(pixels, self.mirror, generator)
            return mixed(changed, MIXED, generator) if number % 2 else changed

        return self.made(f"copy-{number}", rows, change)

    def made(self, name: str, rows: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> Seen:
        folder = self.folder / name
        if not folder.exists():
            partial = self.folder / f"{name}.partial"
            partial.mkdir(parents=True, exist_ok=True)
            self.write(partial, name, rows, change)
            partial.rename(folder)
        summaries = [np.load(folder / f"seen-{i}.npy", mmap_mode="r") for i in range(len(self.points))]
        return Seen(summaries, np.load(folder / "features.npy", mmap_mode="r"), np.load(folder / "logits.npy"))

    @torch.no_grad()
    def write(self, folder: Path, name: str, rows: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        files: list[np.memmap] = []
        done = 0
        for picked in tqdm(rows.split(64), f"running the network, {name}", unit_scale=64, unit="image", disable=None):
            pixels = self.preprocessing.normalize(change(pixels_of(self.images, picked)))
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
                seen = observe(self.network, self.points, self.classifier, pixels)
            values = [*seen.summaries, seen.features, seen.logits]
            if not files:
                names = [*(f"seen-{i}" for i in range(len(seen.summaries))), "features", "logits"]
                for part, value in zip(names, values, strict=True):
                    dtype = np.float32 if part == "logits" else np.float16
                    shape = (len(rows), *value.shape[1:])
                    files.append(np.lib.format.open_memmap(folder / f"{part}.npy", "w+", dtype, shape))
            for file, value in zip(files, values, strict=True):
                limit = torch.finfo(torch.float16).max
                file[done : done + len(picked)] = value.clamp(-limit, limit).numpy()
            done += len(picked)
        for file in files:
            file.flush()


def exits_loss(answers, features: torch.Tensor, logits: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """The exits' loss against the network's features and logits; `spread` is the features' variance.

    An image counts less where the exit before has its answer already.
    """
    target = logits.softmax(1)
    total = torch.zeros(())
    weight = torch.ones(len(logits))
    for own_features, own_logits in answers:
        own_features, own_logits = own_features.float(), own_logits.float()
        loss = -(target * own_logits.log_softmax(1)).sum(1)
        loss = loss + FEATURES * ((own_features - features) ** 2 / spread).mean(1)
        total = total + (weight * loss).mean() / weight.mean()
        weight = 1 - (1 - EASY) * own_logits.detach().softmax(1).amax(1)
    return total


class Training:
    """Epochs that resume where they were interrupted. The average of the weights over the last steps is evaluated after each
    epoch, and that of the best epoch is kept: exits that have seen a copy of an image often become too sure of others.
    """

    def __init__(self, name: str, module: nn.Module, groups: list[tuple[list[dict], float]], epochs: int, file: Path,
                 seed: int):  # fmt: skip
        self.name, self.module, self.epochs, self.file, self.seed = name, module, epochs, file, seed
        self.average = copy.deepcopy(module).requires_grad_(False)
        self.best, self.score = copy.deepcopy(self.average), -math.inf
        self.peaks = [peak for parameters, peak in groups for _ in parameters]
        self.optimizer = torch.optim.AdamW([group for parameters, _ in groups for group in parameters])

    def run(self, batches: Callable[[int], tuple[int, Iterator]], loss: Callable[..., torch.Tensor],
            monitor: Callable[[nn.Module], tuple[float, str]]) -> nn.Module:  # fmt: skip
        """`batches(epoch)` gives their number and themselves; `monitor` how good a module is, and a description.

        Returns the module with the averaged weights of the best epoch.
        """
        first = 0
        if self.file.exists():
            saved = torch.load(self.file, weights_only=True)
            self.module.load_state_dict(saved["module"])
            self.average.load_state_dict(saved["average"])
            self.best.load_state_dict(saved["best"])
            self.score = saved["score"]
            self.optimizer.load_state_dict(saved["optimizer"])
            first = saved["epoch"]
        for epoch in range(first, self.epochs):
            torch.manual_seed(seeded(self.seed, self.name, epoch).initial_seed())
            self.module.train()
            count, made = batches(epoch)
            start, losses = time.monotonic(), []
            for step, batch in enumerate(tqdm(made, f"{self.name} {epoch + 1}/{self.epochs}", total=count, disable=None)):
                self.set_rate((epoch + (step + 0.5) / count) / self.epochs)
                self.optimizer.zero_grad(set_to_none=True)
                value = loss(*batch)
                value.backward()
                nn.utils.clip_grad_norm_(self.module.parameters(), 5.0)
                self.optimizer.step()
                self.update_average(epoch * count + step, self.epochs * count)
                losses.append(value.item())
            self.average.eval()
            seconds = time.monotonic() - start
            mean = sum(losses) / max(1, len(losses))
            score, text = monitor(self.average)
            if score > self.score:
                self.score = score
                self.best.load_state_dict(self.average.state_dict())
            save_atomically(
                {
                    "module": self.module.state_dict(),
                    "average": self.average.state_dict(),
                    "best": self.best.state_dict(),
                    "score": self.score,
                    "optimizer": self.optimizer.state_dict(),
                    "epoch": epoch + 1,
                },
                self.file,
            )
            self.report(epoch, f"loss {mean:.4f}, {seconds:.0f} s, {text}")
        return self.best.eval()

    def report(self, epoch: int, text: str) -> None:
        tqdm.write(f"{self.name} {epoch + 1}/{self.epochs}: {text}")

    def set_rate(self, done: float) -> None:
        """A tenth of the steps up, then down along a cosine."""
        share = done / 0.1 if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share

    @torch.no_grad()
    def update_average(self, step: int, steps: int) -> None:
        kept = min(1 - 1 / max(1.0, AVERAGED * steps), (1 + step) / (10 + step))
        for mean, value in zip(self.average.state_dict().values(), self.module.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - kept)
            else:
                mean.copy_(value)


@torch.no_grad()
def ask(exits: Exits, seen: Seen) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all exits on all rows: the confidence, and whether the answer is the network's; both [exits, rows]."""
    exits.eval()
    scores, agrees = [], []
    for rows in torch.arange(len(seen)).split(500):
        some = seen.rows(rows)
        answers = exits(some.summaries)
        scores.append(torch.stack([exit_.confidence(logits) for exit_, (_, logits) in zip(exits, answers, strict=True)]))
        agrees.append(torch.stack([logits.argmax(1) for _, logits in answers]) == some.logits.argmax(1))
    return torch.cat(scores, 1), torch.cat(agrees, 1)


@dataclass
class Outcome:
    """Thresholds by exit, and what they do."""

    thresholds: list[float]
    saved: float
    changed: float
    leaving: list[float]


def choose_thresholds(exits: Exits, scores: torch.Tensor, agrees: torch.Tensor, work: int, limit: float) -> Outcome:
    """The thresholds that save most while at most `limit` of the answers change: one for the tail exit, one for all others.

    `work` is the network's multiply-adds, which the exits' own are part of.
    """
    end, count = len(exits), scores.shape[1]
    rest = torch.tensor([1 - exit_.point.done for exit_ in exits] + [0.0])
    spent = torch.tensor([exit_.work / work for exit_ in exits]).cumsum(0)
    spent = torch.cat([spent, spent[-1:]])
    right = torch.cat([agrees, torch.ones_like(agrees[:1])])
    heads = end - 1 if exits.tail else end
    best = Outcome([NEVER] * end, 0.0, 0.0, [0.0] * end)
    values = scores[:heads].flatten().sort()[0]
    tried = values[torch.linspace(0, len(values) - 1, THRESHOLDS).long()].tolist() if heads else []
    for threshold in [*tried, NEVER]:
        sure = torch.cat([scores[:heads] >= threshold, torch.ones(1, count, dtype=torch.bool)])
        left = sure.float().argmax(0)
        left[left == heads] = end
        thresholds = [threshold] * heads
        wrong = (~right.gather(0, left[None])).sum().item()
        if exits.tail:
            came = torch.where(left == end, scores[-1], -1.0).sort(descending=True)
            allowed = (left == end)[came.indices] & (wrong + (~agrees[-1][came.indices]).cumsum(0) <= limit * count)
            leave = came.indices[allowed]
            left[leave] = heads
            thresholds.append(scores[-1][leave].min().item() if len(leave) else NEVER)
            wrong = (~right.gather(0, left[None])).sum().item()
        saved = (rest[left] - spent[left]).mean().item()
        if wrong <= limit * count and saved > best.saved:
            shares = torch.bincount(left, minlength=end + 1)[:-1] / count
            best = Outcome(thresholds, saved, wrong / count, shares.tolist())
    return best


def remember(folder: Path, chosen: dict) -> None:
    """Ties a folder of intermediate results to the options that they depend on."""
    file = folder / "settings.json"
    if file.exists() and json.loads(file.read_text()) != chosen:
        raise ValueError(f"{folder} holds work of another network, other data or options; name another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(chosen, indent=1))
    partial.replace(file)
