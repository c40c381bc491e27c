"""One step of a policy in one call: normalize, forward, sample, and the row of the rollout that remembers it.

Environments are few and layers wide while acting, so here the outputs of a layer lie along the last axis, which takes
transposed weights: `transpose_weights` makes them once for each rollout.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, vectorized
from ppo_cli.kernels.exponential import exp
from ppo_cli.kernels.linear import Floats, activate, product, transpose
from ppo_cli.kernels.mlp import GAUSSIAN, Network, Scratch, values
from ppo_cli.kernels.policies import draw_categorical

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

NARROW = 8
"""Outputs from which a layer's rows are computed side by side."""

_ZERO = np.float32(0.0)
_HALF_LOG_2PI = np.float32(0.5 * math.log(2.0 * math.pi))


class Moments(NamedTuple):
    """Running mean and variance of the observations, as `ppo_cli.normalize.RunningMoments`; empty where unused."""

    rows_seen: Doubles  # [1]
    mean: Doubles  # [O]
    variance: Doubles  # [O]
    bound: np.float32  # normalized observations stay within this many standard deviations


class Actor(NamedTuple):
    """A network that acts for N environments. W is its widest layer."""

    network: Network
    transposed: Floats  # [P] the weights of each layer as [inputs, outputs]
    hidden: Floats  # [depth, N, W] of the actor's trunk
    moments: Moments
    noise: Floats  # [T, N, A] what decides the actions


class Rows(NamedTuple):
    """The rollout's storage that acting fills."""

    obs: Floats  # [T, N, O]
    choice: NDArray[np.int64]  # [T, N] the action where the policy is categorical, else empty
    action: Floats  # [T, N, A] the action where it is Gaussian, else empty
    log_prob: Floats  # [T, N]
    value: Floats  # [T, N]
    policy: Floats  # [T, N, A] log-probabilities, or means
    log_std: Floats  # [T, N, A] where the policy is Gaussian, else empty


@partial(compiled, brief=True)
def transpose_weights(network: Network, out: Floats) -> None:
    """``out`` [P] as ``parameters``, but with the weights [outputs, inputs] that acting reads as [inputs, outputs]."""
    policy = len(network.layers) - 2
    for number in range(len(network.layers)):
        if number < network.depth or number == policy:
            weights, _, inputs, outputs = network.layers[number]
            end = weights + inputs * outputs
            rows = network.parameters[weights:end].reshape((outputs, inputs))
            transpose(rows, outputs, inputs, out[weights:end].reshape((inputs, outputs)))


@compiled
def learn_moments(moments: Moments, obs: Floats, valid: Flags) -> None:
    """Take in the rows of ``obs`` [N, O] where ``valid``: Chan, Golub and LeVeque 1983, in float64."""
    rows = 0
    for n in range(len(obs)):
        rows += valid[n]
    if rows == 0:
        return
    count = moments.rows_seen[0]
    total = count + rows
    for k in range(obs.shape[1]):
        mean = 0.0
        for n in range(len(obs)):
            if valid[n]:
                mean += np.float64(obs[n, k])
        mean /= rows
        squares = 0.0
        for n in range(len(obs)):
            if valid[n]:
                squares += (np.float64(obs[n, k]) - mean) ** 2
        shift = mean - moments.mean[k]
        squares += moments.variance[k] * count + shift * shift * count * rows / total
        moments.mean[k] += shift * rows / total
        moments.variance[k] = squares / total
    moments.rows_seen[0] = total


@compiled
def normalize(moments: Moments, obs: Floats, out: Floats) -> None:
    """``out`` [N, O] = ``obs`` normalized and clipped; a copy where there are no moments."""
    if len(moments.mean) == 0:
        for n in range(len(obs)):
            for k in range(obs.shape[1]):
                out[n, k] = obs[n, k]
        return
    for k in range(obs.shape[1]):
        mean, std = np.float32(moments.mean[k]), np.float32(math.sqrt(moments.variance[k] + 1e-8))
        for n in range(len(obs)):
            out[n, k] = min(max((obs[n, k] - mean) / std, -moments.bound), moments.bound)


