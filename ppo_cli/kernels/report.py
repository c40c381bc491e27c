"""What an update tells of itself: sums over each minibatch, and their means."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, vectorized

POLICY_LOSS, VALUE_LOSS, ENTROPY, CLIPFRAC, K1, K3, KL, RATIO_MAX, COUNT, GRAD_NORM, NUM_FIGURES = range(11)
"""Columns of the report, one row for each minibatch."""


@vectorized
def write_report(report: NDArray[np.float64], sums: NDArray[np.float64], count: int, norm: float) -> None:
    """Fill a row of the report from the units' ``sums`` [U, NUM_FIGURES]."""
    for figure in range(NUM_FIGURES):
        total = sums[0, figure]
        for u in range(1, len(sums)):
            total = max(total, sums[u, figure]) if figure == RATIO_MAX else total + sums[u, figure]
        report[figure] = total
    report[COUNT] = count
    report[GRAD_NORM] = norm


@partial(compiled, allocates=True, brief=True)
def averages(report: NDArray[np.float64], per_epoch: int) -> Any:  # noqa: ANN401 (an array and an integer)
    """Means over the minibatches of ``report`` that were looked at, and how many steps were taken.

    The first row [2, NUM_FIGURES] is of all epochs, the second of the last one; NaN where there is nothing to average.
    """
    means = np.zeros((2, NUM_FIGURES))
    seen, steps, last = np.zeros(2), 0, 0
    for row in range(len(report)):
        if not math.isnan(report[row, COUNT]):
            last = row
    for row in range(len(report)):
        if math.isnan(report[row, COUNT]):
            continue
        is_taken = math.isfinite(report[row, GRAD_NORM])
        steps += is_taken
        for part in range(2 if row >= last // per_epoch * per_epoch else 1):
            seen[part] += 1.0
            for figure in range(GRAD_NORM):
                share_of = 1.0 if figure == RATIO_MAX else max(report[row, COUNT], 1.0)
                means[part, figure] += report[row, figure] / share_of
            if is_taken:
                means[part, GRAD_NORM] += report[row, GRAD_NORM]
    for part in range(2):
        for figure in range(GRAD_NORM):
            means[part, figure] /= seen[part]
    means[0, GRAD_NORM] /= steps
    return means, steps
