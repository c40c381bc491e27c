"""Several jobs side by side: a line for each and a bar for the whole on a terminal, a line an event elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ppo_cli.processes import LOG_FILE, Ended, Job, JobsDisplay, Running
from ppo_cli.progress import DisplayMode, Snapshot, chosen_mode, compact, duration, rate_text
from ppo_cli.run_files import shown_path
from ppo_cli.run_reader import RETURN_TAG, job_return

BAR_WIDTH = 24
MOST_LINES = 24
"""Running jobs that are shown at most, each on a line."""


class SilentJobs:
    """Shows failures only, on standard error."""

    def started(self, job: Job) -> None:
        """Show nothing."""

    def ended(self, ended: Ended) -> None:
        """Tell of a failure."""
        if ended.kind == "failed":
            print(f"warning: {ending(ended)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Show nothing."""

    def show(self, running: Iterable[Running]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to restore."""


class PlainJobs(SilentJobs):
    """A line for each job that starts and each that ends: for pipes and log files."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def started(self, job: Job) -> None:
        """Say so."""
        print(f"  started   {job.name}", flush=True)

    def ended(self, ended: Ended) -> None:
        """Say how."""
        self.done += 1
        print(f"  {ending(ended)}   ({self.done} of {self.total})", flush=True)

    def note(self, text: str) -> None:
        """Print it."""
        print(f"  {text}", flush=True)


class LiveJobs:
    """The terminal: what has ended above, what is under way below, drawn by whoever calls ``show``.

    No thread draws: the jobs are forked from this process.

    Args:
        total: Jobs to do.
        console: Where to draw; standard output unless given.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, total: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.console = console or Console(highlight=False)
        self._clock = clock
        self._started_at = clock()
        self._done = self._failed = 0
        self._live = Live(
            console=self.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, transient=True
        )

    def started(self, job: Job) -> None:
        """Its line appears with the next drawing."""

    def ended(self, ended: Ended) -> None:
        """Print above the lines how the job ended."""
        self._done += 1
        self._failed += ended.kind == "failed"
        line = Text(f"  {ending(ended)}")
        line.stylize({"done": "green", "failed": "red", "stopped": "dim"}[ended.kind], 2, 10)
        self.console.print(line, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print it above the lines."""
        self.console.print(Text(f"  {text}"), soft_wrap=True)

    def show(self, running: Iterable[Running]) -> None:
        """Draw a line for each running job and the bar of the whole."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(self.picture(list(running)), refresh=True)

    def picture(self, running: list[Running]) -> Group:
        """What stands below the lines of ended jobs."""
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(16, self.console.width - 70))
        for each in running[:MOST_LINES]:
            table.add_row(f"  {each.job.name}", *job_columns(each.progress.snapshot))
        if len(running) > MOST_LINES:
            table.add_row(Text(f"  and {len(running) - MOST_LINES} more", "dim"))
        parts = [each.progress.snapshot.env_steps / max(1, each.job.total_env_steps) for each in running]
        share = (self._done + sum(min(1.0, part) for part in parts)) / max(1, self.total)
        seconds = self._clock() - self._started_at
        left = seconds * (1 - share) / share if share > 0 else math.nan
        failed = Text(f"{self._failed} failed" if self._failed else "", "red")
        counts = Text(f"  {self._done} of {self.total} over", "bold")
        table.add_row(counts, bar(share), percent(share), failed, "", Text(f"{duration(left)} left", "cyan"))
        return Group("", table)

    def close(self) -> None:
        """Take the lines away and give the cursor back."""
        self._live.stop()


def job_columns(snapshot: Snapshot) -> list[ProgressBar | Text | str]:
    """Bar, percent, rate, return and time to go of one job."""
    if not snapshot.env_steps:
        return [bar(0.0), percent(0.0), Text("starting", "dim")]
    share = snapshot.env_steps / max(1, snapshot.total_env_steps)
    value = snapshot.scalars.get(RETURN_TAG, math.nan)
    return [
        bar(share),
        percent(share),
        f"{rate_text(snapshot.rate)} steps/s",
        "" if math.isnan(value) else f"return {compact(value)}",
        Text(f"{duration(snapshot.seconds_left())} left", "cyan"),
    ]


def bar(share: float) -> ProgressBar:
    """A bar that is filled to this share."""
    return ProgressBar(1.0, min(1.0, share), width=BAR_WIDTH, complete_style="cyan", finished_style="green")


def percent(share: float) -> str:
    """Whole percent, 100 only when all is done."""
    return f"{min(100, int(100 * share)):3d} %"


def ending(ended: Ended) -> str:
    """One line on how a job ended."""
    where = f"   {shown_path(ended.job.folder / LOG_FILE)}" if ended.kind == "failed" else ""
    if ended.text:
        return f"{ended.kind:<8}  {ended.job.name}   {ended.text}{where}"
    value = job_return(ended.job.folder)
    figure = "" if math.isnan(value) else f"   return {compact(value)}"
    return f"{ended.kind:<8}  {ended.job.name}{figure}   {duration(ended.seconds)}"


def make_jobs_display(mode: DisplayMode, total: int) -> JobsDisplay:
    """The display that a setting names; ``auto`` is the live one on a capable terminal, plain lines elsewhere."""
    mode = chosen_mode(mode)
    if mode == "silent":
        return SilentJobs()
    return LiveJobs(total) if mode == "bar" else PlainJobs(total)