@vectorized
def layer_rows(actor: Actor, number: int, x: Floats, start: int, stride: int, out: Floats) -> None:
    """out[n] = W x_n + b for each row; row n of the input is x[start + n * stride:]."""
    weights, biases, inputs, outputs = actor.network.layers[number]
    for n in range(len(out)):
        for o in range(outputs):
            out[n, o] = actor.network.parameters[biases + o]
    matrix = actor.transposed[weights : weights + inputs * outputs].reshape((inputs, outputs))
    product(out, None, x, start, stride, 1, matrix, len(out), inputs, outputs)


@vectorized
def narrow_rows(network: Network, number: int, x: Floats, out: Floats) -> None:
    """The same for a layer of few outputs, which would leave most of a vector unit idle; along the inputs of each row.

    ``x`` [N, inputs], ``out`` [N, outputs].
    """
    weights, biases, inputs, outputs = network.layers[number]
    for o in range(outputs):
        row = network.parameters[weights + o * inputs : weights + (o + 1) * inputs]
        for n in range(len(out)):
            total = _ZERO
            for i in range(inputs):
                total += row[i] * x[n, i]
            out[n, o] = total + network.parameters[biases + o]


@vectorized
def trunk_rows(actor: Actor, obs: Floats, first: int, end: int) -> None:
    """The actor's hidden layers for the environments from ``first`` to ``end``; ``obs`` [N, O]."""
    hidden, width = actor.hidden, actor.hidden.shape[2]
    flat, plane = hidden.reshape(-1), hidden.shape[1] * width
    for number in range(actor.network.depth):
        out = hidden[number, first:end]
        if number == 0:
            layer_rows(actor, number, obs.reshape(-1), first * obs.shape[1], obs.shape[1], out)
        else:
            layer_rows(actor, number, flat, (number - 1) * plane + first * width, width, out)
        activate(out, end - first, actor.network.layers[number, 3], actor.network.activation)


@vectorized
def choose(actor: Actor, rows: Rows, t: int, first: int, end: int) -> None:
    """The actions of row t from its observations, for the environments from ``first`` to ``end``.

    Acting needs no values: they are computed for the whole rollout at once (`evaluate`).
    """
    network, number = actor.network, len(actor.network.layers) - 2
    trunk_rows(actor, rows.obs[t], first, end)
    hidden, out = actor.hidden[network.depth - 1], rows.policy[t, first:end]
    if network.layers[number, 3] < NARROW:
        narrow_rows(network, number, hidden[first:end], out)
    else:
        layer_rows(actor, number, hidden.reshape(-1), first * hidden.shape[1], hidden.shape[1], out)
    for n in range(first, end):
        if network.head == GAUSSIAN:
            _draw_gaussian(actor, rows, t, n)
        else:
            _draw_categorical(actor, rows, t, n)


@vectorized
def _draw_categorical(actor: Actor, rows: Rows, t: int, n: int) -> None:
    """An action of environment n."""
    logits = rows.policy[t, n]
    chosen = draw_categorical(logits, actor.noise[t, n])
    rows.choice[t, n] = chosen
    rows.log_prob[t, n] = logits[chosen]


@vectorized
def _draw_gaussian(actor: Actor, rows: Rows, t: int, n: int) -> None:
    log_prob = _ZERO
    for a in range(rows.policy.shape[2]):
        log_std = actor.network.parameters[actor.network.log_std + a]
        noise = actor.noise[t, n, a]
        rows.log_std[t, n, a] = log_std
        rows.action[t, n, a] = rows.policy[t, n, a] + exp(log_std) * noise
        log_prob -= np.float32(0.5) * noise * noise + log_std + _HALF_LOG_2PI
    rows.log_prob[t, n] = log_prob


@partial(vectorized, allocates=True)
def act(actor: Actor, rows: Rows, raw_obs: Floats, dead: Flags, t: int) -> None:
    """Row t for all environments: learn the moments from ``raw_obs`` [N, O] unless ``dead``, normalize, choose."""
    if len(actor.moments.mean):
        learn_moments(actor.moments, raw_obs, ~dead)
    normalize(actor.moments, raw_obs, rows.obs[t])
    choose(actor, rows, t, 0, len(raw_obs))


