"""Adam on a part of the parameters, after the gradients of all slices of a minibatch are summed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.linear import Floats

BLOCK = 256

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


class Adam(NamedTuple):
    """Decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), as torch.optim.AdamW."""

    first: Floats  # [P] running mean of the gradient
    second: Floats  # [P] and of its square
    steps_taken: int
    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    max_grad_norm: float


@vectorized
def adam_step(adam: Adam, parameters: Floats, gradient: Floats, first: int, end: int, step: int, scale: float) -> None:
    """Step number ``step`` on parameters[first:end], down ``scale`` times the gradient."""
    beta1, beta2 = np.float32(adam.beta1), np.float32(adam.beta2)
    size = np.float32(adam.learning_rate / (1.0 - adam.beta1**step))
    inverse_root = np.float32(1.0 / math.sqrt(1.0 - adam.beta2**step))
    kept = np.float32(1.0 - adam.learning_rate * adam.weight_decay)
    eps, factor = np.float32(adam.eps), np.float32(scale)
    # loops that start at 0 are vectorized, others are not: their indices might count from the end
    x, g, m, v = parameters[first:end], gradient[first:end], adam.first[first:end], adam.second[first:end]
    for p in range(len(x)):
        slope = g[p] * factor
        mean = beta1 * m[p] + (_ONE - beta1) * slope
        square = beta2 * v[p] + (_ONE - beta2) * slope * slope
        m[p], v[p] = mean, square
        x[p] = kept * x[p] - size * mean / (np.sqrt(square) * inverse_root + eps)


@vectorized
def sum_gradients(gradient: Floats, first: int, end: int) -> Any:  # noqa: ANN401 (a float)
    """Leave the sum over all slices in gradient[0, first:end]; the sum of its squares."""
    total = gradient[0, first:end]
    for s in range(1, len(gradient)):
        part = gradient[s, first:end]
        for p in range(len(total)):
            total[p] += part[p]
    squares = 0.0
    for start in range(0, len(total), BLOCK):  # blocks in float32, their sum in float64
        block = total[start : start + BLOCK]
        square = _ZERO
        for p in range(len(block)):
            square += block[p] * block[p]
        squares += np.float64(square)
    return squares
