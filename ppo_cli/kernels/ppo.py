"""The update of `ppo_cli.algorithms.ppo` in one call: every epoch, minibatch, gradient and Adam step.

Threads share each minibatch: each takes its samples forward and backward, then its slice of the parameters, whose
gradients it sums in the order of the threads, so that a run repeats exactly on the same number of threads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.mlp import GAUSSIAN, TILE, Network, Scratch, backward, forward, load_sample
from ppo_cli.kernels.threads import Barrier, meet, share

POLICY_LOSS, VALUE_LOSS, ENTROPY, CLIPFRAC, K1, K3, KL, RATIO_MAX, COUNT, GRAD_NORM, NUM_FIGURES = range(11)
"""Columns of the report, one row for each minibatch."""

COMPLETE, STOPPED, NOT_FINITE = 0, 1, 2
"""How an update ended: all steps taken, ended early by the KL, or refused because of a NaN or infinite gradient."""

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_LOG_2PI = np.float32(math.log(2.0 * math.pi))


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
    """What the threads leave for each other."""

    barrier: Barrier
    gradient: Floats  # [threads, P]
    sums: NDArray[np.float64]  # [threads, NUM_FIGURES] of the minibatch
    squares: NDArray[np.float64]  # [threads] of the gradient's slices


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
    ratio = np.float32(math.exp(min(max(log_ratio, -bound), bound)))
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
def categorical_policy(scratch: Scratch, i: int) -> Any:  # noqa: ANN401
    """Normalize sample i's logits into ``scratch.logs``; the entropy."""
    actions = scratch.policy.shape[0]
    top = scratch.policy[0, i]
    for a in range(1, actions):
        top = max(top, scratch.policy[a, i])
    total = _ZERO
    for a in range(actions):
        total += np.float32(math.exp(scratch.policy[a, i] - top))
    normalizer = top + np.float32(math.log(total))
    entropy = _ZERO
    for a in range(actions):
        log_prob = scratch.policy[a, i] - normalizer
        scratch.logs[a, i] = log_prob
        scratch.d_policy[a, i] = np.float32(math.exp(log_prob))  # the probability, for now
        entropy -= scratch.d_policy[a, i] * log_prob
    return entropy


