"""``seeds=8``: independent runs of one configuration, side by side in one process, each exactly as it would be alone.

One run a thread, each in a folder of its own below the group's; a failed one harms none of the others.
"""

from __future__ import annotations

import math
import statistics
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.jobs import listed_seeds
from ppo_cli.cli.program import CRASH, ReportedError, Stopped
from ppo_cli.cli.resuming import nothing_left
from ppo_cli.cli.run import build_trainer, device_words, facts, final_return, run_trainer, what_is_left
from ppo_cli.cli.run_folder import has_checkpoint, remove_if_empty, seed_folder
from ppo_cli.cli.validate import Settings
from ppo_cli.envs.base import EnvError
from ppo_cli.faults import NonFiniteError
from ppo_cli.parallel import available_cores
from ppo_cli.progress import make_display, table
from ppo_cli.progress_group import GroupProgress
from ppo_cli.run_files import WriteError, shown_path
from ppo_cli.run_reader import job_return
from ppo_cli.signals import StopRequest, stop_on_signals
from ppo_cli.trainer import UNSAVED, Trainer


class SeedGroup:
    """The runs of one command, and who runs them."""

    def __init__(self, config: Settings, run_dir: Path, overrides: Sequence[str]) -> None:
        self.config = config
        self.run_dir = run_dir
        self.overrides = [word for word in overrides if not word.startswith(("seed=", "seeds="))]
        self.seeds = listed_seeds(config)
        goes_on = config["resume"] is not None
        done = {seed: nothing_left(config, seed_folder(run_dir, seed)) for seed in self.seeds if goes_on}
        self.done = {seed: words for seed, words in done.items() if words}
        self.left = [seed for seed in self.seeds if seed not in self.done]
        self.num_threads = max(1, min(len(self.left), config["num_threads"] or available_cores()))
        self.progress = GroupProgress(
            make_display("silent" if config["quiet"] else "auto"),
            {f"seed {seed}": config["total_env_steps"] for seed in self.left},
        )
        self.returns = {seed: job_return(seed_folder(run_dir, seed)) for seed in self.done}
        self.failures: dict[int, str] = {}
        self._building = threading.Lock()  # weights are drawn from torch's global generator

    def train(self) -> float:
        """Run all seeds that are not done. Returns the mean of the final returns of all.

        Raises:
            UserError: the settings do not fit together; nothing was written.
            Stopped: by a signal, with every run saved that had begun.
            ReportedError: a run failed; the others were not held up.
        """
        with stop_on_signals() as stop, ThreadPoolExecutor(self.num_threads, "seed") as pool:
            if self.left:
                first = self.build(self.left[0])
                self.describe(first)
                for task in [pool.submit(self.train_one, seed, stop, first) for seed in self.left]:
                    task.result()
            else:
                for words in self.done.values():
                    self.progress.note_once(words)
        self.progress.close()
        self.progress.note(self.closing_words(bool(stop)))
        if stop:
            raise Stopped(stop.exit_code)
        if self.failures:
            raise ReportedError(CRASH)
        values = self.known_returns()
        return statistics.fmean(values) if values else math.nan

    def build(self, seed: int) -> Trainer:
        """The run of one seed: where the group goes on, from its newest checkpoint, or anew if it has none."""
        folder = seed_folder(self.run_dir, seed)
        config = self.config | {"seed": seed, "seeds": self.seeds, "num_threads": 1}
        resume = self.config["resume"] is not None and has_checkpoint(folder)
        try:
            with self._building:
                return build_trainer(
                    config,
                    folder,
                    [*self.overrides, f"seed={seed}"],
                    resume=resume,
                    display=self.progress.member(f"seed {seed}"),
                )
        finally:
            remove_if_empty(folder, folder)

    def train_one(self, seed: int, stop: StopRequest, first: Trainer) -> None:
        """One run from its beginning to its end, in the calling thread."""
        if stop:
            return
        trainer = None
        try:
            trainer = first if seed == self.left[0] else self.build(seed)
            _, exit_code = run_trainer(trainer, stop)
            if exit_code == UNSAVED:
                self.failures[seed] = f"the last checkpoint could not be written: {what_is_left(trainer)}"
            self.returns[seed] = final_return(trainer)
        except (NonFiniteError, EnvError, UserError, WriteError) as error:
            self.failures[seed] = f"{error}; {what_is_left(trainer)}" if trainer else str(error)
            if isinstance(error, EnvError) and error.traceback:
                self.progress.warn(f"seed {seed}", error.traceback)
        except Exception as error:  # of one run among several: told here and at the end
            what = f"{type(error).__name__}: {error}".strip(": ")
            self.failures[seed] = f"{what}; {what_is_left(trainer)}" if trainer else what
            self.progress.warn(f"seed {seed}", "".join(traceback.format_exception(error)))

    def describe(self, trainer: Trainer) -> None:
        """What a run prints at its start, for all of them."""
        rows = facts(self.config, trainer)
        name = rows["run"].rpartition(", seed")[0]
        rows |= {
            "run": f"{name}, seeds {', '.join(map(str, self.seeds))}: {self.num_threads} at a time",
            "device": device_words(self.config, trainer.state.accelerator, self.num_threads),
            "run folder": shown_path(self.run_dir),
        }
        self.progress.note("\n" + table(rows) + "\n")

    def known_returns(self) -> list[float]:
        """Final returns of the runs in which an episode has ended."""
        return [value for value in self.returns.values() if not math.isnan(value)]

    def closing_words(self, is_interrupted: bool) -> str:
        """Each seed's return, their mean and spread, and what to type next."""
        rows = {f"seed {seed}": f"return {value:.1f}" for seed, value in sorted(self.returns.items())}
        rows |= {f"seed {seed}": f"failed: {error}" for seed, error in sorted(self.failures.items())}
        values = self.known_returns()
        if len(values) > 1:
            rows["all"] = f"mean {statistics.fmean(values):.1f}, standard deviation {statistics.stdev(values):.1f}"
        folder = shown_path(self.run_dir)
        rows |= {"run folder": folder, "look at it": f"tensorboard --logdir {folder}"}
        if is_interrupted or self.failures:
            rows["go on"] = f"ppo-train resume={folder}"
        return "\n" + table(rows) + "\n"


def train_seeds(config: Settings, run_dir: Path, overrides: Sequence[str]) -> float:
    """All seeds of ``config`` below ``run_dir``, and where ``resume`` is set from where they stopped.

    Raises:
        UserError: the settings do not fit together, or a seed is named twice; nothing was written.
    """
    seeds = listed_seeds(config)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={config['seeds']}: expected a number of at least 1, or different seeds, as in [1,2,3]")
    return SeedGroup(config, run_dir, overrides).train()
