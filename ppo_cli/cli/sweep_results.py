"""What a sweep says at its beginning and at its end: what is left to do, what failed and why, what came out best."""

from __future__ import annotations

import math
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppo_cli.cli.run_folder import by_name, holds_run, seed_runs
from ppo_cli.cli.sweep import Sweep
from ppo_cli.processes import LOG_FILE
from ppo_cli.progress import compact, table
from ppo_cli.run_files import shown_path
from ppo_cli.run_reader import final_return, is_complete, overrides_of, summary_of

SEEDS = ("seed", "seeds")
MOST_ROWS = 20
LAST_LINES = 6
"""Of a failed job's log that are shown."""


@dataclass
class Configuration:
    """What differs between the jobs, the seed aside, and how its runs did."""

    words: tuple[str, ...]
    by_seed: dict[str, float] = field(default_factory=dict)  # a seed that several jobs have counts once

    @property
    def returns(self) -> list[float]:
        """Of its seeds."""
        return list(self.by_seed.values())

    @property
    def mean(self) -> float:
        """Mean return over the seeds."""
        return statistics.fmean(self.returns)

    @property
    def figures(self) -> tuple[str, str]:
        """Mean with standard deviation, and the number of seeds."""
        spread = f" ± {compact(statistics.stdev(self.returns))}" if len(self.returns) > 1 else ""
        return f"{compact(self.mean)}{spread}", f"n={len(self.returns)}"


def announce(sweep: Sweep, folder: Path, *, is_quiet: bool) -> None:
    """Say how many runs there are, and where they go."""
    if is_quiet:
        return
    size, done = len(sweep.job_names()), number_done(sweep, folder)
    rows = {"sweep": f"{size} jobs: {', '.join(sweep.swept)}" if sweep.swept else "one job"}
    if done:
        rows["goes on"] = f"{done} of {size} are done"
    if done == size:
        rows["goes on"] = "all of them are done; again=true begins anew"
    print("\n" + table(rows | {"sweep folder": shown_path(folder)}) + "\n", flush=True)


def conclude(sweep: Sweep, folder: Path, *, is_stopped: bool, is_quiet: bool, is_ranked: bool = True) -> None:
    """List the failures, then the configurations from the best on, and what to type next.

    ``is_stopped``: the user stopped it, and a job that was interrupted has not failed. ``is_ranked``: the best one is
    what the sweep is about.
    """
    jobs = job_folders(folder)
    unfinished = [job for job in jobs if not is_finished(job)]
    for job in unfinished:
        if not (is_stopped and is_interrupted(job)):
            print_failure(job)
    if is_quiet:
        return
    rows = {}
    ranked = ranking(jobs, list(sweep.swept)) if is_ranked else []
    if ranked:
        print("\n" + "\n".join(lines(ranked)))
        fixed = [word for word in sweep.words if not word.startswith(tuple(f"{name}=" for name in SEEDS))]
        rows["best"] = shlex.join(["ppo-train", *fixed, *ranked[0].words])
    size = len(sweep.job_names())
    if left := size - number_done(sweep, folder):
        rows["go on"] = f"the same command again runs the {left} of {size} that are not done"
    name = shlex.quote(shown_path(folder))
    rows |= {"report": f"ppo-report {name}", "look at it": f"tensorboard --logdir {name}"}
    print("\n" + table(rows) + "\n", flush=True)


def number_done(sweep: Sweep, folder: Path) -> int:
    """How many of the sweep's jobs are finished; a folder with a name may hold others too."""
    jobs = [folder / name for name in sweep.job_names()] if sweep.is_ours_to_name else job_folders(folder)
    return sum(is_finished(job) for job in jobs)


def job_folders(folder: Path) -> list[Path]:
    """The folders of the jobs that have begun."""
    return sorted(path for path in folder.glob("*/") if runs_in(path) or (path / LOG_FILE).exists())


def runs_in(job: Path) -> list[Path]:
    """The runs of a job that have begun: its own, or those of its seeds."""
    return seed_runs(job) or ([job] if holds_run(job) else [])


def is_finished(job: Path) -> bool:
    """Whether all runs of the job are complete."""
    runs = runs_in(job)
    return bool(runs) and all(is_complete(run) for run in runs)


def is_interrupted(job: Path) -> bool:
    """Whether the job was told to stop, and has saved."""
    return any(summary_of(run).get("status") == "interrupted" for run in runs_in(job))


def print_failure(job: Path) -> None:
    """What is known of a job that is not done, on standard error."""
    errors = [error for run in runs_in(job) if (error := summary_of(run).get("error"))]
    print(f"\nnot done: {job.name}" + (f": {errors[0]}" if errors else ""), file=sys.stderr)
    log = job / LOG_FILE
    if log.exists():
        last = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-LAST_LINES:]
        print("\n".join(f"    {line}" for line in last) + f"\n    ({shown_path(log)})", file=sys.stderr)


def ranking(jobs: Sequence[Path], swept: Sequence[str]) -> list[Configuration]:
    """The configurations that have a return, the best one first."""
    found: dict[tuple[str, ...], Configuration] = {}
    for job in jobs:
        for run in runs_in(job):
            typed = by_name(overrides_of(run))
            words = tuple(f"{name}={typed[name]}" for name in swept if name in typed and name not in SEEDS)
            if is_complete(run) and not math.isnan(value := final_return(run)):
                found.setdefault(words, Configuration(words)).by_seed[typed.get("seed", "")] = value
    return sorted(found.values(), key=lambda each: each.mean, reverse=True)


def lines(ranked: Sequence[Configuration]) -> Iterator[str]:
    """The table: settings, mean return with its spread, number of seeds."""
    rows = [(" ".join(each.words) or "all jobs", *each.figures) for each in ranked[:MOST_ROWS]]
    widths = [max(len(row[column]) for row in [*rows, ("settings", "return", "seeds")]) for column in range(3)]
    for row in [("settings", "return", "seeds"), *rows]:
        yield "  " + "   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
    if len(ranked) > MOST_ROWS:
        yield f"  and {len(ranked) - MOST_ROWS} more"
