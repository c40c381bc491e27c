"""`ppo_cli.advantages` over a whole rollout in one call; sums are taken in the same order."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.rounding import NOISE

Flags = NDArray[np.bool_]


class Advantages(NamedTuple):
    """What the estimator reads of a rollout, and what it fills; all [T, N]."""

    reward: Floats
    value: Floats
    next_value: Floats
    terminated: Flags
    truncated: Flags
    valid: Flags
    advantage: Floats
    value_target: Floats


@partial(compiled, brief=True)
def gae(rows: Advantages, gamma: np.float32, decay: np.float32) -> None:
    """Fill ``advantage`` and ``value_target``; ``decay`` is gamma times lambda."""
    length, num_envs = rows.reward.shape
    for n in range(num_envs):
        tail = np.float32(0.0)
        for t in range(length - 1, -1, -1):
            error = np.float32(0.0)
            if rows.valid[t, n]:
                successor = np.float32(0.0) if rows.terminated[t, n] else gamma * rows.next_value[t, n]
                error = rows.reward[t, n] + successor - rows.value[t, n]
            tail = error if rows.terminated[t, n] or rows.truncated[t, n] else error + decay * tail
            rows.advantage[t, n] = tail
            rows.value_target[t, n] = tail + rows.value[t, n]


@partial(compiled, brief=True)
def explained_variance(value: Floats, value_target: Floats, valid: Flags) -> Any:  # noqa: ANN401 (a float)
    """1 - Var[target - value] / Var[target] over the valid elements [B]; NaN where the target does not vary."""
    count, error_mean, target_mean = 0, 0.0, 0.0
    for b in range(len(value)):
        if valid[b]:
            count += 1
            target_mean += value_target[b]
            error_mean += value_target[b] - value[b]
    target_mean /= max(count, 1)
    error_mean /= max(count, 1)
    error_variance, target_variance = 0.0, 0.0
    for b in range(len(value)):
        if valid[b]:
            target_variance += (value_target[b] - target_mean) ** 2
            error_variance += (value_target[b] - value[b] - error_mean) ** 2
    target_std = math.sqrt(target_variance / max(count, 1))
    return 1.0 - error_variance / target_variance if target_std > NOISE * abs(target_mean) else np.nan
