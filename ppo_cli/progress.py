"""What a person watches while a run goes on: a bar on a terminal, plain lines in a pipe or a log file."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TextIO

DisplayMode = Literal["auto", "bar", "plain", "silent"]

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines, at least; the first one comes with the first update."""

RATE_WINDOW = 30.0
"""Seconds that the shown rate looks back: it follows a change of pace, and one slow update does not shake it."""


HEALTH = (
    ("kl", "losses/kl", 4),
    ("clip", "losses/clipfrac", 2),
    ("entropy", "losses/entropy", 2),
    ("explained", "losses/explained_variance", 2),
)
"""Figures about the updates that a display shows: label, tag, decimals."""


class Throughput:
    """Environment steps per second: of the last interval, of the last half minute, and of the run.

    The first update pays for start-up (compilation, caches, worker processes), so the run's rate begins after it.

    Args:
        env_steps: Steps already taken.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, env_steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = (clock(), env_steps)
        self._first: tuple[float, int] | None = None
        self._recent = deque([self._started])
        self.interval = math.nan

    def mark(self, env_steps: int) -> None:
        """Note that this many steps are done now."""
        now = (self._clock(), env_steps)
        self.interval = _rate(self._recent[-1], now)
        self._first = self._first or now
        self._recent.append(now)
        while len(self._recent) > 2 and now[0] - self._recent[1][0] >= RATE_WINDOW:
            self._recent.popleft()

    @property
    def recent(self) -> float:
        """Steps per second over the last half minute, NaN before the first update."""
        return _rate(self._recent[0], self._recent[-1])

    @property
    def total(self) -> float:
        """Steps per second since the first update; of the first update itself while there is no second one."""
        latest = self._recent[-1]
        return _rate(self._started if self._first in (None, latest) else self._first, latest)


def _rate(begin: tuple[float, int] | None, end: tuple[float, int]) -> float:
    """Steps per second between two (time, steps) marks."""
    if begin is None or end[0] <= begin[0]:
        return math.nan
    return (end[1] - begin[1]) / (end[0] - begin[0])


@dataclass(frozen=True)
class Snapshot:
    """What the display shows of a run at one moment."""

    env_steps: int
    total_env_steps: int
    rate: float  # steps/s, NaN while unknown
    scalars: Mapping[str, float] = field(default_factory=dict)  # latest value by tag

    def seconds_left(self) -> float:
        """Time to go at this rate, NaN while unknown."""
        if not self.rate > 0:
            return math.nan
        return max(0, self.total_env_steps - self.env_steps) / self.rate


class Display(Protocol):
    """Shows a run's progress. ``note`` may come at any time; ``update`` once an update; ``close`` at the end."""

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print lines that stay."""
        ...

    def update(self, snapshot: Snapshot) -> None:
        """Show where the run is."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found, with the last state on it."""
        ...


class SilentDisplay:
    """Shows nothing but warnings, on standard error."""

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print warnings only."""
        if warning:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def update(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to restore."""


class PlainDisplay:
    """One line every few seconds: for pipes, log files and terminals without cursor movement.

    Args:
        stream: Standard output unless named.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock
        self._is_read = True
        self._printed_at = -math.inf
        self._pending: Snapshot | None = None

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print the text as it is; where nobody can read it (closed pipe, full disk), training goes on unwatched."""
        if not self._is_read:
            return
        try:
            print(f"warning: {text}" if warning else text, file=self._stream, flush=True)
        except OSError:
            self._is_read = False

    def update(self, snapshot: Snapshot) -> None:
        """Print a line if there is something to tell and the last one is old enough."""
        if not snapshot.scalars:
            return
        self._pending = snapshot
        if self._clock() - self._printed_at >= PLAIN_INTERVAL:
            self._print_pending()

    def close(self) -> None:
        """Print the last state if its line is still to come."""
        if self._pending:
            self._print_pending()

    def _print_pending(self) -> None:
        assert self._pending is not None
        self.note(plain_line(self._pending))
        self._printed_at, self._pending = self._clock(), None


def make_display(mode: DisplayMode) -> Display:
    """The display that a setting names; ``auto`` is the bar on a capable terminal, plain lines anywhere else."""
    mode = chosen_mode(mode)
    if mode == "bar":
        from ppo_cli.progress_bar import BarDisplay

        return BarDisplay()
    return PlainDisplay() if mode == "plain" else SilentDisplay()


def chosen_mode(mode: DisplayMode) -> DisplayMode:
    """The mode with ``auto`` decided by where standard output leads."""
    if mode != "auto":
        return mode
    is_capable = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return "bar" if is_capable else "plain"


def plain_line(snapshot: Snapshot) -> str:
    """One line of a log file."""
    total = f"{snapshot.total_env_steps:,}"
    parts = [
        f"{snapshot.env_steps:>{len(total)},} / {total} steps",
        f"{rate_text(snapshot.rate)} steps/s",
        *(f"{label} {value}" for label, value in performance(snapshot.scalars) + health(snapshot.scalars)),
        f"{duration(snapshot.seconds_left())} left",
    ]
    return "  " + "  ".join(parts)


def performance(scalars: Mapping[str, float], *, evaluated: bool = False) -> list[tuple[str, str]]:
    """How well the agent does, label and text: the return, and the win rate where there is one.

    In training, or in the latest evaluation.
    """
    episode_return = scalars.get("eval/episodic_return" if evaluated else "charts/episodic_return", math.nan)
    win_rates = [
        value for tag, value in scalars.items() if tag.endswith("/win_rate") and tag.startswith("eval/") == evaluated
    ]
    shown = [("return", compact(episode_return)), *(("win", f"{100 * value:.1f} %") for value in win_rates)]
    return [(label, text) for label, text in shown if "nan" not in text]


def health(scalars: Mapping[str, float]) -> list[tuple[str, str]]:
    """How the updates go, label and text, the most telling first."""
    known = [(label, scalars.get(tag, math.nan), digits) for label, tag, digits in HEALTH]
    return [(label, f"{value:.{digits}f}") for label, value, digits in known if not math.isnan(value)]


def table(rows: Mapping[str, str]) -> str:
    """Label and value lines, values aligned."""
    width = max(map(len, rows), default=0)
    return "\n".join(f"  {label:<{width}}   {value}" for label, value in rows.items())


def percent_done(snapshot: Snapshot) -> int:
    """Whole percent of the run that is done; 100 only when all of it is."""
    return min(100, 100 * snapshot.env_steps // max(1, snapshot.total_env_steps))


def rate_text(rate: float) -> str:
    """Steps per second with the digits that matter, or a dash."""
    if not math.isfinite(rate):
        return "-"
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def duration(seconds: float) -> str:
    """``0:07``, ``3:20``, ``1:02:03``, or ``-:--`` where it is not known. What is overdue takes no time."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, whole_seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole_seconds:02d}" if hours else f"{minutes}:{whole_seconds:02d}"


def compact(value: float) -> str:
    """A number in a few characters: ``-1,234``, ``475.3``, ``0.42``."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
