"""The entries of ``wrappers``: Gymnasium's wrappers by their names, without those whose figures would be lost."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorWrapper

Wrapper = Callable[[Any], Any]

SETTINGS = {"NormalizeObservation": "normalize_obs=true", "NormalizeReward": "normalize_reward=true"}
"""Wrappers that keep moments of their own, and the setting that keeps them in the checkpoint."""

FORM = "expected a name from gymnasium.wrappers, or {name: {keyword: value}}"


def wrapper_named(wrapper: str | Mapping[str, Mapping[str, Any]] | Wrapper) -> Wrapper:
    """One entry of ``wrappers`` as a function from environment to environment.

    Raises:
        ValueError: ``gymnasium.wrappers`` has none of that name, its moments would not be saved, or the entry has
            another form; the function raises it where the wrapper refuses the environment or a keyword.
    """
    if callable(wrapper):
        return wrapper
    entry = {wrapper: {}} if isinstance(wrapper, str) else wrapper
    if not isinstance(entry, Mapping) or not all(isinstance(keywords, Mapping) for keywords in entry.values()):
        raise ValueError(f"wrappers: {entry}: {FORM}")
    if len(entry) != 1:
        each = ", ".join(f"{{{name}: {dict(keywords)}}}" for name, keywords in entry.items()).replace("'", "")
        raise ValueError(f"wrappers: {len(entry)} names in one entry; expected one in each: [{each or '{name: {}}'}]")
    ((name, keywords),) = entry.items()
    last = str(name).rpartition(".")[2]
    if last in SETTINGS:
        raise ValueError(_not_saved(last))
    known = [each for each in gym.wrappers.__all__ if each != "vector"]
    if name not in known:
        nearest = difflib.get_close_matches(last, known, n=1)
        raise ValueError(f"gymnasium.wrappers has no {name!r}; " + (f"did you mean {nearest[0]}?" if nearest else FORM))

    def put_around(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        try:
            wrapped: gym.Env[Any, Any] = getattr(gym.wrappers, name)(env, **keywords)
        except Exception as error:  # Gymnasium's own code: whatever it raises is about the setting
            given = f" with {dict(keywords)}" if keywords else ""
            raise ValueError(f"wrappers: {name}{given} does not fit: {type(error).__name__}: {error}") from error
        return wrapped

    return put_around


def require_saved_moments(env: Any) -> None:  # noqa: ANN401 - an environment or a batch of them
    """See that no layer of the environment, whoever put it there, learns what no checkpoint holds.

    Raises:
        ValueError: one does.
    """
    layer = env
    while isinstance(layer, gym.Wrapper | VectorWrapper):
        for name in SETTINGS:
            kinds = getattr(gym.wrappers, name), getattr(gym.wrappers.vector, name)
            if isinstance(layer, kinds) and layer.update_running_mean:
                raise ValueError(_not_saved(name))
        layer = layer.env


def _not_saved(name: str) -> str:
    setting = SETTINGS[name]
    return (
        f"wrappers: {name} begins anew in each environment and is not saved with the policy: evaluations would be "
        f"wrong; {setting} does the same and is saved"
    )
