#!/usr/bin/env python3
"""Trains all networks of the protocol, one after another; see README.md. The same command continues where it was stopped, and
several processes share the work.
"""

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

# Threads that wait without spinning lose little on a free machine and save most of a busy one; read by libgomp once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Large pages for large tensors take up to a tenth off a step; read by PyTorch once.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent))

import images  # noqa: E402
import text  # noqa: E402
from adapt import onnx_network  # noqa: E402
from adapt.common import distance, keep_freed_memory, save_atomically, seeded  # noqa: E402
from data import Split, write_json  # noqa: E402
from early_exits import RAMP, EarlyExits, exit_loss, one_threshold  # noqa: E402
from encoder import MaskedWords  # noqa: E402
from export import check_onnx, export_onnx, two_per_class  # noqa: E402
from gating import gates_loss, teach_gates  # noqa: E402
from learning import Training  # noqa: E402
from network import ResNet  # noqa: E402
from optimizers import Muon  # noqa: E402
from plan import PLAN, SMOKE, Run, runs  # noqa: E402
from progress import report  # noqa: E402

Teacher = Callable[[torch.Tensor], torch.Tensor]
# At which answers of a teacher and its student are compared (Hinton et al. 2015).
TEMPERATURE = 2.0
# Validation accuracy is measured after every so many epochs, and after the last.
CHECK = 5


def parse() -> argparse.Namespace:
    cache = Path.home() / ".cache" / "residual-skip"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="runs whose names begin like this, cifar10/twin say; all without")
    parser.add_argument("--data", type=Path, default=Path(".cache/data"), help="folder of the data sets")
    parser.add_argument("--to", type=Path, default=cache / "training", help="checkpoints and results")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="small networks, two epochs, a part of the digits")
    parser.add_argument("--status", action="store_true", help="only say how far each run is")
    return parser.parse_args()


def kind_of(run: Run) -> ModuleType:
    """What depends on whether the run's data set holds images or texts."""
    return text if run.dataset in text.DATASETS else images


def build(run: Run) -> nn.Module:
    """The start depends on the seed alone: the trunk of a network with exits or gates begins as its twin."""
    torch.manual_seed(run.seed)
    kind, dataset = kind_of(run), kind_of(run).DATASETS[run.dataset]
    network = kind.network(dataset, run.recipe, run.shape, "twin")
    if run.role in ("gated", "gates"):
        plain, network = network, kind.network(dataset, run.recipe, run.shape, run.role)
        network.load_state_dict(plain.state_dict(), strict=False)
    return network.to(memory_format=torch.channels_last)


def gates_of(network: nn.Module) -> nn.ModuleList | list:
    return network.gates if isinstance(network, ResNet) else []


def loss_of(
    network: nn.Module, batch: torch.Tensor, labels: torch.Tensor, done: float, smoothing: float = 0.0, teacher: Teacher | None = None
) -> torch.Tensor:
    if isinstance(network, EarlyExits):
        return exit_loss(network.answers(batch, gradient=min(1.0, done / RAMP)), labels, smoothing)
    if gates_of(network):
        return gates_loss(network, batch, labels)
    if teacher:
        return distance(network(batch).float(), teacher(batch), TEMPERATURE)
    return F.cross_entropy(network(batch).float(), labels, label_smoothing=smoothing)


def twin_of(run: Run, folder: Path) -> Teacher:
    """Logits of the trained twin of the run's seed, from its model.onnx."""
    file = folder.with_name(f"twin-seed{run.seed}") / "model.onnx"
    if not file.exists():
        raise ValueError(f"{run.name} learns from {file}, which isn't there: train {run.dataset}/twin-seed{run.seed} first")
    _, twin = onnx_network.load(file)
    twin.eval().requires_grad_(False)

    @torch.no_grad()
    def logits(batch: torch.Tensor) -> torch.Tensor:
        return twin(batch, [twin.output])[twin.output].float()

    return logits


