"""Random legal observations of a policy: what its exported forms are compared on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from ppo_cli.normalize import ObsNormalizer
from ppo_cli.policy import Policy


def random_obs(policy: Policy, rows: int, generator: Generator, board: Sequence[int] | None = None) -> list[Tensor]:
    """Random legal observations in the order of their names; ``board`` is another size than the learned one."""
    space = policy.spaces.obs
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"obs": space}
    made = []
    for name, part in parts.items():
        shape = list(part.shape or ())
        if board is not None:
            shape = list(board) if name == "board" else [math.prod(board)]
        if isinstance(part, spaces.MultiBinary):
            made.append(random_legal(rows, shape[0], generator))
        else:
            assert isinstance(part, spaces.Box)
            made.append(random_box(part, [rows, *shape], generator, policy.obs_normalizer))
    return made


def random_legal(rows: int, num_actions: int, generator: Generator) -> Tensor:
    """Action masks [rows, num_actions] bool; each allows something."""
    legal = torch.rand(rows, num_actions, generator=generator) < 0.5
    legal[torch.arange(rows), torch.randint(num_actions, (rows,), generator=generator)] = True
    return legal


def random_box(box: spaces.Box, shape: Sequence[int], generator: Generator, normalizer: ObsNormalizer) -> Tensor:
    """[*shape]: uniform where an element has two near bounds, otherwise three times as wide as what was seen."""
    low, high = (torch.from_numpy(bound.astype(np.float64)) for bound in (box.low, box.high))
    if low.shape != tuple(shape[1:]):
        low, high = low.min(), high.max()
    whole = box.dtype is not None and box.dtype.kind in "iu"
    uniform = low + (high - low + whole) * torch.rand(*shape, generator=generator, dtype=torch.float64)
    mean, variance = normalizer.moments.mean, normalizer.moments.variance
    seen = mean + 3 * variance.sqrt() * torch.randn(*shape, generator=generator, dtype=torch.float64)
    values = torch.where(high - low < 1e6, uniform, seen.clamp(low, high))
    return torch.from_numpy((values.floor() if whole else values).numpy().astype(box.dtype))
