"""PPO's loss on the heads of a board network (`ppo_cli.networks.board`), from what is read of its cells, and back.

The boards lie along the last axis, [features, boards], as samples do in `ppo_cli.kernels.mlp`. A feature is the mean of
an orbit's channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.linear import RELU, Floats, activate, add_outer, add_product, add_rows, scale_by_slope, transpose
from ppo_cli.kernels.policies import NUM_TERMS, categorical_slopes, categorical_terms, draw_categorical
from ppo_cli.kernels.ppo import Minibatch, policy_loss_of_tile, value_loss_of_tile
from ppo_cli.kernels.winograd import Bits, raised, rounded

_ZERO, _ONE, _ILLEGAL = np.float32(0), np.float32(1), np.float32(-1e8)  # the last as `ppo_cli.distributions.ILLEGAL`


class Heads(NamedTuple):
    """Weights behind the features, or their gradients. The critic's U units read F features."""

    bias: Floats  # [1] of every logit
    hidden: Floats  # [U * F] of the critic, unit by unit
    hidden_bias: Floats  # [U]
    value: Floats  # [U]
    value_bias: Floats  # [1]


class Pooling(NamedTuple):
    """What the critic's features are: means over the board, and behind them as many maxima, or none."""

    orbit: int  # channels of a feature
    means: int
    has_maxima: bool


class Readings(NamedTuple):
    """What is read of the cells of n boards, or its gradient; C fills vectors."""

    scores: Floats  # [n, A] a logit without its bias
    sums: Floats  # [n, C] over the cells
    cells: Bits  # [n, H, W, C]


class Choices(NamedTuple):
    """What a policy does on n boards."""

    log_probs: Floats  # [n, A]
    action: NDArray[np.int64]  # [n]
    log_prob: Floats  # [n]
    value: Floats  # [n]


class HeadsScratch(NamedTuple):
    """Working memory for up to n boards."""

    logits: Floats  # [A, n]
    logs: Floats  # [A, n] log-probabilities
    slopes: Floats  # [A, n] probabilities, then the loss's derivative by the logits
    terms: Floats  # [NUM_TERMS, n] of `ppo_cli.kernels.policies`
    features: Floats  # [F, n]
    across: Floats  # [n, F] the same, boards first
    units: Floats  # [U, n]
    value: Floats  # [1, n]
    d_features: Floats  # [F, n]
    d_units: Floats  # [U, n]
    d_value: Floats  # [1, n]


def new_scratch(heads: Heads, actions: int, boards: int) -> HeadsScratch:
    """Allocated once for each thread."""
    units = len(heads.value)
    features = len(heads.hidden) // units

    def rows(count: int) -> Floats:
        return np.zeros((count, boards), np.float32)

    return HeadsScratch(
        logits=rows(actions),
        logs=rows(actions),
        slopes=rows(actions),
        terms=rows(NUM_TERMS),
        features=rows(features),
        across=np.zeros((boards, features), np.float32),
        units=rows(units),
        value=rows(1),
        d_features=rows(features),
        d_units=rows(units),
        d_value=rows(1),
    )


@vectorized
def act_on_boards(
    heads: Heads,
    scratch: HeadsScratch,
    pooling: Pooling,
    readings: Readings,
    legal: NDArray[np.bool_],
    noise: Floats,
    choices: Choices,
) -> None:
    """Fill ``choices``; ``legal`` [n, A], ``noise`` [n, A] exponential waiting times."""
    n = len(legal)
    for i in range(n):
        logits = choices.log_probs[i]
        for a in range(len(logits)):
            logits[a] = readings.scores[i, a] + heads.bias[0] if legal[i, a] else _ILLEGAL
        chosen = draw_categorical(logits, noise[i])
        choices.action[i], choices.log_prob[i] = chosen, logits[chosen]
    pool(readings, pooling, scratch.features)
    evaluate(heads, scratch, n)
    for i in range(n):
        choices.value[i] = scratch.value[0, i]


@vectorized
def learn_heads(
    heads: Heads,
    gradient: Heads,
    scratch: HeadsScratch,
    minibatch: Minibatch,
    legal: NDArray[np.bool_],
    index: NDArray[np.int64],
    pooling: Pooling,
    readings: Readings,
    of_readings: Readings,
    figures: NDArray[np.float64],
) -> None:
    """Of the boards at ``index`` [n]: add to ``gradient`` and ``figures``, and fill the gradient of what was read.

    That of the cells is added to what is there. ``legal`` [B, A] says which actions the rules allow.
    """
    n, samples = len(index), minibatch.samples
    logits, slopes = scratch.logits, scratch.slopes
    for i in range(n):
        for a in range(len(logits)):
            logits[a, i] = readings.scores[i, a] + heads.bias[0] if legal[index[i], a] else _ILLEGAL
    categorical_terms(logits, scratch.logs, slopes, scratch.terms, samples.choice, samples.policy, index)
    policy_loss_of_tile(scratch.terms, minibatch, figures, index)
    categorical_slopes(scratch.logs, slopes, scratch.terms, samples.choice, index)
    total = _ZERO
    for i in range(n):
        for a in range(len(logits)):
            of_readings.scores[i, a] = slopes[a, i]
            total += slopes[a, i]
    gradient.bias[0] += total

    pool(readings, pooling, scratch.features)
    evaluate(heads, scratch, n)
    value_loss_of_tile(scratch.value[0], scratch.d_value[0], minibatch, figures, index)
    evaluate_gradient(heads, gradient, scratch, n)
    pool_gradient(readings, scratch.features, scratch.d_features, pooling, of_readings)


