"""A job of a sweep or a search: the run in its folder, or its seeds' runs; what is done, what is left to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ppo_cli.cli.compose import choices_of, resolve
from ppo_cli.cli.run_folder import RECORD, has_checkpoint, holds_run, saved_config, seed_folder
from ppo_cli.cli.validate import Settings, validated
from ppo_cli.processes import LOG_FILE
from ppo_cli.run_reader import has_failed, is_complete


def job_settings(config: DictConfig) -> Settings:
    """The settings of a composed job.

    Raises:
        UserError: with every mistake in them.
    """
    return validated(resolve(config, choices_of(config)))


def listed_seeds(settings: Settings) -> list[int]:
    """The seeds that ``seeds`` means: a list, or this many from ``seed`` on."""
    seeds = settings["seeds"]
    return [settings["seed"] + n for n in range(seeds)] if isinstance(seeds, int) else list(seeds)


def runs_of(settings: Settings, folder: Path) -> list[Path]:
    """Where the job's runs lie, or will."""
    if settings["seeds"] is None:
        return [folder]
    return [seed_folder(folder, seed) for seed in listed_seeds(settings)]


def is_done(settings: Settings, folder: Path) -> bool:
    """Whether nothing is left to do."""
    return all(is_complete(run) for run in runs_of(settings, folder))


def total_steps(settings: Settings) -> int:
    """Environment steps of all runs of the job."""
    total: int = settings["total_env_steps"] * (1 if settings["seeds"] is None else len(listed_seeds(settings)))
    return total


def take_up(settings: Settings, folder: Path) -> Settings:
    """Make ``folder`` ready for what is left: a run that was cut off goes on, one that failed starts anew.

    Returns the settings to run with: those of a run that goes on name its folder in ``resume``, and keep its threads.
    """
    for run in runs_of(settings, folder):
        if has_failed(run) or not has_checkpoint(run):
            clear(run)
    begun = [run for run in runs_of(settings, folder) if (run / RECORD).exists()]
    if not begun:
        return settings
    taken_up = settings | {"resume": str(folder)}
    if settings["seeds"] is None:
        saved: Any = OmegaConf.to_container(saved_config(folder))
        taken_up["num_threads"] = saved.get("num_threads", settings["num_threads"])
    return taken_up


def clear(run: Path) -> None:
    """Take away what a run left that is not worth going on with; what it printed stays."""
    if not holds_run(run):
        return
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOG_FILE:
            path.unlink()
