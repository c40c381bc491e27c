"""The update of `ppo_cli.algorithms.ppo` in one call: every epoch, minibatch, gradient and Adam step.

Threads share each minibatch, which is cut into slices: a slice of the samples goes forward and backward into a gradient
of its own, then a slice of the parameters sums these gradients in their order and takes the step. How many slices there
are does not depend on the threads that work on them, so neither does the result.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels import policies
from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.exponential import exp
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.mlp import GAUSSIAN, TILE, Network, Scratch, backward, forward, load_sample
from ppo_cli.kernels.policies import (
    BONUS,
    LOG_PROB,
    SLOPE,
    categorical_slopes,
    categorical_terms,
    gaussian_slopes,
    gaussian_terms,
)
from ppo_cli.kernels.threads import Barrier, meet, share

POLICY_LOSS, VALUE_LOSS, ENTROPY, CLIPFRAC, K1, K3, KL, RATIO_MAX, COUNT, GRAD_NORM, NUM_FIGURES = range(11)
"""Columns of the report, one row for each minibatch."""

COMPLETE, STOPPED, NOT_FINITE = 0, 1, 2
"""How an update ended: all steps taken, ended early by the KL, or refused because of a NaN or infinite gradient."""

POLICY_ENTROPY, POLICY_KL = policies.ENTROPY, policies.KL
BLOCK = 256

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


class Samples(NamedTuple):
    """A training batch, B samples in the order in which they were collected."""

    obs: Floats  # [B, O]
    choice: NDArray[np.int64]  # [B] the action where the policy is categorical, else empty
    action: Floats  # [B, A] the action where it is Gaussian, else empty
    log_prob: Floats  # [B]
    value: Floats  # [B]
    advantage: Floats  # [B]
    value_target: Floats  # [B]
    valid: NDArray[np.bool_]  # [B]
    policy: Floats  # [B, A] the old policy: log-probabilities, or means
    log_std: Floats  # [B, A] and log standard deviations where it is Gaussian, else empty


class Objective(NamedTuple):
    """Coefficients of the loss, as in PPO's fields."""

    clip: np.float32
    clip_value: np.float32
    entropy_coef: np.float32
    value_coef: np.float32
    max_log_ratio: np.float32
    standardizes: bool
    stop_at_kl: float  # an update ends before the step of a minibatch whose KL (k3) is above this; infinity is never


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


class Exchange(NamedTuple):
    """What the threads leave for each other; S slices."""

    barrier: Barrier
    gradient: Floats  # [S, P] of each slice of the samples
    sums: NDArray[np.float64]  # [S, NUM_FIGURES] of each slice of the samples
    squares: NDArray[np.float64]  # [S] of each slice of the gradient


@vectorized
def advantage_scale(samples: Samples, order: NDArray[np.int64], first: int, end: int) -> Any:  # noqa: ANN401
    """Mean and 1 / (standard deviation + 1e-8) of the valid advantages, and how many they are."""
    count, total = 0, 0.0
    for i in range(first, end):
        if samples.valid[order[i]]:
            count += 1
            total += samples.advantage[order[i]]
    mean = total / max(count, 1)
    squares = 0.0
    for i in range(first, end):
        if samples.valid[order[i]]:
            squares += (samples.advantage[order[i]] - mean) ** 2
    std = math.sqrt(squares / max(count - 1, 1))
    return np.float32(mean), np.float32(1.0 / (std + 1e-8)), count


@vectorized
def surrogate(log_ratio: np.float32, advantage: np.float32, objective: Objective) -> Any:  # noqa: ANN401
    """Loss of one sample, its derivative by the log-probability, the ratio, and 1 where the ratio left the interval."""
    bound, clip = objective.max_log_ratio, objective.clip
    ratio = exp(min(max(log_ratio, -bound), bound))
    free = ratio * advantage
    clipped = min(max(ratio, _ONE - clip), _ONE + clip) * advantage
    moves = free <= clipped and -bound <= log_ratio <= bound
    slope = -free if moves else _ZERO
    return -min(free, clipped), slope, ratio, _ONE if abs(ratio - _ONE) > clip else _ZERO