def answers_of(network: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    """Logits [N, classes] of each exit, or with the gates' decisions; last, of the whole network."""
    if isinstance(network, EarlyExits):
        return network.answers(batch)
    if gates_of(network):
        return [network(batch), network.run(batch, [True] * len(network.blocks))[0]]
    return [network(batch)]


@torch.no_grad()
def answers(network: nn.Module, run: Run, split: Split, bf16: bool = True) -> torch.Tensor:
    """Logits [answers, N, classes] of a whole split, as `answers_of` gives them."""
    network.eval()
    parts = []
    for batch in split.images.split(250):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            given = answers_of(network, kind_of(run).inputs(kind_of(run).DATASETS[run.dataset], batch))
        parts.append(torch.stack([answer.float() for answer in given]))
    return torch.cat(parts, 1)


def rightness(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Accuracy of each answer."""
    right = logits.argmax(2) == labels
    return [round(share, 4) for share in right.float().mean(1).tolist()]


def pretrain(network: nn.Module, run: Run, folder: Path, train_part: Split) -> None:
    """The encoder learns to fill in words that are blanked in whole texts; no label is used."""
    recipe, dataset = run.recipe, text.DATASETS[run.dataset]
    torch.manual_seed(run.seed)  # The gated network's trunk stays its twin's.
    masked = MaskedWords(network)
    folder.mkdir(exist_ok=True)

    def batch(picked, epoch, generator):
        ids = train_part.images[picked]
        blanked = text.augmented(dataset, ids, dataset.size, recipe.cutout, generator)
        return blanked, ids[:, : blanked.shape[1]]

    def loss(masked, blanked, ids, done):
        asked = blanked != ids
        return F.cross_entropy(masked(blanked, asked).float(), ids[asked])

    sizes = len(train_part), recipe.pretraining, recipe.batch
    training = Training(masked, text.optimizer(masked.parameters()), *sizes, 2 * recipe.peak_rate, run.seed, folder, batch, loss)
    training.run(lambda epochs: {})


def train(run: Run, folder: Path, train_part: Split, validation: Split) -> None:
    kind, dataset = kind_of(run), kind_of(run).DATASETS[run.dataset]
    recipe, network = run.recipe, build(run)
    seen = kind.resized(validation, dataset.size)
    # Those that are mirrored in the first epoch, the third, and so on; in the others, the rest are (Jordan 2024, alternating flip).
    first = torch.rand(len(train_part), generator=seeded(run.seed, "mirrored", 0)) < 0.5

    def batch(picked, epoch, generator):
        whole = train_part.images[picked]
        more = {"strong": True} if recipe.strong else {}
        if recipe.fast:
            more["mirrored"] = first[picked] ^ bool(epoch % 2)
        # The twin knows whole images.
        side = dataset.size if run.taught else recipe.side(epoch, dataset.size)
        made = kind.augmented(dataset, whole, side, recipe.cutout, generator, **more)
        return made, train_part.labels[picked]

    def check(epochs: int) -> dict:
        if epochs > recipe.epochs or (epochs % CHECK and epochs < recipe.epochs):
            return {}
        return {"validation": rightness(answers(network, run, seen), seen.labels)}

    if run.pretraining:
        pretrain(network, run, folder / "pretraining", train_part)
    if recipe.fast and not recipe.large:
        network.whiten(kind.inputs(dataset, train_part.images[:: max(1, len(train_part) // 2000)]))
    optimizer = (Muon if recipe.fast else kind.optimizer)(network.parameters())
    sizes = len(train_part), recipe.epochs, recipe.batch
    teacher = twin_of(run, folder) if run.taught else None
    loss = partial(loss_of, smoothing=recipe.smoothing, teacher=teacher)
    training = Training(network, optimizer, *sizes, recipe.peak_rate, run.seed, folder, batch, loss, recipe.averaged)
    training.run(check)
    if gates_of(network):
        finish_gates(network, run, train_part)
    save_atomically(network.state_dict(), folder / "network.pt")
    logits = answers(network, run, seen, bf16=False)
    total = network.costs(dataset.size)[0]
    result = {"pretraining": run.pretraining, "epochs": recipe.total, "multiplyAdds": total, "validation": rightness(logits, seen.labels)}
    if isinstance(network, EarlyExits):
        costs = [cost / total for cost in network.exit_costs(dataset.size)]
        result["oneThreshold"] = one_threshold(logits, seen.labels, costs)
    if gates_of(network):
        result["bypassed"] = bypassed(network, dataset, seen)
    deploy(network, run, folder, seen)
    kind.write_configurations(dataset, folder, folder.parents[1] / "data")
    write_json(folder / "result.json", result)
    for checkpoint in folder.rglob(training.checkpoint.name):
        checkpoint.unlink()


def finish_gates(network: ResNet, run: Run, train_part: Split) -> None:
    """Teaches the gates of a network that has learned to answer early."""
    dataset, targets, generator = images.DATASETS[run.dataset], run.recipe.gates, seeded(run.seed, "gates", 0)
    orders = [torch.randperm(len(train_part), generator=generator) for _ in range(targets.passes)]
    batches = (
        images.augmented(dataset, train_part.images[picked], dataset.size, 0.0, generator)
        for order in orders
        for picked in order.split(250)
    )
    losses = teach_gates(network, batches, targets, generator)
    report(f"{run.name}: losses of the gates {' '.join(f'{loss:.3f}' for loss in losses)}")


@torch.no_grad()
def bypassed(network: ResNet, dataset: images.Dataset, split: Split) -> float:
    """The mean share of multiply-adds that closed gates leave out."""
    total, blocks = network.costs(dataset.size)
    costs = torch.tensor([blocks[index] for index in network.identity_blocks], dtype=torch.float64)
    scores = [torch.cat(network.run(images.inputs(dataset, batch))[1], 1) for batch in split.images.split(250)]
    return round(((torch.cat(scores) <= 0).double() @ costs).mean().item() / total, 4)


@torch.no_grad()
def deploy(network: nn.Module, run: Run, folder: Path, validation: Split) -> None:
    """Writes model.onnx, and in reference.json PyTorch's logits of two validation items of each class, with the gates' scores and
    decisions, for the engine to be compared with.
    """
    kind, dataset = kind_of(run), kind_of(run).DATASETS[run.dataset]
    for exit_ in getattr(network, "exits", []):
        exit_.fold()
        exit_.round()
    for gate in gates_of(network):
        gate.fold()
    few = validation.take(torch.tensor(two_per_class(validation, len(dataset.labels))))
    feeds = kind.feeds(dataset, few.images)
    export_onnx(network.eval(), feeds, folder / "model.onnx")
    logits = network(*feeds.values())
    check_onnx(folder / "model.onnx", {name: value[:4] for name, value in feeds.items()}, logits[:4])
    items = [
        {kind.NAMED: name, "label": label, "full": answer}
        for name, label, answer in zip(few.names, few.labels.tolist(), logits.tolist(), strict=True)
    ]
    if gates_of(network):
        scores = torch.cat(network.run(feeds["input"])[1], 1)
        for item, full, own in zip(items, answers_of(network, feeds["input"])[-1].tolist(), scores.tolist(), strict=True):
            decisions = network.per_block([int(score > 0) for score in own])
            item |= {"full": full, "gated": item["full"], "scores": network.per_block(own), "decisions": decisions}
    write_json(folder / "reference.json", {"items": items})


def entry(run: Run) -> dict:
    """A run as plan.json lists it, for those who read the results."""
    depths, widths = run.shape
    return {"name": run.name, "dataset": run.dataset, "role": run.role, "seed": run.seed, "depths": depths, "widths": widths}


def so_far(folder: Path) -> tuple[list[dict], dict]:
    """The lines of a training's log, and the state of its checkpoint."""
    log, checkpoint = folder / "log.jsonl", folder / "checkpoint.pt"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    state = torch.load(checkpoint, weights_only=True)["state"] if checkpoint.exists() else {"step": 0, "seconds": 0.0, "cpu": 0.0}
    return lines, state


def status(run: Run, folder: Path) -> str:
    stages = [so_far(folder / "pretraining"), so_far(folder)]
    lines = [line for logged, _ in stages for line in logged]
    accuracy = next((f", validation accuracy {line['validation'][-1]}" for line in reversed(lines) if "validation" in line), "")
    states = [state for _, state in stages]
    wall, cpu = (sum(part[key] for part in (*lines, *states)) for key in ("seconds", "cpu"))
    steps = sum(state["step"] for state in states)
    epochs = f"{len(lines)} epochs of {run.pretraining + run.recipe.total}, {steps} steps"
    done = "finished" if (folder / "result.json").exists() else epochs
    return f"{run.name}: {done}, {wall:.0f} s, {cpu:.0f} CPU s{accuracy}"


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[bool]:
    """Holds the folder's lock against other processes; gives False, without `wait`, where another one has it."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def load(run: Run, options: argparse.Namespace) -> tuple[Split, Split]:
    """Training and validation part of the run's data set; the latter is also written as residual-skip reads it."""
    kind, dataset = kind_of(run), kind_of(run).DATASETS[run.dataset]
    source, cache = options.data / run.dataset, options.to / "data"
    train_part, validation = kind.load(dataset, source, cache)
    kind.write_validation(dataset, source, validation, cache / f"{run.dataset}-validation")
    return (train_part.take(torch.arange(2000)) if options.smoke else train_part), validation


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    planned = runs(SMOKE if options.smoke else PLAN)
    chosen = [run for run in planned if not options.only or any(run.name.startswith(name) for name in options.only)]
    if options.status:
        for run in chosen:
            report(status(run, options.to / run.name))
        return
    options.to.mkdir(parents=True, exist_ok=True)
    loaded = {}
    for run in chosen:
        folder = options.to / run.name
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=False) as free:
            if not free or (folder / "result.json").exists():
                continue
            if run.dataset not in loaded:
                with locked(options.to, wait=True):
                    write_json(options.to / "plan.json", [entry(each) for each in planned])
                    loaded = {run.dataset: load(run, options)}
            try:
                train(run, folder, *loaded[run.dataset])
            except FloatingPointError as error:
                report(f"{run.name} failed: {error}")


if __name__ == "__main__":
    main()
