"""The contract between the trainer and an environment: a batch that is stepped as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium.spaces import Space
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.faults import TRANSITIONS, Faults, NonFiniteError
from ppo_cli.types import Obs, Step

Autoreset = Literal["same_step", "next_step"]


class VecEnv(Protocol):
    """N environments of one kind. A class that has these members is an environment; nothing needs to be inherited.

    The constructor takes ``num_envs`` and the environment's own settings, as keywords.

    With ``autoreset = "same_step"`` the observation after an episode's last step is the next episode's first one, and
    ``final_obs`` holds the true successor. With ``"next_step"`` the observation after the last step is the true
    successor itself; the step after it ignores its action, pays nothing and returns the next episode's first
    observation: a dead step that the collector marks as not ``valid``.

    One that never truncates may say so by ``truncates = False``: then nothing looks for truncated episodes at every
    step, which on a GPU would mean to wait for it. One that lives on a device takes ``device`` in its constructor.

    Tensors that ``reset`` and ``step`` return may be overwritten by the next call: copy what is kept.
    """

    num_envs: int
    single_observation_space: Space[Any]
    single_action_space: Space[Any]
    autoreset: Autoreset

    def reset(self, seeds: Sequence[int]) -> Obs:
        """Start N fresh episodes, environment n from ``seeds[n]``. Returns the first observations [N, *O]."""
        ...

    def step(self, action: Tensor) -> Step:
        """Take one action in each environment; ``action`` [N, *A]."""
        ...

    def episode_metrics(self) -> dict[str, Tensor]:
        """Figures of the episodes that the last step ended, by tag, each [N] float32; read only where done."""
        ...

    def close(self) -> None:
        """Release windows, files and processes."""
        ...


class ArrayStep(NamedTuple):
    """A `Step` in NumPy's arrays."""

    obs: NDArray[Any]  # [N, *O]
    reward: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    final_obs: NDArray[Any]  # [N, *O]

    def tensors(self) -> Step:
        """The same memory; one observation where the final one is the other."""
        obs, reward, terminated, truncated = map(torch.from_numpy, self[:4])
        final_obs = obs if self.final_obs is self.obs else torch.from_numpy(self.final_obs)
        return Step(obs, reward, terminated, truncated, final_obs)


@runtime_checkable
class StepsArrays(Protocol):
    """An environment that can be stepped without a tensor: small ones take less time than their tensors."""

    @property
    def gives_arrays(self) -> bool:
        """Whether it can, as it was configured."""
        ...

    def step_arrays(self, action: NDArray[Any]) -> ArrayStep:
        """As ``VecEnv.step``."""
        ...


def may_truncate(env: VecEnv) -> bool:
    """Whether episodes may be cut short: yes, unless the environment says ``truncates = False``."""
    return bool(getattr(env, "truncates", True))


TRAINING, EVALUATION, RESUMED = 0, 2, 2
"""Streams of `env_seeds`. The n-th resume, n from 1, is ``RESUMED + n``: no episode is played for two purposes."""


def env_seeds(seed: int, num_envs: int, stream: int = TRAINING) -> list[int]:
    """N independent seeds from one root, other ones in each ``stream``.

    Not ``seed + n``: with that, run 1 and run 2 would share all environments but one.
    """
    return [int(word) for word in np.random.SeedSequence([seed, stream]).generate_state(num_envs)]


class NoStateError(Exception):
    """An environment's episodes cannot be continued from a checkpoint. The message says why, in a clause."""


@runtime_checkable
class HasState(Protocol):
    """An environment whose episodes can be continued from a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, numbers and text.

        Raises:
            NoStateError: this one's cannot, after all.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken.

        Raises:
            NoStateError: ``state`` belongs to an environment that was built differently.
        """
        ...


class EnvError(Exception):
    """An environment failed for good. The message names it and the cause.

    Args:
        traceback: Where it raised, as its author knows it; empty where it did not.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class Fault(NamedTuple):
    """Something that went wrong in the last step and was put right.

    The step of these environments is void: it paid nothing, and fresh episodes have begun in them.
    """

    envs: list[int]
    kind: Literal["restart", "nonfinite"]
    cause: str  # a clause

    def tell(self, faults: Faults) -> None:
        """Have it counted and said.

        Raises:
            NonFiniteError: there were too many of its kind.
        """
        if self.kind == "restart":
            faults.restarted(self.cause, self.envs)
        else:
            faults.skip(TRANSITIONS, NonFiniteError(self.cause))


@runtime_checkable
class HasFaults(Protocol):
    """An environment whose parts may fail and be replaced."""

    may_fail: bool
    """Whether they may, as it was built."""

    def faults(self) -> list[Fault]:
        """What went wrong since the last call."""
        ...


@runtime_checkable
class HasPicture(Protocol):
    """An environment that can draw its latest finished episodes."""

    def picture(self) -> NDArray[np.uint8] | None:
        """uint8 [H, W, 3], or None before the first episode has ended."""
        ...


@runtime_checkable
class HasFrame(Protocol):
    """An environment whose first copy can be watched. ``render_fps`` says how many steps a second look natural."""

    render_fps: float

    def frame(self) -> NDArray[np.uint8]:
        """What the last ``reset`` or ``step`` of environment 0 led to, before any autoreset; uint8 [H, W, 3].

        Raises:
            ValueError: it cannot be drawn here; says what is missing.
        """
        ...
