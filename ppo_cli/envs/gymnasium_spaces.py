"""What a policy sees and does, in place of the spaces that a Gymnasium environment declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ppo_cli.distributions import MOST_CHOICES

ActionTranslation = Callable[[NDArray[Any]], NDArray[Any]]


def emitted_space(space: spaces.Space[Any], id: str) -> spaces.Box:
    """The space of the tensors that stand for an environment's observations: uint8 images, or float32."""
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"{id} has observations of {space}, which do not become one array: use vectorization=sync for a native "
            "environment, or a wrapper such as FilterObservation, FlattenObservation or TransformObservation"
        )
    if space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return space
    return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def action_translation(space: spaces.Space[Any], id: str) -> tuple[spaces.Space[Any], ActionTranslation]:
    """The space that the policy acts in, and the function from its actions [N, *A] to the environment's."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return spaces.Discrete(int(space.n)), lambda action: action + start
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return _box_translation(space)
    choices = choices_of(space)
    if choices is None or not 0 < choices[0].size * int(choices[0].max(initial=0)) <= MOST_CHOICES:
        raise ValueError(
            f"{id} has actions of {space}; a policy here acts in Discrete, MultiDiscrete, MultiBinary, or in Box with "
            f"real numbers or at most {MOST_CHOICES:,} whole ones: wrap the environment with TransformAction into one "
            "of these"
        )
    counts, first = choices

    def to_env_action(action: NDArray[Any]) -> NDArray[Any]:
        return (action.reshape(len(action), *counts.shape) + first).astype(space.dtype)

    return spaces.MultiDiscrete(counts.ravel()), to_env_action


def choices_of(space: spaces.Space[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Of an action that is several choices at once: how many there are for each, and the first, both [*A]."""
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.astype(np.int64), space.start.astype(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return np.full(space.shape, 2), np.zeros(space.shape, np.int64)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        span = space.high.astype(object) - space.low.astype(object)  # Python's integers: int64 could overflow
        return np.array(np.minimum(span, 2**52) + 1, np.int64), space.low.astype(np.int64)
    return None


def _box_translation(space: spaces.Box) -> tuple[spaces.Box, ActionTranslation]:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high)
    centre = np.where(bounded, (np.where(bounded, low, 0) + np.where(bounded, high, 0)) / 2, 0)
    half_width = np.where(bounded, (np.where(bounded, high, 0) - np.where(bounded, low, 0)) / 2, 1)

    def to_env_action(action: NDArray[Any]) -> NDArray[Any]:
        stretched: NDArray[np.float64] = centre + half_width * action.reshape(len(action), *space.shape)
        return stretched.clip(low, high).astype(space.dtype)

    policy_low = np.where(bounded, -1, low).astype(np.float32)
    policy_high = np.where(bounded, 1, high).astype(np.float32)
    return spaces.Box(policy_low, policy_high, dtype=np.float32), to_env_action