class Outcome(NamedTuple):
    """The rollout's storage that stepping fills."""

    reward: Floats  # [T, N]
    terminated: Flags  # [T, N]
    truncated: Flags  # [T, N]
    next_value: Floats  # [T, N]
    final_obs: Floats  # [T, N, O] what a truncated episode ended on, not normalized; elsewhere old
    episode_return: Floats  # [T, N] of the episode that ended here; elsewhere old
    episode_length: Floats  # [T, N]


@partial(compiled, brief=True)
def record(
    outcome: Outcome,
    valid: Flags,
    t: int,
    reward: Floats,
    terminated: Flags,
    truncated: Flags,
    dead: Flags,
    returns: Floats,
    lengths: Floats,
    dies: bool,
) -> bool:
    """Row t from what the environments answered, all [N] but ``valid`` [T, N]; whether an episode was cut off.

    Moves the figures of the episodes under way; ``dead`` becomes the environments whose next step is a dead one, which
    are those whose episode ended where the environment ``dies`` of it.
    """
    is_cut = False
    for n in range(len(reward)):
        lives = not dead[n]
        ended, stopped = terminated[n] and lives, truncated[n] and lives
        valid[t, n], outcome.reward[t, n] = lives, reward[n]
        outcome.terminated[t, n], outcome.truncated[t, n] = ended, stopped
        if lives:
            returns[n] += reward[n]
            lengths[n] += np.float32(1.0)
        outcome.episode_return[t, n], outcome.episode_length[t, n] = returns[n], lengths[n]
        is_cut = is_cut or (stopped and not ended)
        done = ended or stopped
        if done:
            returns[n] = lengths[n] = _ZERO
        dead[n] = done and dies
    return is_cut


@vectorized
def evaluate(actor: Actor, scratch: Scratch, rows: Rows, first: int, end: int) -> None:
    """Values of the rollout's samples from ``first`` to ``end``, of T * N."""
    obs = rows.obs.reshape((rows.value.size, rows.obs.shape[2]))
    values(actor.network, scratch, obs, rows.value.reshape(-1), first, end)


@partial(vectorized, allocates=True)
def value_of(actor: Actor, scratch: Scratch, raw_obs: Floats, value: Floats) -> None:
    """Values [B] of ``raw_obs`` [B, O]."""
    obs = np.empty_like(raw_obs)
    normalize(actor.moments, raw_obs, obs)
    values(actor.network, scratch, obs, value, 0, len(obs))


@partial(vectorized, allocates=True, brief=True)
def value_successors(actor: Actor, scratch: Scratch, rows: Rows, outcome: Outcome, raw_obs: Floats) -> None:
    """Fill ``next_value`` as `ppo_cli.rollout.Collector.value_successors` does; ``raw_obs`` [N, O] comes next."""
    length, num_envs = rows.value.shape
    value_of(actor, scratch, raw_obs, outcome.next_value[length - 1])
    for t in range(length):
        if t < length - 1:
            outcome.next_value[t] = rows.value[t + 1]
        for n in range(num_envs):
            if outcome.terminated[t, n]:
                outcome.next_value[t, n] = _ZERO
            elif outcome.truncated[t, n]:
                value_of(actor, scratch, outcome.final_obs[t, n : n + 1], outcome.next_value[t, n : n + 1])


@partial(vectorized, brief=True)
def total(obs: Floats, reward: Floats, next_value: Floats) -> Any:  # noqa: ANN401 (a float32)
    """The sum of everything in obs [T, N, O], reward and next_value [T, N]: finite only if all of it is."""
    sum_of_all = _ZERO
    for x in obs.reshape(-1):
        sum_of_all += x
    for x in reward.reshape(-1):
        sum_of_all += x
    for x in next_value.reshape(-1):
        sum_of_all += x
    return sum_of_all
