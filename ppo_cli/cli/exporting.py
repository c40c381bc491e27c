"""From a run's checkpoint to the files of an export: what the files say about themselves, and that they are right."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gymnasium import spaces

from ppo_cli import checkpoint
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.build import build_evaluation_env, suitable_network
from ppo_cli.cli.declared import declared_settings
from ppo_cli.cli.saved import saved_state
from ppo_cli.cli.secrets import secret_problems
from ppo_cli.cli.trust import current_folder_first, search_path, trusted_modules
from ppo_cli.cli.validate import BOOKKEEPING, Settings
from ppo_cli.envs.base import VecEnv
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.export import ExportError, Form, policy_files, tensors_of, write_files
from ppo_cli.normalize import CLIP
from ppo_cli.policy import DESCRIPTION_FILE, FORMAT, NETWORKS
from ppo_cli.progress import table
from ppo_cli.run_files import METRICS_FILE, git_revision, shown_path, versions
from ppo_cli.spaces import space_to_json
from ppo_cli.train_state import TrainState
from ppo_cli.trials import NOT_HYPERPARAMETERS, Hyperparameter

FIGURES = ("charts/episodic_return", "charts/episodic_length", "minesweeper/win_rate", "eval/episodic_return")
"""What a description tells of how well the policy did."""


def export(config: Settings, run: Path, path: Path | None, output: Path, forms: Sequence[Form]) -> list[str]:
    """Write the policy of one checkpoint, or of the run's newest, and show what was written.

    Returns what the user should know: settings that were left out.

    Raises:
        UserError: nothing that can be exported, or a disk that refused.
    """
    here = {"device": "cpu", "num_threads": 1, "accelerate": "eager", "precision": "float32"}
    try:
        env = build_evaluation_env(config | here, 1)
        state = saved_state(config | here, env, run, path)
        described = description(config, env, state, run)
        env.close()
        described["env"], left_out = without_paths(described["env"], "env")
        if problems := secret_problems([f"{DESCRIPTION_FILE}={json.dumps(described)}"]):
            raise UserError(*problems)
        tensors = tensors_of(state.actor_critic, state.obs_normalizer)
        with current_folder_first():
            files = policy_files(described, tensors, forms, trust=trusted_modules())
        write_files(output, files)
    except (ValueError, RuntimeError, checkpoint.CheckpointError, ExportError) as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({error.strerror})") from error
    show(run, output, described, files)
    return [f"{name}: is a path of this machine and was left out" for name in left_out]


def description(config: Settings, env: VecEnv, state: TrainState, run: Path) -> dict[str, Any]:
    """What ``policy.json`` says, but for its files."""
    space = env_action_space(env)
    settings = {
        name: value
        for name, value in config.items()
        if isinstance(value, Hyperparameter) and (name == "seed" or name not in NOT_HYPERPARAMETERS)
    }
    return {
        "format": FORMAT,
        "network": described_network(config, env),
        "observation_space": space_to_json(env.single_observation_space),
        "action_space": space_to_json(env.single_action_space),
        "env_observation_space": env_observation_space(env),
        "env_action_space": None if space is None else space_to_json(space),
        "normalize_obs": f"(obs - mean) / sqrt(variance + 1e-8), within {CLIP:g}" if config["normalize_obs"] else None,
        "env": config["env"],
        "training": {
            "algo": config["algo"]["name"],
            "settings": settings,
            "env_steps": state.env_steps,
            "updates": state.updates,
            "figures": figures(run / METRICS_FILE, state.env_steps),
            "versions": versions(),
            "git": git_revision(),
        },
    }


def described_network(config: Settings, env: VecEnv) -> dict[str, Any]:
    """Its class and all of its settings, also those left at a default that another version may change."""
    target = config["network"].get("_target_") or suitable_network(env.single_observation_space)
    declared = declared_settings(target, search_path(target)) or {}
    settings = {name: setting.default for name, setting in declared.items()}
    settings |= {name: value for name, value in config["network"].items() if name not in BOOKKEEPING}
    names = {f"{known.__module__}.{name}": name for name, known in NETWORKS.items()}
    return {"class": names.get(target, target), "settings": settings}


def env_action_space(env: VecEnv) -> spaces.Space[Any] | None:
    """What a Gymnasium environment itself takes; None where the policy's actions are taken as they are."""
    return env.env_action_space if isinstance(env, GymnasiumVecEnv) else None


def env_observation_space(env: VecEnv) -> dict[str, Any] | None:
    """What a Gymnasium environment itself gives; None where it is not flattened, or of a kind that has no JSON."""
    space = env.flattened_space if isinstance(env, GymnasiumVecEnv) else None
    with suppress(ValueError):
        return None if space is None else space_to_json(space)
    return None


def figures(path: Path, env_steps: int) -> dict[str, float]:
    """What the run's metrics said of the policy when it was saved; nothing where they do not tell."""
    rows: list[dict[str, Any]] = []
    with suppress(OSError, ValueError, RecursionError):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    row: dict[str, Any] = next((row for row in reversed(rows) if row.get("env_steps") == env_steps), {})
    return {tag: row[tag] for tag in FIGURES if isinstance(row.get(tag), int | float)}


def without_paths(node: Any, name: str) -> tuple[Any, list[str]]:  # noqa: ANN401 - any node of a config
    """``node`` without texts that are absolute paths, and the dotted names of those."""
    if isinstance(node, str) and os.path.isabs(os.path.expanduser(node)):
        return None, [name]
    if isinstance(node, dict):
        parts = {key: without_paths(value, f"{name}.{key}") for key, value in node.items()}
    elif isinstance(node, list):
        parts = {str(n): without_paths(value, f"{name}[{n}]") for n, value in enumerate(node)}
    else:
        return node, []
    left_out = [lost for _, names in parts.values() for lost in names]
    kept = {key: value for key, (value, names) in parts.items() if value is not None or not names}
    return (kept if isinstance(node, dict) else list(kept.values())), left_out


def show(run: Path, output: Path, described: dict[str, Any], files: dict[str, bytes]) -> None:
    """Print what was written, how it was checked, and how to use it."""
    network, training = described["network"], described["training"]
    said = json.loads(files[DESCRIPTION_FILE])["files"]
    folder = shown_path(output)
    rows = {
        "run": f"{shown_path(run)}, after {training['env_steps']:,} env steps",
        "policy": f"{network['class']} for {described['env'].get('name', described['env']['_target_'])}",
    }
    for name, data in files.items():
        checked = said.get(name, {}).get("largest_difference")
        note = "" if checked is None else f", its outputs within {checked:.1g} of the policy's"
        rows[name] = f"{len(data):,} bytes{note}"
    rows |= {"folder": folder, "evaluate": f"ppo-eval {shlex.quote(folder)}"}
    rows["use it"] = f"ppo_cli.policy.load_policy({folder!r}).act(obs)"
    print("\n" + table(rows) + "\n")
