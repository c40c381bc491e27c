"""Gymnasium's own vector environments, made from the words of our settings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from ppo_cli.envs.gymnasium_specs import ATARI, entry_point, missing_package
from ppo_cli.envs.gymnasium_wrappers import Wrapper, require_saved_moments
from ppo_cli.envs.supervised import SupervisedVectorEnv
from ppo_cli.parallel import available_cores

AnyVectorEnv = VectorEnv[Any, Any, Any]


class Workers(NamedTuple):
    """How asynchronous environments are run; the words are those of ``GymnasiumVecEnv``."""

    number: int
    timeout: float
    max_restarts: int


def make_vector_env(
    spec: EnvSpec,
    num_envs: int,
    kwargs: dict[str, Any],
    vectorization: str,
    autoreset: str,
    wrappers: Sequence[Wrapper],
    workers: Workers,
) -> AnyVectorEnv:
    """Gymnasium's own vector environment for these settings; the words are those of ``GymnasiumVecEnv``.

    Raises:
        ValueError: if the environment lacks a package, refuses a keyword, or cannot be stepped that way.
    """
    if vectorization == "native" or (vectorization == "auto" and spec.vector_entry_point and not wrappers):
        env = _make_native(spec, num_envs, kwargs, wrappers)
        mode = autoreset_mode(env)
        if autoreset in ("auto", mode) and mode in ("same_step", "next_step"):
            return env
        env.close()
        if vectorization == "native":
            raise ValueError(_other_autoreset(spec.id, mode, autoreset))
    make_env = partial(make_single, spec, kwargs, [*wrappers, _flat, _FinalObsKept])
    restart = AutoresetMode.NEXT_STEP if autoreset == "next_step" else AutoresetMode.SAME_STEP
    if vectorization != "async":
        return SyncVectorEnv([make_env] * num_envs, copy=False, autoreset_mode=restart)
    num_workers = workers.number or available_cores()
    return SupervisedVectorEnv(make_env, num_envs, restart, num_workers, workers.timeout, workers.max_restarts)


def make_single(spec: EnvSpec, kwargs: dict[str, Any], wrappers: Sequence[Wrapper]) -> gym.Env[Any, Any]:
    """One environment in its wrappers."""
    env: gym.Env[Any, Any] = _made(gym.make, spec, kwargs)
    for wrapper in wrappers:
        env = wrapper(env)
    require_saved_moments(env)
    return env


def _make_native(spec: EnvSpec, num_envs: int, kwargs: dict[str, Any], wrappers: Sequence[Wrapper]) -> AnyVectorEnv:
    if not spec.vector_entry_point:
        raise ValueError(f"{spec.id} has no vector entry point: use vectorization=sync or async")
    if wrappers:
        raise ValueError(f"{spec.id} steps natively, where wrappers cannot be put in: use vectorization=sync or async")
    make = partial(gym.make_vec, num_envs=num_envs, vectorization_mode="vector_entry_point")
    env: AnyVectorEnv = _made(make, spec, kwargs)
    require_saved_moments(env)
    return env


def _made(make: Callable[..., Any], spec: EnvSpec, kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - one, or a batch
    """What ``make`` returns. Gymnasium's own environments raise whatever it may be about a keyword."""
    steps = kwargs.get("max_episode_steps")
    if steps is not None and steps != -1 and not (type(steps) is int and steps > 0):
        raise ValueError(f"kwargs.max_episode_steps={steps}: expected a whole number at least 1, or -1 for no limit")
    place = entry_point(spec)
    try:
        return make(spec, **kwargs)
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ValueError(missing_package(spec.id, place, error)) from error
    except Exception as error:
        if not (isinstance(error, TypeError) or place.startswith(("gymnasium.", ATARI))):
            raise
        given = f" with kwargs {kwargs}" if kwargs else ""
        raise ValueError(f"{spec.id} could not be made{given}: {type(error).__name__}: {error}") from error


def _other_autoreset(id: str, mode: str, asked: str) -> str:
    """Why a native environment of this autoreset mode is not what was asked for."""
    if mode in ("same_step", "next_step"):
        return f"{id} steps natively with autoreset {mode}, but {asked} was asked for: use vectorization=sync"
    return (
        f"{id} steps natively with autoreset {mode or 'not declared'}, and only same_step and next_step are known: "
        "use vectorization=sync"
    )


def autoreset_mode(env: AnyVectorEnv) -> str:
    """``same_step``, ``next_step``, ``disabled``, or empty if the environment declares none."""
    names = {form: mode.name.lower() for mode in AutoresetMode for form in (mode, mode.name, mode.value)}
    declared = env.metadata.get("autoreset_mode", "")
    return names.get(declared, str(declared))


class _FinalObsKept(gym.Wrapper[Any, Any, Any, Any]):
    """Copies an episode's last observation, since an environment may reset into the same buffer.

    Observations of another shape than the environment's space go no further: a batch has no place for them.
    """

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401 - what Gymnasium takes
        obs, info = self.env.reset(**settings)
        require_shape(self, obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401 - any action
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            require_shape(self, obs)  # of all others the batch itself takes care
            obs = copy.copy(obs)
        return obs, reward, terminated, truncated, info


def require_shape(env: gym.Env[Any, Any], obs: Any) -> None:  # noqa: ANN401 - whatever the environment gives
    """Make sure that an observation has the shape that its environment declares.

    Raises:
        ValueError: naming the environment and both shapes.
    """
    shape = env.observation_space.shape
    if shape is not None and np.shape(obs) != shape:
        spec = env.unwrapped.spec
        raise ValueError(
            f"{spec.id if spec else env.unwrapped} gave an observation of shape {list(np.shape(obs))}, but its "
            f"observation_space has shape {list(shape)}"
        )


def _flat(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The environment, its observations flattened to a vector if they are not arrays already."""
    if isinstance(env.observation_space, spaces.Box) or not env.observation_space.is_np_flattenable:
        return env
    return gym.wrappers.FlattenObservation(env)