@vectorized
def value_error(value: np.float32, old_value: np.float32, target: np.float32, clip_value: np.float32) -> Any:  # noqa: ANN401
    """Squared error of one value, and its derivative."""
    error = value - target
    square, slope = error * error, _TWO * error
    if clip_value > _ZERO:
        change = value - old_value
        kept = old_value + min(max(change, -clip_value), clip_value) - target
        if kept * kept > square:
            square, slope = kept * kept, (slope if abs(change) <= clip_value else _ZERO)
    return square, slope


@vectorized
def loss_of_tile(
    scratch: Scratch,
    samples: Samples,
    objective: Objective,
    sums: NDArray[np.float64],
    index: NDArray[np.int64],
    mean: np.float32,
    scale: np.float32,
    weight: np.float32,
) -> None:
    """From ``value`` and the terms of the policy to ``d_value`` and the terms' slopes; ``weight`` is 1 / count."""
    terms, d_value = scratch.terms, scratch.d_value[0]
    policy_loss = value_loss = total_entropy = clipped = k1 = k3 = total_kl = ratio_max = _ZERO
    for i in range(len(index)):
        row = index[i]
        if not samples.valid[row]:
            terms[SLOPE, i] = terms[BONUS, i] = d_value[i] = _ZERO
            continue
        log_ratio = terms[LOG_PROB, i] - samples.log_prob[row]
        loss, slope, ratio, is_clipped = surrogate(log_ratio, (samples.advantage[row] - mean) * scale, objective)
        error, value_slope = value_error(
            scratch.value[0, i], samples.value[row], samples.value_target[row], objective.clip_value
        )
        terms[SLOPE, i] = slope * weight
        terms[BONUS, i] = objective.entropy_coef * weight
        d_value[i] = value_slope * objective.value_coef * weight
        policy_loss += loss
        value_loss += error
        total_entropy += terms[POLICY_ENTROPY, i]
        clipped += is_clipped
        k1 -= log_ratio
        k3 += ratio - _ONE - log_ratio
        total_kl += terms[POLICY_KL, i]
        ratio_max = max(ratio_max, ratio)
    sums[POLICY_LOSS] += policy_loss
    sums[VALUE_LOSS] += value_loss
    sums[ENTROPY] += total_entropy
    sums[CLIPFRAC] += clipped
    sums[K1] += k1
    sums[K3] += k3
    sums[KL] += total_kl
    sums[RATIO_MAX] = max(sums[RATIO_MAX], ratio_max)


@vectorized
def learn_tile(
    network: Network,
    scratch: Scratch,
    samples: Samples,
    objective: Objective,
    gradient: Floats,
    sums: NDArray[np.float64],
    index: NDArray[np.int64],
    mean: np.float32,
    scale: np.float32,
    weight: np.float32,
) -> None:
    """Add the gradient and the figures of the samples at ``index``, at most a tile of them."""
    n = len(index)
    for i in range(n):
        load_sample(scratch, i, samples.obs[index[i]])
    forward(network, scratch, n)
    outputs, aside, terms, d_outputs = scratch.policy, scratch.aside, scratch.terms, scratch.d_policy
    if network.head == GAUSSIAN:
        log_std = network.parameters[network.log_std : network.log_std + len(outputs)]
        d_log_std = gradient[network.log_std : network.log_std + len(outputs)]
        gaussian_terms(outputs, log_std, aside, terms, samples.action, samples.policy, samples.log_std, index)
        loss_of_tile(scratch, samples, objective, sums, index, mean, scale, weight)
        gaussian_slopes(log_std, aside, terms, d_outputs, d_log_std, n)
    else:
        categorical_terms(outputs, aside, d_outputs, terms, samples.choice, samples.policy, index)
        loss_of_tile(scratch, samples, objective, sums, index, mean, scale, weight)
        categorical_slopes(aside, d_outputs, terms, samples.choice, index)
    backward(network, scratch, gradient, n)


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
def learn_slice(
    network: Network,
    scratch: Scratch,
    samples: Samples,
    objective: Objective,
    gradient: Floats,
    sums: NDArray[np.float64],
    order: NDArray[np.int64],
    mean: np.float32,
    scale: np.float32,
    weight: np.float32,
) -> None:
    """Gradient and figures of the samples at ``order``, tile by tile."""
    gradient[:] = _ZERO
    sums[:] = 0.0
    for start in range(0, len(order), TILE):
        index = order[start : start + TILE]
        learn_tile(network, scratch, samples, objective, gradient, sums, index, mean, scale, weight)


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


