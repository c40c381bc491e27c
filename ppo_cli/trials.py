"""Which runs are samples of the same trial: the same settings, another seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Hyperparameter = bool | int | float | str | None

NOT_HYPERPARAMETERS = {
    *("seed", "seeds", "run_name", "output_dir", "resume", "trust", "quiet", "device", "accelerate", "num_threads"),
    *("log_interval", "checkpoint_interval", "keep_checkpoints", "keep_every", "keep_best", "eval_interval"),
    *("eval_episodes", "claim", "jobs", "job_timeout", "again"),
}
"""Keys that change where a run is computed, how it is watched, or which sample of it is drawn: not what is compared."""

MAX_HYPERPARAMETERS = 32
"""Columns of the HParams table: TensorBoard becomes unreadable, then slow, with many more."""


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Hyperparameter]:
    """The scalars of a configuration by dotted name: top-level keys first, then the nested ones, the first 32."""
    flat: dict[str, Hyperparameter] = {}
    pending = [("", config)]
    while pending:
        prefix, level = pending.pop(0)
        for key, value in level.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                pending.append((f"{name}.", value))
            elif isinstance(value, Hyperparameter) and not key.startswith("_") and name not in NOT_HYPERPARAMETERS:
                flat[name] = value
    return dict(list(flat.items())[:MAX_HYPERPARAMETERS])


def trial_id(config: Mapping[str, Any]) -> str:
    """Equal for configurations that differ in nothing but the seed and how the run is watched."""
    compared = {key: value for key, value in config.items() if key not in NOT_HYPERPARAMETERS}
    return hashlib.sha256(json.dumps(compared, sort_keys=True, default=str).encode()).hexdigest()[:16]
