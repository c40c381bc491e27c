"""The update of `ppo_cli.algorithms.ppo` in one call: every epoch, minibatch, gradient and Adam step.

Threads share each minibatch, which is cut into units: a slice of the samples through the actor, or through the
critic, forward and backward into a gradient of its slice; then a block of the actor's or the critic's parameters, which
sums the slices' gradients in their order and takes the step. The units do not depend on the threads that work on them,
so neither does the result. A thread keeps to its units: two of them are an actor's and a critic's, whose weights and
gradients stay in their cores' caches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels import policies
from ppo_cli.kernels.adam import Adam, adam_step, sum_gradients
from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.exponential import exp
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.mlp import (
    GAUSSIAN,
    Network,
    Scratch,
    backward,
    forward_policy,
    forward_trunk,
    forward_value,
    load_sample,
)
from ppo_cli.kernels.policies import (
    BONUS,
    LOG_PROB,
    SLOPE,
    categorical_slopes,
    categorical_terms,
    gaussian_slopes,
    gaussian_terms,
)
from ppo_cli.kernels.report import CLIPFRAC, ENTROPY, K1, K3, KL, POLICY_LOSS, RATIO_MAX, VALUE_LOSS, write_report
from ppo_cli.kernels.rounding import NOISE
from ppo_cli.kernels.threads import Barrier, meet, share

ACTOR, CRITIC, BOTH = 0, 1, 2

COMPLETE, STOPPED, NOT_FINITE = 0, 1, 2
"""How an update ended: all steps taken, ended early by the KL, or refused because of a NaN or infinite gradient."""

POLICY_ENTROPY, POLICY_KL = policies.ENTROPY, policies.KL

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


class Minibatch(NamedTuple):
    """What the samples of one minibatch have in common."""

    samples: Samples
    objective: Objective
    mean: np.float32  # subtracted from each advantage,
    scale: np.float32  # which is then multiplied by this
    weight: np.float32  # of one valid sample: 1 / their count


class Exchange(NamedTuple):
    """What the threads leave for each other; S slices, U units. Two copies: one is read while the next is written."""

    barrier: Barrier
    gradient: Floats  # [S, P] of each slice of the samples
    sums: NDArray[np.float64]  # [2, U, NUM_FIGURES] of each unit
    squares: NDArray[np.float64]  # [2, U] of each block of the gradient


@vectorized
def advantage_scale(samples: Samples, order: NDArray[np.int64], first: int, end: int) -> Any:  # noqa: ANN401
    """Mean and 1 / (standard deviation + 1e-8) of the valid advantages, and how many they are.

    0 in place of the second where they vary no more than rounding lets equal numbers vary.
    """
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
    scale = 0.0 if std <= NOISE * abs(mean) else 1.0 / (std + 1e-8)  # so written, NaN stays NaN
    return np.float32(mean), np.float32(scale), count


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
def policy_loss_of_tile(
    terms: Floats, minibatch: Minibatch, sums: NDArray[np.float64], index: NDArray[np.int64]
) -> None:
    """From the policy's terms to their slopes."""
    samples, objective, weight = minibatch.samples, minibatch.objective, minibatch.weight
    policy_loss = entropy = clipped = k1 = k3 = kl = ratio_max = _ZERO
    for i in range(len(index)):
        row = index[i]
        if not samples.valid[row]:
            terms[SLOPE, i] = terms[BONUS, i] = _ZERO
            continue
        log_ratio = terms[LOG_PROB, i] - samples.log_prob[row]
        advantage = (samples.advantage[row] - minibatch.mean) * minibatch.scale
        loss, slope, ratio, is_clipped = surrogate(log_ratio, advantage, objective)
        terms[SLOPE, i] = slope * weight
        terms[BONUS, i] = objective.entropy_coef * weight
        policy_loss += loss
        entropy += terms[POLICY_ENTROPY, i]
        clipped += is_clipped
        k1 -= log_ratio
        k3 += ratio - _ONE - log_ratio
        kl += terms[POLICY_KL, i]
        ratio_max = max(ratio_max, ratio)
    sums[POLICY_LOSS] += policy_loss
    sums[ENTROPY] += entropy
    sums[CLIPFRAC] += clipped
    sums[K1] += k1
    sums[K3] += k3
    sums[KL] += kl
    sums[RATIO_MAX] = max(sums[RATIO_MAX], ratio_max)


@vectorized
def value_loss_of_tile(
    value: Floats,
    d_value: Floats,
    minibatch: Minibatch,
    sums: NDArray[np.float64],
    index: NDArray[np.int64],
) -> None:
    """From values [n] to the loss's derivative by them."""
    samples, objective = minibatch.samples, minibatch.objective
    value_loss, factor = _ZERO, objective.value_coef * minibatch.weight
    for i in range(len(index)):
        row = index[i]
        if not samples.valid[row]:
            d_value[i] = _ZERO
            continue
        error, slope = value_error(value[i], samples.value[row], samples.value_target[row], objective.clip_value)
        d_value[i] = slope * factor
        value_loss += error
    sums[VALUE_LOSS] += value_loss


