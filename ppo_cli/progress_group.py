"""Several runs side by side, shown as one: their steps added up, their figures averaged."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from ppo_cli.progress import Display, Snapshot, Throughput

SUMS = ("charts/episodes",)

SHOWN_EVERY = 0.1
"""Seconds between two states that are shown, at least: averaging all figures takes as long as a small run's logging."""


class GroupProgress:
    """Hands each run a display of its own and shows the whole on one. Safe to use from the runs' threads.

    Args:
        display: Where the whole is shown.
        total_env_steps: By the runs' names.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self, display: Display, total_env_steps: Mapping[str, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.display = display
        self.total_env_steps = sum(total_env_steps.values())
        self.latest: dict[str, Snapshot] = {}
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._clock = clock
        self._shown_at = -math.inf
        self._throughput: Throughput | None = None

    def member(self, name: str) -> MemberDisplay:
        """The display of one run."""
        return MemberDisplay(self, name)

    def note(self, text: str) -> None:
        """Print lines that stay."""
        with self._lock:
            self.display.note(text)

    def note_once(self, text: str) -> None:
        """Print lines that stay, however many runs say the same."""
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                self.display.note(text)

    def warn(self, name: str, text: str) -> None:
        """Print a warning of one run."""
        with self._lock:
            self.display.note(f"{name}: {text}", warning=True)

    def update(self, name: str, snapshot: Snapshot) -> None:
        """Take in the state of one run, and show all of them if the last time is long enough ago."""
        with self._lock:
            self.latest[name] = snapshot
            if self._clock() - self._shown_at >= SHOWN_EVERY:
                self._show()

    def close(self) -> None:
        """Show the last state and close the display."""
        with self._lock:
            if self.latest:
                self._show()
            self.display.close()

    def _show(self) -> None:
        self._shown_at = self._clock()
        env_steps = sum(each.env_steps for each in self.latest.values())
        self._throughput = self._throughput or Throughput(env_steps, self._clock)
        self._throughput.mark(env_steps)
        rate = self._throughput.recent
        self.display.update(Snapshot(env_steps, self.total_env_steps, rate, self.means()))

    def means(self) -> dict[str, float]:
        """Each figure averaged over the runs that have it; counts are added."""
        tags = dict.fromkeys(tag for snapshot in self.latest.values() for tag in snapshot.scalars)
        return {tag: self.mean(tag) for tag in tags}

    def mean(self, tag: str) -> float:
        """One figure over the runs that have it."""
        values = [snapshot.scalars[tag] for snapshot in self.latest.values() if tag in snapshot.scalars]
        values = [value for value in values if not math.isnan(value)]
        if not values:
            return math.nan
        return sum(values) / (1 if tag in SUMS else len(values))


class MemberDisplay:
    """What one run of a group writes to. Its own closing words, which come once it is closed, are left to the group."""

    def __init__(self, group: GroupProgress, name: str) -> None:
        self.group = group
        self.name = name
        self.is_closed = False

    def note(self, text: str, *, warning: bool = False) -> None:
        """Pass on warnings as this run's, and what all runs have to say once."""
        if warning:
            self.group.warn(self.name, text)
        elif not self.is_closed:
            self.group.note_once(text)

    def update(self, snapshot: Snapshot) -> None:
        """Pass on the state."""
        self.group.update(self.name, snapshot)

    def close(self) -> None:
        """The group closes the display."""
        self.is_closed = True
