"""Which environment an id means, and which packages it needs. Imports no torch: settings are checked by this, too."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Iterable, Sequence

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

ATARI = "ale_py"
EXTRAS = {
    "gymnasium.envs.box2d": ("Box2D", "box2d"),
    "gymnasium.envs.mujoco": ("mujoco", "mujoco"),
    ATARI: (ATARI, "atari"),
}
"""What an environment's entry point begins with; the module that it needs, and the extra of ours that installs it."""


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
        module = module or ATARI
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(missing_package(id, module, error)) from error
    if (spec := registered(name)) is not None:
        return spec
    nearest = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "a module of your own is named as module:id"
    raise ValueError(f"no environment is registered as {name!r}; {hint}")


def registered(name: str) -> EnvSpec | None:
    """The environment of that name; without a version it is the latest one, as in Gymnasium."""
    return gym.registry.get(name) or gym.registry.get(latest_version(name, gym.registry))


def latest_version(name: str, names: Iterable[str]) -> str:
    """``CartPole`` means the highest ``CartPole-v...`` among ``names``."""
    versions = [known for known in names if re.fullmatch(re.escape(name) + r"-v\d+", known)]
    return max(versions, key=lambda known: int(known.rpartition("-v")[2]), default=name)


def entry_point(spec: EnvSpec) -> str:
    """Where the environment's class is, as ``module:name``."""
    point = spec.entry_point or spec.vector_entry_point
    return point if isinstance(point, str) else f"{getattr(point, '__module__', '')}:{getattr(point, '__name__', '')}"


def missing_extra(id: str) -> tuple[str, str] | None:
    """A module that the environment needs and that is not installed, and the extra that installs it."""
    spec = registered(id)
    place = entry_point(spec) if spec else ATARI if id.startswith("ALE/") else ""
    for prefix, (module, extra) in EXTRAS.items():
        if place.startswith(prefix) and importlib.util.find_spec(module) is None:
            return module, extra
    return None


def missing_package(id: str, place: str, error: Exception) -> str:
    """The sentence for an environment, or a module that registers one, which needs what is not installed."""
    extra = next((extra for prefix, (_, extra) in EXTRAS.items() if place.startswith(prefix)), None)
    if extra is not None:
        return f"{id} needs packages that are not installed: pip install 'ppo-cli[{extra}]'"
    name = getattr(error, "name", None)
    if name is None or (name != place and not place.startswith(f"{name}.")):
        return f"{id} needs a package that is not installed: {error}"
    stem = place.removesuffix(".py")
    hint = f"; a file is named without .py: {stem}:{id.rpartition(':')[2]}" if stem != place else ""
    return f"{id}: there is no module {place}{hint}"