@vectorized
def write_report(report: NDArray[np.float64], sums: NDArray[np.float64], count: int) -> None:
    """Fill a row of the report from the slices' ``sums``."""
    for figure in range(NUM_FIGURES):
        total = sums[0, figure]
        for s in range(1, len(sums)):
            total = max(total, sums[s, figure]) if figure == RATIO_MAX else total + sums[s, figure]
        report[figure] = total
    report[COUNT] = count
    report[GRAD_NORM] = np.nan


@vectorized
def update(
    thread: int,
    num_threads: int,
    network: Network,
    scratch: Scratch,
    samples: Samples,
    objective: Objective,
    adam: Adam,
    exchange: Exchange,
    order: NDArray[np.int64],
    minibatch: int,
    report: NDArray[np.float64],
) -> int:
    """One thread's part of an update on every epoch of ``order`` [epochs, B], in minibatches of this many samples.

    ``report`` [epochs * minibatches, NUM_FIGURES] receives sums over the valid samples of each minibatch, its largest
    ratio, their count and the norm of its gradient, NaN where no step was taken; rows that were not reached are left
    alone. Returns how the update ended, the same for all threads.
    """
    slices, barrier, num_parameters = len(exchange.squares), exchange.barrier, len(network.parameters)
    step, row = adam.steps_taken, 0
    for epoch in range(len(order)):
        for start in range(0, order.shape[1], minibatch):
            end = min(start + minibatch, order.shape[1])
            mean, scale, count = advantage_scale(samples, order[epoch], start, end)
            if not objective.standardizes:
                mean, scale = _ZERO, _ONE
            weight = np.float32(1.0 / max(count, 1))
            for s in range(thread, slices, num_threads):
                first, last = share(end - start, s, slices)
                gradient, sums, mine = (
                    exchange.gradient[s],
                    exchange.sums[s],
                    order[epoch, start + first : start + last],
                )
                learn_slice(network, scratch, samples, objective, gradient, sums, mine, mean, scale, weight)
            meet(barrier, num_threads)

            if thread == 0:
                write_report(report[row], exchange.sums, count)
            kl, norm = 0.0, 0.0
            for s in range(slices):
                kl += exchange.sums[s, K3]
            if kl * weight > objective.stop_at_kl:
                return STOPPED
            for s in range(thread, slices, num_threads):
                first, last = share(num_parameters, s, slices)
                exchange.squares[s] = sum_gradients(exchange.gradient, first, last)
            meet(barrier, num_threads)

            for s in range(slices):
                norm += exchange.squares[s]
            norm = math.sqrt(norm)
            if thread == 0:
                report[row, GRAD_NORM] = norm
            if not math.isfinite(norm):
                return NOT_FINITE
            step += 1
            factor = min(1.0, adam.max_grad_norm / (norm + 1e-6))
            for s in range(thread, slices, num_threads):
                first, last = share(num_parameters, s, slices)
                adam_step(adam, network.parameters, exchange.gradient[0], first, last, step, factor)
            row += 1
            meet(barrier, num_threads)
    return COMPLETE
