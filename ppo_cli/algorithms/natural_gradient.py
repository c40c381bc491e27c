"""Linear algebra of the natural gradient, over flat vectors: it knows nothing of policies.

Products with a Hessian come from two backward passes, so that it is never stored; conjugate gradient solves F x = b
with such products only; the line search walks back along a direction until a step is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v [P] -> F v [P], F symmetric and positive definite."""


def hessian_product(scalar: Tensor, parameters: Sequence[Tensor], *, damping: float) -> Product:
    """The map v -> (H + damping I) v, H the Hessian of ``scalar``: the gradient of (gradient . v) (Pearlmutter 1994).

    Of the mean KL from a policy to itself, H is the Fisher matrix. Memory is that of one graph, whatever P is.
    """
    gradient = flatten(torch.autograd.grad(scalar, parameters, create_graph=True))

    def product(v: Tensor) -> Tensor:
        rows = torch.autograd.grad(gradient.dot(v), parameters, retain_graph=True, materialize_grads=True)
        return flatten(rows) + damping * v

    return product


class Solution(NamedTuple):
    """Of F x = b."""

    x: Tensor  # [P]
    residual: Tensor  # 0-d, |b - F x| / |b|


def conjugate_gradient(product: Product, b: Tensor, *, num_iterations: int, tolerance: float = 1e-5) -> Solution:
    """Solve F x = b from x = 0 (Hestenes and Stiefel 1952); ``b`` [P]. Stops early at a residual of ``tolerance``."""
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    squared = start = residual.dot(residual)
    for _ in range(num_iterations):
        if squared <= tolerance**2 * start:
            break
        image = product(direction)
        step = squared / direction.dot(image)
        x = x + step * direction
        residual = residual - step * image
        squared, previous = residual.dot(residual), squared
        direction = residual + (squared / previous) * direction
    return Solution(x, (squared / start.clamp(min=torch.finfo(b.dtype).tiny)).sqrt())


class Search(NamedTuple):
    """What a line search found."""

    accepted: bool
    num_steps: int  # candidates tried


def backtracking(accepts: Callable[[float], bool], *, num_steps: int, shrink: float) -> Search:
    """Offer the scales 1, shrink, shrink^2, ... of a step until one is accepted, at most ``num_steps`` of them."""
    for number in range(num_steps):
        if accepts(shrink**number):
            return Search(True, number + 1)
    return Search(False, num_steps)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One vector [P] of all elements, in order."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@torch.no_grad()
def write_flat(parameters: Sequence[Tensor], values: Tensor) -> None:
    """Copy a vector [P] into the parameters, in place: they stay those that the optimizer knows."""
    parts = torch.split(values, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.copy_(part.view_as(parameter))
