"""The live progress bar of a terminal, four frames a second at whatever width the terminal has."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ppo_cli.progress import Snapshot, duration, health, percent_done, performance, rate_text

FRAMES_PER_SECOND = 4.0

MAX_BAR = 60
"""Columns of the bar on a wide terminal."""

SPARKLINE = 16
"""Columns of the small curve that shows the return since the start."""


class BarDisplay:
    """A bar with the figures below it. A thread draws it; nothing else happens there.

    Args:
        console: Where to draw; standard output unless given.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(highlight=False)
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._updated_at = clock()
        self._returns: list[float] = []
        self._live = Live(self, console=self.console, refresh_per_second=FRAMES_PER_SECOND)

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print above the bar."""
        content = Text(f"warning: {text}", "yellow") if warning else _quiet_labels(text)
        self.console.print(content, soft_wrap=True, highlight=False)

    def update(self, snapshot: Snapshot) -> None:
        """Hand the bar its next state; the drawing thread picks it up."""
        self._snapshot, self._updated_at = snapshot, self._clock()
        episode_return = snapshot.scalars.get("charts/episodic_return", math.nan)
        if math.isfinite(episode_return):
            self._returns.append(episode_return)
        if not self._live.is_started:
            self._live.start()

    def close(self) -> None:
        """Draw the last state and give the cursor back."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The bar as it is now."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        numbers = self._numbers(snapshot, options.max_width)
        bar = ProgressBar(
            total=snapshot.total_env_steps,
            completed=snapshot.env_steps,
            width=max(4, min(MAX_BAR, options.max_width - len(numbers) - 5)),
            complete_style="cyan",
            finished_style="green",
        )
        row = Table.grid(padding=(0, 1))
        row.add_row(" ", bar, numbers)
        yield row
        yield self._figures(snapshot, options.max_width, has_blocks=not options.ascii_only)

    def _numbers(self, snapshot: Snapshot, width: int) -> Text:
        """What stands beside the bar: as much as leaves the bar some room."""
        # The clock runs on between updates: a bar that stands still for seconds looks dead.
        left = snapshot.seconds_left() - (self._clock() - self._updated_at)
        percent = f"{percent_done(snapshot):3d} %"
        remaining = f"{duration(left)} left"
        steps = f"{snapshot.env_steps:,} / {snapshot.total_env_steps:,}"
        rate = f"{rate_text(snapshot.rate)} steps/s"
        for parts in ((percent, steps, rate, remaining), (percent, rate, remaining), (percent, remaining), (percent,)):
            if sum(map(len, parts)) + 3 * len(parts) + 12 <= width:
                break
        styles = {percent: "bold", remaining: "cyan"}
        return Text("   ").join(Text(part, styles.get(part, "")) for part in parts)

    def _figures(self, snapshot: Snapshot, width: int, *, has_blocks: bool) -> Text:
        """The line below the bar, without the least telling figures where the terminal is narrow."""
        if not snapshot.scalars:
            waited = duration(self._clock() - self._updated_at)
            return Text(f"  the first update is under way, start-up included   {waited}", "dim")
        line = Text("  ")
        if has_blocks and width >= 4 * SPARKLINE:
            line.append(f"{sparkline(self._returns, SPARKLINE):<{SPARKLINE}}   ", "cyan")
        for label, value in performance(snapshot.scalars) + health(snapshot.scalars):
            piece = Text.assemble((f"{label} ", "dim"), value)
            if len(line) + len(piece) > width:
                break
            line.append_text(piece).append("   ")
        line.rstrip()
        return line


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in at most ``width`` block characters, scaled to its own range; neighbours are averaged to fit."""
    blocks = "▁▂▃▄▅▆▇█"
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)] if count else []
    means = [math.fsum(values[begin:end]) / (end - begin) for begin, end in itertools.pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((mean - low) * scale)] for mean in means)


def _quiet_labels(text: str) -> Text:
    """Table lines (``  label   value``) with dim labels; other lines as they are."""
    lines = []
    for line in text.split("\n"):
        label, gap, value = line.strip().partition("  ")
        lines.append(Text.assemble("  ", (label, "dim"), gap, value) if gap and line.startswith("  ") else Text(line))
    return Text("\n").join(lines)