@vectorized
def evaluate(heads: Heads, scratch: HeadsScratch, n: int) -> None:
    """Values of n boards from their features."""
    features, units, value = scratch.features, scratch.units, scratch.value
    for u in range(len(units)):
        for i in range(n):
            units[u, i] = heads.hidden_bias[u]
    add_product(units, heads.hidden, 0, len(features), 1, features, len(units), len(features), n)
    activate(units, len(units), n, RELU)
    for i in range(n):
        value[0, i] = heads.value_bias[0]
    add_product(value, heads.value, 0, len(units), 1, units, 1, len(units), n)


@vectorized
def evaluate_gradient(heads: Heads, gradient: Heads, scratch: HeadsScratch, n: int) -> None:
    """From ``d_value`` to ``d_features`` and the critic's part of ``gradient``."""
    features, units = scratch.features, scratch.units
    d_features, d_units, d_value = scratch.d_features, scratch.d_units, scratch.d_value
    add_outer(gradient.value, 0, d_value, units, 1, len(units), n)
    add_rows(gradient.value_bias, 0, d_value, 1, n)
    for u in range(len(units)):
        for i in range(n):
            d_units[u, i] = heads.value[u] * d_value[0, i]
    scale_by_slope(d_units, units, len(units), n, RELU)
    transpose(features, len(features), n, scratch.across)
    out = gradient.hidden.reshape((len(units), len(features)))
    add_product(out, d_units.reshape(-1), 0, d_units.shape[1], 1, scratch.across, len(units), n, len(features))
    add_rows(gradient.hidden_bias, 0, d_units, len(units), n)
    for f in range(len(features)):
        for i in range(n):
            d_features[f, i] = _ZERO
    add_product(d_features, heads.hidden, 0, 1, len(features), d_units, len(features), len(units), n)


@vectorized
def feature(cell: Bits, f: int, orbit: int) -> np.float32:
    """The mean of an orbit's channels in one cell."""
    total = _ZERO
    for channel in range(f * orbit, (f + 1) * orbit):
        total += raised(cell[channel])
    return np.float32(total / np.float32(orbit))


@vectorized
def pool(readings: Readings, pooling: Pooling, features: Floats) -> None:
    """Fill ``features``."""
    boards, height, width, channels = readings.cells.shape
    orbit, means = pooling.orbit, pooling.means
    scale = _ONE / np.float32(height * width * orbit)
    for i in range(boards):
        for f in range(means):
            total = _ZERO
            for channel in range(f * orbit, (f + 1) * orbit):
                total += readings.sums[i, channel]
            features[f, i] = total * scale
        if pooling.has_maxima:
            features[means:, i] = _ZERO  # no feature is less: they are behind a ReLU
            cells = readings.cells[i].reshape((height * width, channels))
            for p in range(height * width):
                for f in range(means):
                    features[means + f, i] = max(features[means + f, i], feature(cells[p], f, orbit))


@vectorized
def pool_gradient(
    readings: Readings, features: Floats, d_features: Floats, pooling: Pooling, of_readings: Readings
) -> None:
    """Fill the gradient of the sums, and add that of the maxima to the cells, which share it where they are equal."""
    boards, height, width, channels = readings.cells.shape
    orbit, means = pooling.orbit, pooling.means
    scale = _ONE / np.float32(height * width * orbit)
    for i in range(boards):
        of_readings.sums[i] = _ZERO
        for f in range(means):
            for channel in range(f * orbit, (f + 1) * orbit):
                of_readings.sums[i, channel] = d_features[f, i] * scale
        if pooling.has_maxima:
            cells = readings.cells[i].reshape((height * width, channels))
            of_cells = of_readings.cells[i].reshape((height * width, channels))
            for f in range(means):
                highest, count = features[means + f, i], 0
                for p in range(height * width):
                    count += feature(cells[p], f, orbit) == highest
                part = d_features[means + f, i] / np.float32(max(count, 1) * orbit)
                for p in range(height * width):
                    if feature(cells[p], f, orbit) == highest:
                        for channel in range(f * orbit, (f + 1) * orbit):
                            of_cells[p, channel] = rounded(raised(of_cells[p, channel]) + part)