@vectorized
def learn_policy(
    network: Network,
    scratch: Scratch,
    minibatch: Minibatch,
    gradient: Floats,
    sums: NDArray[np.float64],
    index: NDArray[np.int64],
) -> None:
    """From ``x`` to ``d_policy``."""
    samples, n = minibatch.samples, len(index)
    forward_trunk(network, scratch, 0, n)
    forward_policy(network, scratch, n)
    outputs, aside, terms, d_outputs = scratch.policy, scratch.aside, scratch.terms, scratch.d_policy
    if network.head == GAUSSIAN:
        log_std = network.parameters[network.log_std : network.log_std + len(outputs)]
        d_log_std = gradient[network.log_std : network.log_std + len(outputs)]
        gaussian_terms(outputs, log_std, aside, terms, samples.action, samples.policy, samples.log_std, index)
        policy_loss_of_tile(terms, minibatch, sums, index)
        gaussian_slopes(log_std, aside, terms, d_outputs, d_log_std, n)
    else:
        categorical_terms(outputs, aside, d_outputs, terms, samples.choice, samples.policy, index)
        policy_loss_of_tile(terms, minibatch, sums, index)
        categorical_slopes(aside, d_outputs, terms, samples.choice, index)


@vectorized
def learn_slice(
    network: Network,
    scratch: Scratch,
    minibatch: Minibatch,
    gradient: Floats,
    sums: NDArray[np.float64],
    order: NDArray[np.int64],
    unit: int,
) -> None:
    """Gradient and figures of the samples at ``order``, tile by tile; ``unit`` says of which network."""
    has_policy, has_value = unit != CRITIC, unit != ACTOR
    gradient[network.critic if unit == CRITIC else 0 : network.critic if unit == ACTOR else len(gradient)] = _ZERO
    sums[:] = 0.0
    for start in range(0, len(order), network.tile):
        index = order[start : start + network.tile]
        n = len(index)
        for i in range(n):
            load_sample(scratch, i, minibatch.samples.obs[index[i]])
        if has_policy:
            learn_policy(network, scratch, minibatch, gradient, sums, index)
        if has_value:
            if not network.is_shared:
                forward_trunk(network, scratch, network.depth, n)
            forward_value(network, scratch, n)
            value_loss_of_tile(scratch.value[0], scratch.d_value[0], minibatch, sums, index)
        backward(network, scratch, gradient, has_policy, has_value, n)


@vectorized
def block_of(network: Network, u: int, slices: int) -> Any:  # noqa: ANN401 (two integers)
    """The parameters of unit ``u``: one of ``slices`` blocks of its network's."""
    num_parameters = len(network.parameters)
    if network.is_shared:
        return share(num_parameters, u, slices)
    if u < slices:
        return share(network.critic, u, slices)
    first, end = share(num_parameters - network.critic, u - slices, slices)
    return network.critic + first, network.critic + end


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
    minibatch_size: int,
    report: NDArray[np.float64],
    first_row: int,
) -> int:
    """One thread's part of an update on every epoch of ``order`` [epochs, B], in minibatches of this many samples.

    ``report`` [epochs * minibatches, NUM_FIGURES] receives sums over the valid samples of each minibatch, its largest
    ratio, their count and the norm of its gradient, NaN where no step was taken; rows that were not reached are left
    alone, and so are those before ``first_row``. Returns how the update ended, the same for all threads, once all of
    them have ended it.
    """
    slices, units, barrier = len(exchange.gradient), exchange.squares.shape[1], exchange.barrier
    first_unit, end_unit = share(units, thread, num_threads)
    step, row = adam.steps_taken, 0
    for epoch in range(len(order)):
        for start in range(0, order.shape[1], minibatch_size):
            if row < first_row:
                row += 1
                continue
            end = min(start + minibatch_size, order.shape[1])
            sums, squares = exchange.sums[row % 2], exchange.squares[row % 2]
            mean, scale, count = advantage_scale(samples, order[epoch], start, end)
            if not objective.standardizes:
                mean, scale = _ZERO, _ONE
            weight = np.float32(1.0 / max(count, 1))
            minibatch = Minibatch(samples, objective, mean, scale, weight)
            for u in range(first_unit, end_unit):
                unit = BOTH if network.is_shared else (ACTOR if u < slices else CRITIC)
                first, last = share(end - start, u % slices, slices)
                gradient, mine = exchange.gradient[u % slices], order[epoch, start + first : start + last]
                learn_slice(network, scratch, minibatch, gradient, sums[u], mine, unit)
            if slices > 1:
                meet(barrier, num_threads)  # a block's gradient comes from all slices
            for u in range(first_unit, end_unit):
                first, last = block_of(network, u, slices)
                squares[u] = sum_gradients(exchange.gradient, first, last)
            meet(barrier, num_threads)

            kl, norm = 0.0, 0.0
            for u in range(units):
                kl += sums[u, K3]
                norm += squares[u]
            norm = math.sqrt(norm)
            stops = kl * weight > objective.stop_at_kl
            if thread == 0:
                write_report(report[row], sums, count, np.nan if stops else norm)
            if stops or not math.isfinite(norm):
                meet(barrier, num_threads)
                return STOPPED if stops else NOT_FINITE
            step += 1
            factor = min(1.0, adam.max_grad_norm / (norm + 1e-6))
            for u in range(first_unit, end_unit):
                first, last = block_of(network, u, slices)
                adam_step(adam, network.parameters, exchange.gradient[0], first, last, step, factor)
            row += 1
            if slices > 1:
                meet(barrier, num_threads)  # with one slice nobody else reads these parameters
    meet(barrier, num_threads)
    return COMPLETE
