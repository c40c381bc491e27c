"""One run or one job of a sweep, from composed settings to its end; torch is imported when it starts, never before."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.compose import resolve
from ppo_cli.cli.jobs import is_done, take_up
from ppo_cli.cli.program import CRASH, USER_ERROR, ReportedError, importing, print_problems
from ppo_cli.cli.run_folder import remove_if_empty
from ppo_cli.cli.validate import Settings, validated
from ppo_cli.run_files import CRASH_FILE, WriteError
from ppo_cli.run_reader import job_return


def task(config: DictConfig) -> float:
    """One job, in this process or in one of a launcher's. Returns the figure that a Hydra sweeper maximizes."""
    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    overrides = [str(override) for override in hydra_config.overrides.task]
    if hydra_config.mode == RunMode.MULTIRUN:
        print(f"\nrun {int(hydra_config.job.num) + 1}: {' '.join(overrides)}", flush=True)

    def work() -> float:
        settings = validated(resolve(config, dict(hydra_config.runtime.choices)))
        if hydra_config.mode == RunMode.MULTIRUN:
            if is_done(settings, run_dir):
                return job_return(run_dir)
            settings = take_up(settings, run_dir)
        return run(settings, run_dir, overrides)

    try:
        return reported(work, run_dir)
    finally:
        remove_if_empty(run_dir, Path(str(config.get("output_dir", "outputs"))))


def reported(work: Callable[[], float], run_dir: Path) -> float:
    """What ``work`` returns.

    Raises:
        ReportedError: in place of any other error, which has been told, and kept in the run folder.
    """
    try:
        return work()
    except UserError as error:
        print_problems(error.problems)
        raise ReportedError(USER_ERROR) from error
    except WriteError as error:
        print_problems([str(error)])
        raise ReportedError(CRASH) from error
    except ReportedError:
        raise
    except Exception as error:
        report_crash(error, run_dir)
        raise ReportedError(CRASH) from error


def run(settings: Settings, run_dir: Path, overrides: list[str]) -> float:
    """Import what is heavy, and train; ``resume`` in the settings says that the run in the folder goes on."""
    if settings["seeds"] is not None:
        with importing():
            from ppo_cli.cli.seeds import train_seeds
        return train_seeds(settings, run_dir, overrides)
    with importing():
        from ppo_cli.cli.run import train
    return train(settings, run_dir, overrides, resume=settings["resume"] is not None)


def report_crash(error: Exception, run_dir: Path) -> None:
    """Show the traceback once, and leave it in the run folder if the run had begun."""
    traceback.print_exception(error)
    if run_dir.is_dir() and any(run_dir.iterdir()):
        with suppress(OSError):  # a full disk may be what ended the run
            (run_dir / CRASH_FILE).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
