"""The optimizers of networks for images: SGD, and Muon for their convolutions."""

from collections.abc import Iterable

import torch
from torch import nn

from adapt.common import decayed

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
