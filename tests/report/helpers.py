"""Run folders written by hand, so that what a report says can be computed from what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG = {
    "total_env_steps": 40,
    "num_envs": 4,
    "seed": 1,
    "output_dir": "outputs",
    "clip": 0.2,
    "max_grad_norm": 0.5,
    "algo": {"_target_": "ppo_cli.algorithms.ppo.PPO", "name": "ppo"},
    "env": {"_target_": "ppo_cli.envs.cartpole.CartPole", "name": "cartpole", "max_steps": 500},
}


def write_run(
    folder: Path,
    curves: Mapping[str, Sequence[float | None]] | Sequence[float | None] = (1.0, 2.0, 3.0, 4.0),
    *,
    status: str = "completed",
    overrides: Sequence[str] = ("env=cartpole",),
    summary: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """One run whose figures, one every ten steps, are these; a plain sequence is the return."""
    folder.mkdir(parents=True)
    named = curves if isinstance(curves, Mapping) else {"charts/episodic_return": curves}
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | settings))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    length = max(map(len, named.values()), default=0)
    lines = [
        {"env_steps": 10 * (t + 1), "update": t + 1, "wall_time": 1e9 + t}
        | {tag: values[t] for tag, values in named.items() if t < len(values)}
        for t in range(length)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = {
        "status": status,
        "error": None,
        "env_steps": 10 * length,
        "total_env_steps": 40,
        "started": "2026-01-01T00:00:00+00:00",
        "command": "ppo-train env=cartpole",
        "steps_per_second": 1000.0,
        "wall_seconds": 2.0,
    }
    (folder / "summary.json").write_text(json.dumps(told | (summary or {})))
    return folder
