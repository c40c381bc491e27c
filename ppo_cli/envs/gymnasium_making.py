"""Gymnasium's own vector environments, made from the words of our settings."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from ppo_cli.envs.gymnasium_wrappers import Wrapper, require_saved_moments
from ppo_cli.envs.supervised import SupervisedVectorEnv
from ppo_cli.parallel import available_cores

AnyVectorEnv = VectorEnv[Any, Any, Any]


EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco", "ale_py": "atari"}
"""Package that an environment's entry point lives in, and the extra of ours that installs what it needs."""


class Workers(NamedTuple):
    """How asynchronous environments are run; the words are those of ``GymnasiumVecEnv``."""

    number: int
    timeout: float
    max_restarts: int


def find_spec(id: str, trusted_modules: Sequence[str] = ()) -> EnvSpec:
    """The registered environment of that id; ``module:id`` imports a trusted module first, which registers it.

    Raises:
        ValueError: if the id is unknown, or its module is not trusted or not found.
    """
    module, _, name = id.rpartition(":")
    package = module.partition(".")[0]
    if module and package not in trusted_modules:
        raise ValueError(f"{id} would import {module}, which is not trusted: add {package} to the trusted modules")
    if name.startswith("ALE/"):
        module = module or "ale_py"
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(_missing_package(name, module, error)) from error
    if (spec := gym.registry.get(name)) is not None:
        return spec
    nearest = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "a module of your own is named as module:id"
    raise ValueError(f"no environment is registered as {name!r}; {hint}")


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
    try:
        if vectorization == "native" or (vectorization == "auto" and spec.vector_entry_point and not wrappers):
            env = _make_native(spec, num_envs, kwargs, wrappers)
            mode = autoreset_mode(env)
            if autoreset in ("auto", mode) and mode in ("same_step", "next_step"):
                return env
            env.close()
            if vectorization == "native":
                raise ValueError(
                    f"{spec.id} steps natively with autoreset {mode or 'not declared'}, but {autoreset} was asked for "
                    "and only same_step and next_step are known: use vectorization=sync"
                )
        make_env = partial(make_single, spec, kwargs, [*wrappers, _flat, _FinalObsKept])
        restart = AutoresetMode.NEXT_STEP if autoreset == "next_step" else AutoresetMode.SAME_STEP
        if vectorization != "async":
            return SyncVectorEnv([make_env] * num_envs, copy=False, autoreset_mode=restart)
        num_workers = workers.number or available_cores()
        return SupervisedVectorEnv(make_env, num_envs, restart, num_workers, workers.timeout, workers.max_restarts)
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ValueError(_missing_package(spec.id, str(spec.entry_point), error)) from error
    except TypeError as error:
        raise ValueError(f"{spec.id} could not be made with kwargs {kwargs}: {error}") from error


def make_single(spec: EnvSpec, kwargs: dict[str, Any], wrappers: Sequence[Wrapper]) -> gym.Env[Any, Any]:
    """One environment in its wrappers."""
    env = gym.make(spec, **kwargs)
    for wrapper in wrappers:
        env = wrapper(env)
    require_saved_moments(env)
    return env


def _make_native(spec: EnvSpec, num_envs: int, kwargs: dict[str, Any], wrappers: Sequence[Wrapper]) -> AnyVectorEnv:
    if not spec.vector_entry_point:
        raise ValueError(f"{spec.id} has no vector entry point: use vectorization=sync or async")
    if wrappers:
        raise ValueError(f"{spec.id} steps natively, where wrappers cannot be put in: use vectorization=sync or async")
    env = gym.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **kwargs)
    require_saved_moments(env)
    return env


def autoreset_mode(env: AnyVectorEnv) -> str:
    """``same_step``, ``next_step``, ``disabled``, or empty if the environment declares none."""
    names = {form: mode.name.lower() for mode in AutoresetMode for form in (mode, mode.name, mode.value)}
    declared = env.metadata.get("autoreset_mode", "")
    return names.get(declared, str(declared))


class _FinalObsKept(gym.Wrapper[Any, Any, Any, Any]):
    """Copies an episode's last observation, since an environment may reset into the same buffer."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401 - any action
        obs, reward, terminated, truncated, info = self.env.step(action)
        return copy.copy(obs) if terminated or truncated else obs, reward, terminated, truncated, info


def _flat(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The environment, its observations flattened to a vector if they are not arrays already."""
    if isinstance(env.observation_space, spaces.Box) or not env.observation_space.is_np_flattenable:
        return env
    return gym.wrappers.FlattenObservation(env)


def _missing_package(id: str, entry_point: str, error: ImportError | DependencyNotInstalled) -> str:
    extra = next((name for package, name in EXTRAS.items() if entry_point.startswith(package)), None)
    if extra is None:
        return f"{id} needs a package that is not installed: {error}"
    return f"{id} needs packages that are not installed: pip install 'ppo-cli[{extra}]'"
