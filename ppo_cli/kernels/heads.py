"""PPO's loss on the heads of a board network (`ppo_cli.networks.board`), from what is read of its cells, and back.

The boards lie along the last axis, [features, boards], as samples do in `ppo_cli.kernels.mlp`. A feature is the mean of
an orbit's channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import inlined, vectorized
from ppo_cli.kernels.linear import Floats
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
    d_unit: Floats  # [1, n] of one unit
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
        d_unit=rows(1),
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
    pool(readings, pooling, scratch)
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

    pool(readings, pooling, scratch)
    evaluate(heads, scratch, n)
    value_loss_of_tile(scratch.value[0], scratch.d_value[0], minibatch, figures, index)
    evaluate_gradient(heads, gradient, scratch, n)
    pool_gradient(readings, pooling, scratch, of_readings)


@inlined
def evaluate(heads: Heads, scratch: HeadsScratch, n: int) -> None:
    """Values of n boards from their features."""
    features, units, value = scratch.features, scratch.units, scratch.value
    value[0, :n] = heads.value_bias[0]
    for u in range(len(units)):
        units[u, :n] = heads.hidden_bias[u]
        for f in range(len(features)):
            weight = heads.hidden[u * len(features) + f]
            for i in range(n):
                units[u, i] += weight * features[f, i]
        for i in range(n):
            units[u, i] = max(units[u, i], _ZERO)
            value[0, i] += heads.value[u] * units[u, i]


@inlined
def evaluate_gradient(heads: Heads, gradient: Heads, scratch: HeadsScratch, n: int) -> None:
    """From ``d_value`` to ``d_features`` and the critic's part of ``gradient``."""
    units, d_features, d_unit, d_value = scratch.units, scratch.d_features, scratch.d_unit, scratch.d_value
    num_features = len(d_features)
    d_features[:] = _ZERO
    for i in range(n):
        gradient.value_bias[0] += d_value[0, i]
    for u in range(len(units)):
        of_value = of_bias = _ZERO
        for i in range(n):
            d_unit[0, i] = heads.value[u] * d_value[0, i] if units[u, i] > _ZERO else _ZERO
            of_value += d_value[0, i] * units[u, i]
            of_bias += d_unit[0, i]
        gradient.value[u] += of_value
        gradient.hidden_bias[u] += of_bias
        weights, of_weights = (
            heads.hidden[u * num_features : (u + 1) * num_features],
            gradient.hidden[u * num_features : (u + 1) * num_features],
        )
        for i in range(n):
            for f in range(num_features):
                of_weights[f] += d_unit[0, i] * scratch.across[i, f]
        for f in range(num_features):
            for i in range(n):
                d_features[f, i] += weights[f] * d_unit[0, i]


@inlined
def feature(cell: Bits, f: int, orbit: int) -> np.float32:
    """The mean of an orbit's channels in one cell."""
    total = _ZERO
    for channel in range(f * orbit, (f + 1) * orbit):
        total += raised(cell[channel])
    return np.float32(total / np.float32(orbit))


@inlined
def pool(readings: Readings, pooling: Pooling, scratch: HeadsScratch) -> None:
    """Fill ``features`` and ``across``."""
    boards, height, width, channels = readings.cells.shape
    orbit, means = pooling.orbit, pooling.means
    scale = _ONE / np.float32(height * width * orbit)
    for i in range(boards):
        features = scratch.across[i]
        for f in range(means):
            total = _ZERO
            for channel in range(f * orbit, (f + 1) * orbit):
                total += readings.sums[i, channel]
            features[f] = total * scale
        if pooling.has_maxima:
            features[means:] = _ZERO  # no feature is less: they are behind a ReLU
            cells = readings.cells[i].reshape((height * width, channels))
            for p in range(height * width):
                for f in range(means):
                    features[means + f] = max(features[means + f], feature(cells[p], f, orbit))
        for f in range(len(features)):
            scratch.features[f, i] = features[f]


@inlined
def pool_gradient(readings: Readings, pooling: Pooling, scratch: HeadsScratch, of_readings: Readings) -> None:
    """Fill the gradient of the sums, and add that of the maxima to the cells, which share it where they are equal."""
    boards, height, width, channels = readings.cells.shape
    orbit, means = pooling.orbit, pooling.means
    scale = _ONE / np.float32(height * width * orbit)
    for i in range(boards):
        of_readings.sums[i] = _ZERO
        for f in range(means):
            for channel in range(f * orbit, (f + 1) * orbit):
                of_readings.sums[i, channel] = scratch.d_features[f, i] * scale
        if pooling.has_maxima:
            cells = readings.cells[i].reshape((height * width, channels))
            of_cells = of_readings.cells[i].reshape((height * width, channels))
            for f in range(means):
                highest, count = scratch.across[i, means + f], 0
                for p in range(height * width):
                    count += feature(cells[p], f, orbit) == highest
                part = scratch.d_features[means + f, i] / np.float32(max(count, 1) * orbit)
                for p in range(height * width):
                    if feature(cells[p], f, orbit) == highest:
                        for channel in range(f * orbit, (f + 1) * orbit):
                            of_cells[p, channel] = rounded(raised(of_cells[p, channel]) + part)
