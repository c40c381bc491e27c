"""Which runs are samples of the same trial: the same settings, another seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Hyperparameter = bool | int | float | str | None

NOT_HYPERPARAMETERS = {
    *("seed", "seeds", "run_name", "output_dir", "resume", "trust", "quiet", "device", "accelerate", "num_threads"),
    *("log_interval", "checkpoint_interval", "keep_checkpoints", "keep_every", "keep_best", "eval_interval"),
    *("eval_episodes", "claim", "jobs", "job_timeout", "again"),
}
"""Keys that change where a run is computed, how it is watched, or which sample of it is drawn: not what is compared."""

GROUPS = ("env", "network", "algo")
"""Keys that choose a part by its name."""

TASK = ("env.name", "total_env_steps")
"""What is learnt, and for how long: often typed, seldom what configurations are compared by."""

MAX_HYPERPARAMETERS = 48
"""Columns of the HParams table: TensorBoard becomes unreadable, then slow, with many more."""


SHOWN = 5
"""Columns that TensorBoard ticks by itself."""


@dataclass(frozen=True)
class HParamsTable:
    """What runs that stand in one HParams table have to agree upon."""

    columns: dict[str, Hyperparameter]
    """Every hyperparameter, with a value of its type."""
    shown: list[str]
    """Those that come first."""


def hparams_table(configs: Sequence[Mapping[str, Any]], typed: Sequence[str]) -> HParamsTable:
    """The table for runs with these configurations: what was ``typed`` comes first.

    Parallel coordinates leave out a run that lacks a ticked hyperparameter. Where some lack some, those come next that
    all have, the ones that differ first, so that TensorBoard ticks no other.
    """
    flat = [flattened(config) for config in configs]
    values = {name: [each.get(name) for each in flat] for settings in flat for name in settings}
    differing = {name for name, found in values.items() if any(value != found[0] for value in found)}
    shown = [name for name in chosen_settings(typed) if name in values and (name not in TASK or name in differing)]
    if any(settings.keys() != values.keys() for settings in flat):
        common = [name for name, found in values.items() if None not in found and name not in shown]
        shown += sorted(common, key=lambda name: name not in differing)[: max(0, SHOWN - len(shown))]
    return HParamsTable(hyperparameters(*configs, chosen=shown), shown)


def hyperparameters(*configs: Mapping[str, Any], chosen: Sequence[str] = ()) -> dict[str, Hyperparameter]:
    """The settings of configurations by dotted name, the first 48: ``chosen`` ones, top-level keys, nested ones.

    Of several configurations every name that any of them has, with the first value that says something.
    """
    flat: dict[str, Hyperparameter] = {}
    for config in configs:
        for name, value in flattened(config).items():
            if flat.get(name) is None:
                flat[name] = value
    ordered = {name: flat[name] for name in chosen if name in flat} | dict(sorted(flat.items(), key=depth))
    return dict(list(ordered.items())[:MAX_HYPERPARAMETERS])


def depth(setting: tuple[str, Hyperparameter]) -> int:
    """How deep a setting is nested."""
    return setting[0].count(".")


def flattened(config: Mapping[str, Any]) -> dict[str, Hyperparameter]:
    """Every setting that is compared, by dotted name. Lists are texts, as one would type them."""
    flat: dict[str, Hyperparameter] = {}
    pending = [("", config)]
    while pending:
        prefix, level = pending.pop(0)
        for key, value in level.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                pending.append((f"{name}.", value))
            elif not key.startswith("_") and name not in NOT_HYPERPARAMETERS:
                flat[name] = value if isinstance(value, Hyperparameter) else str(value).replace(" ", "")
    return flat


def chosen_settings(overrides: Sequence[str]) -> list[str]:
    """Dotted names of what was typed: ``clip`` for ``clip=0.1``, ``algo.name`` for ``algo=trpo``."""
    words = dict.fromkeys(override.lstrip("+").partition("=")[0] for override in overrides)
    return [f"{word}.name" if word in GROUPS else word for word in words]


def trial_id(config: Mapping[str, Any]) -> str:
    """Equal for configurations that differ in nothing but the seed and how the run is watched."""
    compared = {key: value for key, value in config.items() if key not in NOT_HYPERPARAMETERS}
    return hashlib.sha256(json.dumps(compared, sort_keys=True, default=str).encode()).hexdigest()[:16]
