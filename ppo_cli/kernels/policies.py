"""Log-probability, entropy and KL of a tile of samples, and what a loss of them asks of the network's outputs.

As `ppo_cli.distributions`, for actions that were taken by an old policy. Samples lie along the last axis.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.exponential import exp
from ppo_cli.kernels.linear import Floats

LOG_PROB, ENTROPY, KL, SLOPE, BONUS, TOTAL, NUM_TERMS = range(7)
"""Rows of ``terms``. The first three are computed here; the loss fills in the next two, its derivative by the
log-probability and minus its derivative by the entropy; the last is for sums."""

Rows = NDArray[np.int64]

_ZERO, _HALF, _ONE, _TWO = (np.float32(number) for number in (0.0, 0.5, 1.0, 2.0))
_LOG_2PI = np.float32(math.log(2.0 * math.pi))


@vectorized
def draw_categorical(logits: Floats, noise: Floats) -> int:
    """Turn logits [A] into log-probabilities; the first arrival of exponential races, as ``Categorical.sample``."""
    top = logits[0]
    for a in range(1, len(logits)):
        top = max(top, logits[a])
    total = _ZERO
    for a in range(len(logits)):
        total += exp(logits[a] - top)
    normalizer = top + np.float32(math.log(total))
    best, chosen = -_ONE, 0
    for a in range(len(logits)):
        logits[a] -= normalizer
        rate = exp(logits[a]) / noise[a]
        if rate > best:
            best, chosen = rate, a
    return chosen


@vectorized
def categorical_terms(
    logits: Floats, logs: Floats, probs: Floats, terms: Floats, choice: Rows, old: Floats, index: Rows
) -> None:
    """Fill ``logs`` and ``probs`` [A, n] from ``logits``, and the terms; ``choice`` [B], ``old`` log-probs [B, A]."""
    actions, n = len(logits), len(index)
    peak, total, entropy, kl = terms[LOG_PROB], terms[TOTAL], terms[ENTROPY], terms[KL]
    for i in range(n):
        peak[i] = logits[0, i]
        total[i] = entropy[i] = kl[i] = _ZERO
    for a in range(1, actions):
        for i in range(n):
            peak[i] = max(peak[i], logits[a, i])
    for a in range(actions):
        for i in range(n):
            probs[a, i] = exp(logits[a, i] - peak[i])
            total[i] += probs[a, i]
    for i in range(n):
        peak[i] += np.float32(math.log(total[i]))
    for a in range(actions):
        for i in range(n):
            logs[a, i] = logits[a, i] - peak[i]
            probs[a, i] /= total[i]
            entropy[i] -= probs[a, i] * logs[a, i]
    for a in range(actions):
        for i in range(n):
            total[i] = old[index[i], a]
        for i in range(n):
            kl[i] += exp(total[i]) * (total[i] - logs[a, i])
    for i in range(n):
        terms[LOG_PROB, i] = logs[choice[index[i]], i]


@vectorized
def categorical_slopes(logs: Floats, probs: Floats, terms: Floats, choice: Rows, index: Rows) -> None:
    """Turn ``probs`` [A, n] into the loss's derivative by the logits."""
    for a in range(len(logs)):
        for i in range(len(index)):
            probs[a, i] *= terms[BONUS, i] * (logs[a, i] + terms[ENTROPY, i]) - terms[SLOPE, i]
    for i in range(len(index)):
        probs[choice[index[i]], i] += terms[SLOPE, i]


@vectorized
def gaussian_terms(
    mean: Floats,
    log_std: Floats,
    z: Floats,
    terms: Floats,
    action: Floats,
    old_mean: Floats,
    old_log_std: Floats,
    index: Rows,
) -> None:
    """Fill the terms and ``z`` [A, n], distances in standard deviations; ``log_std`` [A], old figures [B, A]."""
    n = len(index)
    for i in range(n):
        terms[LOG_PROB, i] = terms[ENTROPY, i] = terms[KL, i] = _ZERO
    for a in range(len(log_std)):
        inverse_std = exp(-log_std[a])
        for i in range(n):
            row = index[i]
            z[a, i] = (action[row, a] - mean[a, i]) * inverse_std
            terms[LOG_PROB, i] -= _HALF * (z[a, i] * z[a, i] + _LOG_2PI) + log_std[a]
            terms[ENTROPY, i] += log_std[a] + _HALF * (_ONE + _LOG_2PI)
            narrower = old_log_std[row, a] - log_std[a]
            shift = (old_mean[row, a] - mean[a, i]) * inverse_std
            terms[KL, i] += _HALF * (exp(_TWO * narrower) + shift * shift - _ONE) - narrower


@vectorized
def gaussian_slopes(log_std: Floats, z: Floats, terms: Floats, d_mean: Floats, d_log_std: Floats, n: int) -> None:
    """The loss's derivative by the means [A, n], and, added up, by the log standard deviations [A]."""
    for a in range(len(log_std)):
        inverse_std, total = exp(-log_std[a]), _ZERO
        for i in range(n):
            d_mean[a, i] = terms[SLOPE, i] * z[a, i] * inverse_std
            total += terms[SLOPE, i] * (z[a, i] * z[a, i] - _ONE) - terms[BONUS, i]
        d_log_std[a] += total
