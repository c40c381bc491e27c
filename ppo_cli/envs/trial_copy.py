"""A trial of what an environment calls its state: does a copy of it play on like the original?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from ppo_cli.envs.base import NoStateError, VecEnv
from ppo_cli.types import Obs

Env = TypeVar("Env", bound=VecEnv)

COPIED_ENVS = 2
STEPS, SECONDS = 100, 0.5
"""How much is played before the copy and after it, at most."""


def try_copies(
    make: Callable[[], Env], capture: Callable[[Env], dict[str, Any]], restore: Callable[[Env, dict[str, Any]], None]
) -> str:
    """Play, copy into a fresh environment in the middle, and play on with both.

    Why they did not go the same way, as a clause, or nothing. What is made is closed again.
    """
    try:
        with closing(make()) as original, closing(make()) as copied:
            generator = Generator().manual_seed(0)
            obs = original.reset(list(range(original.num_envs)))
            copied.reset(list(range(7, 7 + copied.num_envs)))
            for action_of in trial(original.single_action_space, generator):
                obs = original.step(action_of(obs)).obs
            restore(copied, capture(original))
            for action_of in trial(original.single_action_space, generator):
                action = action_of(obs)
                ours, theirs = original.step(action), copied.step(action)
                if not all(map(alike, ours, theirs)):
                    return "a copy of its attributes did not play on like the original"
                obs = ours.obs
    except NoStateError as error:
        return str(error)
    except Exception as error:  # of anyone's environment; the run itself goes on without copies
        return f"a copy of it could not be tried ({type(error).__name__}: {error})"
    return ""


def trial(space: spaces.Space[Any], generator: Generator) -> Iterator[Callable[[Obs], Tensor]]:
    """For some steps, and no longer than some time, how to choose a random action from an observation."""

    def choose(obs: Obs) -> Tensor:
        if isinstance(obs, dict):
            return torch.multinomial(obs["legal"].float(), 1, generator=generator).squeeze(-1)
        if isinstance(space, spaces.Discrete):
            return torch.randint(int(space.n), (len(obs),), generator=generator)
        if isinstance(space, spaces.MultiDiscrete):
            choices = [torch.randint(int(n), (len(obs),), generator=generator) for n in space.nvec]
            return torch.stack(choices, dim=-1)
        return 2 * torch.rand(len(obs), *(space.shape or ()), generator=generator) - 1

    end = time.monotonic() + SECONDS
    for _ in range(STEPS):
        if time.monotonic() > end:
            return
        yield choose


def alike(ours: Obs, theirs: Obs) -> bool:
    """Whether two observations, or two tensors, hold the same bits."""
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and all(alike(ours[key], theirs[key]) for key in ours)
    return isinstance(theirs, Tensor) and ours.numpy().tobytes() == theirs.numpy().tobytes()
