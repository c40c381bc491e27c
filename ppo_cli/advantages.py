"""Advantage estimators: how much better an action was than the policy's average.

One recurrence, ``reverse_scan``, serves them all. Two flags stay apart everywhere: ``terminated`` decides what the
successor is worth, ``done`` (terminated or truncated) decides where the sum stops.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppo_cli.kernels.rounding import NOISE
from ppo_cli.types import Rollout


def reverse_scan(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t * y_{t+1}, with y_T = 0. ``x`` and ``decay`` [T, ...]."""
    y = torch.empty_like(x)
    tail = torch.zeros_like(x[0])
    for t in reversed(range(len(x))):
        tail = torch.addcmul(x[t], decay[t], tail, out=y[t])
    return y


def td_error(rollout: Rollout, *, gamma: float) -> Tensor:
    """delta_t = r_{t+1} + gamma V(s_{t+1}) - V(s_t), the one-step advantage. [T, N], 0 on rows that are not valid.

    A terminated step has no successor; a truncated one is bootstrapped from its true successor.
    """
    successor = gamma * rollout.next_value * ~rollout.terminated
    return torch.where(rollout.valid, rollout.reward + successor - rollout.value, 0.0)


def gae(rollout: Rollout, *, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16). [T, N].

    A_t = sum_l (gamma lambda)^l delta_{t+l}, the sum stopping at the episode's or the rollout's end. ``gae_lambda`` 0
    is the TD error; 1 is the Monte Carlo return, bootstrapped where it was cut off, minus the value.
    """
    decay = gamma * gae_lambda * (~rollout.done).to(rollout.reward.dtype)
    return reverse_scan(td_error(rollout, gamma=gamma), decay)


def monte_carlo(rollout: Rollout, *, gamma: float) -> Tensor:
    """R_t = r_{t+1} + gamma r_{t+2} + ..., the reward to go (Sutton and Barto 2018, eq. 3.8). [T, N].

    Up to the episode's end; where the rollout's end or a truncation cuts the episode off, the rest is what the critic
    expects of the state it stopped in. Equals GAE with ``gae_lambda`` 1, plus the value. 0 on rows that are not valid.
    """
    cut = rollout.truncated & ~rollout.terminated
    cut[-1] = ~rollout.terminated[-1]
    reward = torch.where(rollout.valid, rollout.reward + gamma * rollout.next_value * cut, 0.0)
    return reverse_scan(reward, gamma * (~rollout.done).to(reward.dtype))


def standardize(x: Tensor, valid: Tensor) -> Tensor:
    """Zero mean and unit standard deviation over the valid elements; ``x`` and ``valid`` of one shape.

    What is constant up to rounding (or a single valid element) becomes 0 rather than noise over almost nothing.
    """
    count = valid.sum().clamp(min=1)
    mean = torch.where(valid, x, 0.0).sum() / count
    centred = torch.where(valid, x - mean, 0.0)
    std = (centred.square().sum() / (count - 1).clamp(min=1)).sqrt()
    return torch.where(std <= NOISE * mean.abs(), 0.0, centred / (std + 1e-8))  # so written, NaN stays NaN


def explained_variance(value: Tensor, value_target: Tensor, valid: Tensor) -> Tensor:
    """1 - Var[target - value] / Var[target] over the valid elements, 0-d; NaN where the target does not vary.

    1: the critic foresees everything; 0: no better than a constant; below 0: worse than a constant.
    """
    count = valid.sum().clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return torch.where(valid, x, 0.0).sum() / count

    def variance(x: Tensor) -> Tensor:
        return mean((x - mean(x)).square())

    target_variance = variance(value_target)
    explained = 1.0 - variance(value_target - value) / target_variance
    return torch.where(target_variance.sqrt() > NOISE * mean(value_target).abs(), explained, torch.nan)
