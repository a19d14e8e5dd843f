"""What all stages share: seeded, resumable epochs, the learning rate's course, and accuracy."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from adapt.common import decayed, save_atomically, seeded
from data import Dataset, Split, augment, normalize
from network import ResNet
from progress import progress, report

Step = Callable[[torch.Tensor, torch.Tensor, int, int], torch.Tensor]
Rate = Callable[[float], float]

WEIGHT_DECAY = 5e-4


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
    """SGD with Nesterov momentum."""
    return torch.optim.SGD(decayed(parameters, WEIGHT_DECAY), lr=0.1, momentum=0.9, nesterov=True)


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonal matrices for a network's convolutions (Jordan et al. 2024, Muon), and SGD's for all
    other parameters.

    A kernel counts as a matrix with a row for each output. It is scaled to rows of norm 1, in the mean, before each step:
    the normalisation behind it undoes its scale.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        parameters = list(parameters)
        kernels = {"params": [p for p in parameters if p.ndim == 4], "momentum": 0.8, "weight_decay": 0.0, "orthogonal": True}
        others = decayed((p for p in parameters if p.ndim != 4), WEIGHT_DECAY)
        super().__init__([kernels, *others], {"lr": 0.1, "momentum": 0.9, "orthogonal": False})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in (one for one in group["params"] if one.grad is not None):
                gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                buffer = state["momentum_buffer"] = state["momentum_buffer"] if state else torch.zeros_like(gradient)
                buffer.mul_(group["momentum"]).add_(gradient)
                change = gradient.add_(buffer, alpha=group["momentum"])
                if group["orthogonal"]:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    change = orthogonal(change.flatten(1)).view_as(change)
                parameter.sub_(group["lr"] * change)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest matrix whose singular values are all 1: five Newton-Schulz steps of order 5, with the coefficients of
    Jordan et al. (2024), which leave singular values between 0.7 and 1.2.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = (wide / (wide.norm() + 1e-7)).bfloat16()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * (square @ square) - 4.775 * square) @ x
    return (x if wide is matrix else x.T).float()


class Stage:
    """Some epochs with one loss; each epoch ends in a checkpoint.

    `loss(images, labels, step, steps)` gets a normalised batch; each optimizer comes with its learning rate's course,
    a function of the stage's progress from 0 to 1.
    """

    def __init__(self, name: str, network: ResNet, optimizers: list[tuple[torch.optim.Optimizer, Rate]], loss: Step,
                 epochs: int, checkpoint: Path):  # fmt: skip
        self.name, self.network, self.optimizers, self.loss = name, network, optimizers, loss
        self.epochs, self.checkpoint = epochs, checkpoint

    def load(self) -> int:
        """Restores the checkpoint, if there is one; returns how many epochs are done."""
        if not self.checkpoint.exists():
            return 0
        saved = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(saved["network"])
        for (optimizer, _), state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return saved["epoch"]

    def run(self, dataset: Dataset, train: Split, monitor: Callable[[], str], batch: int, seed: int) -> None:
        first = self.load()
        steps = len(train) // batch
        for epoch in range(first, self.epochs):
            generator = seeded(seed, self.name, epoch)
            torch.manual_seed(generator.initial_seed())
            order = torch.randperm(len(train), generator=generator)
            start, losses = time.monotonic(), []
            self.network.train()
            for index in progress(range(steps), f"{self.name} {epoch + 1}/{self.epochs}"):
                picked = order[index * batch : (index + 1) * batch]
                images = normalize(dataset, augment(dataset, train.images[picked], generator))
                done = epoch * steps + index
                for optimizer, rate in self.optimizers:
                    optimizer.zero_grad(set_to_none=True)
                    for group in optimizer.param_groups:
                        group["lr"] = rate((done + 0.5) / (self.epochs * steps))
                with torch.autocast("cpu", torch.bfloat16):
                    loss = self.loss(images, train.labels[picked], done, self.epochs * steps)
                loss.backward()
                for optimizer, _ in self.optimizers:
                    optimizer.step()
                losses.append(loss.detach())
            seconds = time.monotonic() - start
            mean = torch.stack(losses).mean().item()
            report(f"{self.name} {epoch + 1}/{self.epochs}: loss {mean:.4f}, {seconds:.0f} s, {monitor()}")
            save_atomically(
                {
                    "network": self.network.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
                    "epoch": epoch + 1,
                },
                self.checkpoint,
            )


def smoothed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.float(), labels, label_smoothing=0.1)


@torch.no_grad()
def predict(network: ResNet, dataset: Dataset, split: Split, kept=None, bf16: bool = True):
    """Logits [N, classes] and scores [N, gates] of a whole split, in evaluation mode."""
    network.eval()
    logits, scores = [], []
    for images in split.images.split(250):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            batch_logits, batch_scores = network.run(normalize(dataset, images), kept)
        logits.append(batch_logits.float())
        scores.append(torch.cat(batch_scores, 1) if batch_scores else torch.zeros(len(images), 0))
    return torch.cat(logits), torch.cat(scores)


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()
