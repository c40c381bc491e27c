"""How a run goes on: everything is put where a checkpoint has it, and what is new is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_cli.accelerate import Execution
from ppo_cli.checkpoint import CheckpointError, load_newest
from ppo_cli.cli.validate import Settings
from ppo_cli.rollout import Collector
from ppo_cli.run_reader import is_complete
from ppo_cli.train_state import TrainState
from ppo_cli.trainer import CHECKPOINT_FOLDER, Trainer, changed_settings, restore

NO_CHANGE = ("resume", "trust", "quiet", "output_dir", "run_name", "seeds", "jobs", "job_timeout", "again")
"""Settings that say where and how a run is watched, not what it does."""


def taken_up(
    saved: dict[str, Any], config: Settings, state: TrainState, collector: Collector, execution: Execution
) -> dict[str, Any]:
    """Put everything where ``saved`` was saved.

    Returns what is new: ``changed``, settings that are not what they were, and ``approximate_because``, why the
    continuation is not exact, if it is not.

    Raises:
        CheckpointError: what was saved is not a run.
    """
    try:
        changes = changed_settings(saved, config)
        reasons = restore(saved, state, collector, execution, env_change(changes))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"there is no checkpoint of a learner ({error})") from error
    return {"changed": described(changes), "approximate_because": reasons}


def env_change(changes: dict[str, tuple[Any, Any]]) -> str | None:
    """How the environment is not the one that it was, so that its episodes cannot be continued."""
    of_env = {name: change for name, change in changes.items() if name.startswith("env.")}
    return ", ".join(f"{name} {change}" for name, change in described(of_env).items()) or None


def described(changes: dict[str, tuple[Any, Any]]) -> dict[str, str]:
    """Changes of settings as text; where a run lies and what it prints is no change of the run."""
    return {name: f"{before} -> {now}" for name, (before, now) in changes.items() if name not in NO_CHANGE}


def announce_resume(trainer: Trainer, notes: Sequence[str], resumed: dict[str, Any]) -> None:
    """Say how the run goes on: damaged checkpoints that were passed over, what is not exact, and what is new."""
    logger = trainer.logger
    for note in [*notes, *(f"approximate: {reason}" for reason in resumed["approximate_because"])]:
        logger.warn(note)
    for name, change in resumed["changed"].items():
        logger.display.note(f"changed: {name} {change}")


def nothing_left(config: Settings, run_dir: Path) -> str | None:
    """A sentence that says so where nothing is left to do of the run in ``run_dir``; else None.

    Such a run is left as it is: new settings would be written down that nothing was trained with.
    """
    if not is_complete(run_dir):
        return None
    try:
        env_steps = int(load_newest(run_dir / CHECKPOINT_FOLDER)[0]["state"]["env_steps"])
    except (CheckpointError, KeyError, TypeError, ValueError):  # told by who takes it up
        return None
    return at_the_end(env_steps, config["total_env_steps"]) if env_steps >= config["total_env_steps"] else None


def at_the_end(env_steps: int, total_env_steps: int) -> str:
    """What to say of a run that is at its end when it goes on."""
    done = f"{env_steps:,} of {total_env_steps:,} env steps are done"
    return f"nothing is left to do: {done}; total_env_steps=... sets a later end"