@vectorized
def loss_of_tile(
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
    """From ``policy`` and ``value`` of the samples at ``index`` to their gradients; ``weight`` is 1 / count."""
    actions = scratch.policy.shape[0]
    for i in range(len(index)):
        row = index[i]
        if not samples.valid[row]:
            scratch.d_value[0, i] = _ZERO
            for a in range(actions):
                scratch.d_policy[a, i] = _ZERO
            continue
        advantage = (samples.advantage[row] - mean) * scale
        kl, entropy, log_prob = _ZERO, _ZERO, _ZERO
        if network.head == GAUSSIAN:
            for a in range(actions):
                log_std = network.parameters[network.log_std + a]
                z = (samples.action[row, a] - scratch.policy[a, i]) * np.float32(math.exp(-log_std))
                scratch.logs[a, i] = z
                log_prob -= np.float32(0.5) * (z * z + _LOG_2PI) + log_std
                entropy += log_std + np.float32(0.5) * (_ONE + _LOG_2PI)
                narrower = samples.log_std[row, a] - log_std
                shift = (samples.policy[row, a] - scratch.policy[a, i]) * np.float32(math.exp(-log_std))
                kl += np.float32(0.5) * (np.float32(math.exp(_TWO * narrower)) + shift * shift - _ONE) - narrower
        else:
            entropy = categorical_policy(scratch, i)
            log_prob = scratch.logs[samples.choice[row], i]
            for a in range(actions):
                old = samples.policy[row, a]
                kl += np.float32(math.exp(old)) * (old - scratch.logs[a, i])
        log_ratio = log_prob - samples.log_prob[row]
        loss, slope, ratio, is_clipped = surrogate(log_ratio, advantage, objective)
        error, value_slope = value_error(
            scratch.value[0, i], samples.value[row], samples.value_target[row], objective.clip_value
        )
        sums[POLICY_LOSS] += loss
        sums[VALUE_LOSS] += error
        sums[ENTROPY] += entropy
        sums[CLIPFRAC] += is_clipped
        sums[K1] -= log_ratio
        sums[K3] += ratio - _ONE - log_ratio
        sums[KL] += kl
        sums[RATIO_MAX] = max(sums[RATIO_MAX], ratio)

        slope *= weight
        scratch.d_value[0, i] = value_slope * objective.value_coef * weight
        bonus = objective.entropy_coef * weight
        if network.head == GAUSSIAN:
            for a in range(actions):
                z = scratch.logs[a, i]
                log_std = network.parameters[network.log_std + a]
                scratch.d_policy[a, i] = slope * z * np.float32(math.exp(-log_std))
                gradient[network.log_std + a] += slope * (z * z - _ONE) - bonus
        else:
            for a in range(actions):
                prob = scratch.d_policy[a, i]
                scratch.d_policy[a, i] = prob * (bonus * (scratch.logs[a, i] + entropy) - slope)
            scratch.d_policy[samples.choice[row], i] += slope


@vectorized
def adam_step(adam: Adam, parameters: Floats, gradient: Floats, first: int, end: int, step: int, scale: float) -> None:
    """Step number ``step`` on parameters[first:end], down ``scale`` times the gradient."""
    beta1, beta2 = np.float32(adam.beta1), np.float32(adam.beta2)
    size = np.float32(adam.learning_rate / (1.0 - adam.beta1**step))
    root = np.float32(math.sqrt(1.0 - adam.beta2**step))
    kept = np.float32(1.0 - adam.learning_rate * adam.weight_decay)
    eps, factor = np.float32(adam.eps), np.float32(scale)
    for p in range(first, end):
        g = gradient[p] * factor
        m = beta1 * adam.first[p] + (_ONE - beta1) * g
        v = beta2 * adam.second[p] + (_ONE - beta2) * g * g
        adam.first[p], adam.second[p] = m, v
        parameters[p] = kept * parameters[p] - size * m / (np.sqrt(v) / root + eps)


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
    gradient, sums = exchange.gradient[thread], exchange.sums[thread]
    first_parameter, end_parameter = share(len(network.parameters), thread, num_threads)
    step, row = adam.steps_taken, 0
    for epoch in range(len(order)):
        for start in range(0, order.shape[1], minibatch):
            end = min(start + minibatch, order.shape[1])
            mean, scale, count = advantage_scale(samples, order[epoch], start, end)
            if not objective.standardizes:
                mean, scale = _ZERO, _ONE
            weight = np.float32(1.0 / max(count, 1))
            gradient[:] = _ZERO
            sums[:] = 0.0
            mine, mine_end = share(end - start, thread, num_threads)
            for at in range(start + mine, start + mine_end, TILE):
                index = order[epoch, at : min(at + TILE, start + mine_end)]
                n = len(index)
                for i in range(n):
                    load_sample(scratch, i, samples.obs[index[i]])
                forward(network, scratch, n)
                loss_of_tile(network, scratch, samples, objective, gradient, sums, index, mean, scale, weight)
                backward(network, scratch, gradient, n)
            meet(exchange.barrier, num_threads)

            kl = 0.0
            for other in range(num_threads):
                kl += exchange.sums[other, K3]
            if thread == 0:
                for figure in range(NUM_FIGURES):
                    total = exchange.sums[0, figure]
                    for other in range(1, num_threads):
                        amount = exchange.sums[other, figure]
                        total = max(total, amount) if figure == RATIO_MAX else total + amount
                    report[row, figure] = total
                report[row, COUNT] = count
                report[row, GRAD_NORM] = np.nan
            if kl * weight > objective.stop_at_kl:
                return STOPPED
            squares = 0.0
            for p in range(first_parameter, end_parameter):
                total = exchange.gradient[0, p]
                for other in range(1, num_threads):
                    total += exchange.gradient[other, p]
                exchange.gradient[0, p] = total
                squares += total * total
            exchange.squares[thread] = squares
            meet(exchange.barrier, num_threads)

            norm = 0.0
            for other in range(num_threads):
                norm += exchange.squares[other]
            norm = math.sqrt(norm)
            if thread == 0:
                report[row, GRAD_NORM] = norm
            if not math.isfinite(norm):
                return NOT_FINITE
            step += 1
            factor = min(1.0, adam.max_grad_norm / (norm + 1e-6))
            adam_step(adam, network.parameters, exchange.gradient[0], first_parameter, end_parameter, step, factor)
            row += 1
            meet(exchange.barrier, num_threads)
    return COMPLETE
