"""One training of the protocol: it may be killed at any time and goes on where its last checkpoint was written."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from adapt.common import save_atomically, seeded
from progress import progress, report

# Seconds between two checkpoints.
INTERVAL = 240.0
# The part of the schedule in which the learning rate rises.
WARM_UP = 0.15
# While weights are averaged: the learning rate as a share of the peak, and how often an epoch adds to the average. Then: the
# number of training items that give the averaged network its batch statistics.
AVERAGING_RATE, AVERAGINGS, STATISTICS = 0.25, 6, 10_000


def rate(peak: float, done: float) -> float:
    """Linear warm-up and linear fall to zero."""
    return peak * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))


class Training:
    """`batch(picked, epoch, generator)` gives inputs, such as normalised images [N, C, H, W], and labels [N] of the training
    items with the indices `picked`; `loss(network, inputs, labels, done)` is what is to be made small, `done` from 0 to 1 over
    `epochs`, in which the learning rate rises and falls. Then the rate is constant for `averaged` epochs, and the network ends
    with the mean of its weights over these, without the first half epoch (Izmailov et al. 2018, stochastic weight averaging).
    `folder` gets checkpoint.pt and log.jsonl, one line per epoch: mean loss, seconds, and CPU seconds of all threads.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, items: int, epochs: int, size: int, peak: float,
                 seed: int, folder: Path, batch: Callable, loss: Callable, averaged: int = 0,
                 interval: float = INTERVAL):  # fmt: skip
        self.network, self.optimizer, self.items, self.epochs, self.size = network, optimizer, items, epochs, size
        self.peak, self.seed, self.folder = peak, seed, folder
        self.batch, self.loss, self.interval = batch, loss, interval
        self.steps, self.total = items // size, epochs + averaged
        self.average = AveragedModel(network) if averaged else None
        self.state = {"step": 0, "seconds": 0.0, "cpu": 0.0, "loss": 0.0}
        file = self.checkpoint
        if file.exists():
            saved = torch.load(file, weights_only=True)
            network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if "average" in saved:
                self.average.load_state_dict(saved["average"])
            self.state = saved["state"]

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        states = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.average and self.average.n_averaged:
            states["average"] = self.average.state_dict()
        save_atomically(states | {"state": dict(self.state)}, self.checkpoint)

    def step(self, picked: torch.Tensor, epoch: int) -> None:
        done = (self.state["step"] + 0.5) / (self.epochs * self.steps)
        generator = seeded(self.seed, "batch", self.state["step"])
        torch.manual_seed(generator.initial_seed())  # Dropout has no generator of its own.
        inputs, labels = self.batch(picked, epoch, generator)
        if self.state["step"] == self.epochs * self.steps:
            self.optimizer.state.clear()  # Averaging goes on from the weights alone.
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.peak, done) if epoch < self.epochs else AVERAGING_RATE * self.peak
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.loss(self.network, inputs, labels, min(1.0, done))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite in step {self.state['step']}")
        loss.backward()
        self.optimizer.step()
        self.state["loss"] += loss.item()
        self.state["step"] += 1
        averaging = self.state["step"] - self.epochs * self.steps - self.steps // 2
        if averaging > 0 and averaging % max(1, self.steps // AVERAGINGS) == 0:
            self.average.update_parameters(self.network)

    def run(self, check: Callable[[int], dict]) -> None:
        """Trains what is left; `check(epochs done)` adds to the line of an epoch."""
        saved = time.monotonic()
        for epoch in range(self.state["step"] // self.steps, self.total):
            order = torch.randperm(self.items, generator=seeded(self.seed, "order", epoch))
            first = self.state["step"] - epoch * self.steps
            self.network.train()
            for index in progress(range(first, self.steps), f"{self.folder.name} {epoch + 1}/{self.total}"):
                before, cpu = time.monotonic(), time.process_time()
                self.step(order[index * self.size : (index + 1) * self.size], epoch)
                now = time.monotonic()
                self.state["seconds"] += now - before
                self.state["cpu"] += time.process_time() - cpu
                if now - saved > self.interval and index + 1 < self.steps:
                    self.save()
                    saved = now
            self.end_epoch(epoch + 1, check)
            saved = time.monotonic()
        if self.average:
            self.finish()

    def finish(self) -> None:
        """Gives the network the averaged weights, and batch statistics that fit them."""
        self.network.load_state_dict(self.average.module.state_dict())
        picked = torch.randperm(self.items, generator=seeded(self.seed, "statistics", 0))[:STATISTICS].split(self.size)
        batches = (self.batch(some, self.epochs, seeded(self.seed, "statistics", i))[0] for i, some in enumerate(picked))
        update_bn(batches, self.network)

    def end_epoch(self, epochs: int, check: Callable[[int], dict]) -> None:
        line = {
            "epoch": epochs,
            "of": self.total,
            "loss": round(self.state["loss"] / self.steps, 4),
            "seconds": round(self.state["seconds"]),
            "cpu": round(self.state["cpu"]),
            **check(epochs),
        }
        report(f"{self.folder.name}: {json.dumps(line)}")
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        self.state |= {"seconds": 0.0, "cpu": 0.0, "loss": 0.0}
        self.save()
