"""How a run goes on: everything is put where a checkpoint has it, and what is new is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_cli.accelerate import Execution
from ppo_cli.checkpoint import CheckpointError
from ppo_cli.cli.validate import Settings
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from ppo_cli.trainer import Trainer, changed_settings, restore

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
    state, logger = trainer.state, trainer.logger
    for note in [*notes, *(f"approximate: {reason}" for reason in resumed["approximate_because"])]:
        logger.warn(note)
    for name, change in resumed["changed"].items():
        logger.display.note(f"changed: {name} {change}")
    if state.env_steps >= state.total_env_steps:
        done = f"{state.env_steps:,} of {state.total_env_steps:,} env steps are done"
        logger.display.note(f"nothing is left to do: {done}; total_env_steps=... sets a later end")
