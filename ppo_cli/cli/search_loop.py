"""The runs of a search: each trial's seeds in processes of their own, watched, stopped early, scored."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from optuna.trial import TrialState

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.compose import Composer
from ppo_cli.cli.jobs import is_done, job_settings, take_up, total_steps
from ppo_cli.cli.launcher import import_for_jobs
from ppo_cli.cli.program import CRASH, Stopped, guarded
from ppo_cli.cli.search_space import Dimension
from ppo_cli.cli.study import SearchTrial, Study
from ppo_cli.cli.sweep import Sweep
from ppo_cli.cli.task import reported, run
from ppo_cli.cli.validate import Settings
from ppo_cli.processes import Ended, Job, JobPool, Running
from ppo_cli.progress import compact, table
from ppo_cli.progress_jobs import make_jobs_display
from ppo_cli.run_files import METRICS_FILE, shown_path
from ppo_cli.run_reader import RETURN_TAG, MetricsTail, job_return
from ppo_cli.signals import stop_on_signals

BEST_SHOWN = 5


class SearchLoop:
    """One search from where it stands to its end.

    Args:
        composer: Makes the settings of each run.
        fixed: What all runs share, as typed.
        space: What differs between the trials.
        settings: Of the search and of the runs.
        folder: Of the search.
    """

    def __init__(
        self,
        composer: Composer,
        fixed: Sequence[str],
        space: Sequence[Dimension],
        settings: Settings,
        folder: Path,
    ) -> None:
        self.composer, self.settings, self.folder = composer, settings, folder
        self.fixed = [word for word in fixed if word.partition("=")[0] not in ("seed", "run_name", "again")]
        root = job_settings(composer.compose(list(fixed)))["seed"]
        self.seeds = [root + n for n in range(settings["seeds"])]
        self.seed_words = [word for word in fixed if word.startswith("seed=")]  # what repeats a trial's seeds
        self.seed_words += [f"seeds={len(self.seeds)}"] if len(self.seeds) > 1 else []
        self.study = Study(folder, settings, space, self.seeds)
        self.cores = import_for_jobs()
        self.num_threads = max(1, self.cores // (settings["jobs"] or self.cores))
        total = max(0, settings["trials"] - len(self.study.finished())) * len(self.seeds)
        self.display = make_jobs_display("silent" if settings["quiet"] else "auto", total)
        self.pool = JobPool(
            self.display,
            cores=self.cores,
            at_once=settings["jobs"],
            timeout=settings["job_timeout"],
            look=self.look,
        )
        self.under_way: dict[Path, tuple[SearchTrial, int, MetricsTail]] = {}  # by the run's folder

    def run(self, search: Sweep) -> int:
        """Try what is left to try, and conclude ``search``. Returns the exit code.

        Raises:
            Stopped: by a signal, with every run saved that had begun.
        """
        self.tell({"search": f"{self.settings['trials']} trials, {len(self.study.finished())} of them done"})
        with stop_on_signals() as stop:
            for ended in self.pool.run(self.jobs(), stop):
                self.take(ended)
        self.conclude(search)
        if stop:
            raise Stopped(stop.exit_code)
        return 0 if self.study.best(1) else CRASH

    def jobs(self) -> Iterator[Job]:
        """The next run, settings drawn when there is room for it."""
        for trial in self.study.trials():
            for seed in trial.seeds:
                if not trial.is_over and (job := self.job(trial, seed)):
                    yield job

    def job(self, trial: SearchTrial, seed: int) -> Job | None:
        """One run of a trial; None where it is done already, or cannot be done."""
        folder = self.folder / trial.name / f"seed={seed}"
        words = [*self.fixed, *trial.words, f"seed={seed}"]
        try:
            settings = job_settings(self.composer.compose(words))
        except UserError as error:
            self.fail(trial, str(error))
            return None
        settings["num_threads"] = settings["num_threads"] or self.num_threads
        self.under_way[folder] = (trial, seed, MetricsTail(folder / METRICS_FILE))
        if is_done(settings, folder):
            self.watch(folder, total_steps(settings))
            self.note_return(trial, seed, folder)
            return None
        work = partial(work_in_process, settings, folder, words)
        return Job(f"{trial.name},seed={seed}", folder, work, total_steps(settings), settings["num_threads"])

    def look(self, running: Running) -> None:
        """Take in what a run has shown since; stop its trial if that is not worth going on."""
        if self.watch(running.job.folder, running.job.total_env_steps):
            trial, _, _ = self.under_way[running.job.folder]
            self.study.prune(trial)
            share = 100 * trial.reported // self.study.num_rungs
            for each in self.runs_of(trial):
                each.stop("stopped", f"pruned after {share} %")

    def watch(self, folder: Path, total_env_steps: int) -> bool:
        """Hand on the rows that a run has written since; whether its trial should stop."""
        trial, seed, tail = self.under_way[folder]
        for row in tail.read():
            value = row.get(RETURN_TAG)
            trial.see(seed, row["env_steps"] / total_env_steps, math.nan if value is None else value)
        return not trial.is_over and trial.should_stop()

    def runs_of(self, trial: SearchTrial) -> list[Running]:
        """The runs of a trial that are under way."""
        return [each for each in self.pool.running if self.under_way[each.job.folder][0] is trial]

    def take(self, ended: Ended) -> None:
        """A run is over: so is its trial, if it was the last one, or failed."""
        trial, seed, _ = self.under_way[ended.job.folder]
        if trial.is_over or ended.kind == "stopped":
            return
        if ended.kind == "failed":
            self.fail(trial, f"{ended.text}; {shown_path(ended.job.folder)}")
            return
        self.watch(ended.job.folder, ended.job.total_env_steps)
        self.note_return(trial, seed, ended.job.folder)

    def note_return(self, trial: SearchTrial, seed: int, folder: Path) -> None:
        """The final return of one run, and of the trial the score once it has all of them."""
        trial.returns[seed] = job_return(folder)
        if len(trial.returns) == len(trial.seeds):
            value = self.study.complete(trial)
            how = "failed: no episode has ended" if math.isnan(value) else f"score {compact(value)}"
            self.display.note(f"{trial.name}   {how}   {' '.join(trial.words)}")

    def fail(self, trial: SearchTrial, why: str) -> None:
        """A trial that cannot be scored."""
        self.study.fail(trial)
        self.display.note(f"{trial.name}   failed: {why}")
        for each in self.runs_of(trial):
            each.stop("stopped", "another run of the trial failed")

    def conclude(self, search: Sweep) -> None:
        """The best settings, what mattered, and what to type next."""
        if self.settings["quiet"]:
            return
        best = self.study.best(BEST_SHOWN)
        print()
        for place, trial in enumerate(best, 1):
            words = " ".join(self.study.words(trial.params))
            print(f"  {place}.  score {compact(trial.value or 0.0):>8}   trial {trial.number:<4} {words}")
        counts = {state.name.lower(): self.study.count(state) for state in (TrialState.COMPLETE, TrialState.PRUNED)}
        counts |= {"failed": self.study.count(TrialState.FAIL), "cut off": self.study.count(TrialState.RUNNING)}
        rows = {"trials": ", ".join(f"{count} {what}" for what, count in counts.items() if count)}
        if importance := self.study.importance():
            rows["importance"] = "  ".join(f"{name} {100 * share:.0f} %" for name, share in importance.items())
        if best:
            rows["best"] = shlex.join(["ppo-train", *search.words, *self.study.words(best[0].params), *self.seed_words])
        if len(self.study.finished()) < self.settings["trials"]:
            rows["go on"] = "the same command again"
        name = shlex.quote(shown_path(self.folder))
        rows |= {"report": f"ppo-report {name}", "look at it": f"tensorboard --logdir {name}"}
        print("\n" + table(rows) + "\n", flush=True)

    def tell(self, rows: dict[str, str]) -> None:
        """What is about to happen, and where."""
        if not self.settings["quiet"]:
            print("\n" + table(rows | {"folder": shown_path(self.folder)}) + "\n", flush=True)


def work_in_process(settings: Settings, folder: Path, words: list[str]) -> int:
    """One run, in its process. Returns the exit code."""

    def work() -> int:
        reported(lambda: run(take_up(settings, folder), folder, words), folder)
        return 0

    return guarded(work)
