"""Runs as their folders show them, while they go on and afterwards: how far, how well, how they ended."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ppo_cli.bounded_yaml import read_bounded
from ppo_cli.progress import Snapshot, Throughput
from ppo_cli.run_files import METRICS_FILE, OVERRIDES_FILE, SUMMARY_FILE

RETURN_TAG = "charts/episodic_return"
LONGEST_TAIL = 1 << 16  # bytes: several records


def summary_of(run: Path) -> dict[str, Any]:
    """What ``summary.json`` says; empty where there is none that can be read."""
    try:
        summary = json.loads((run / SUMMARY_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def overrides_of(run: Path) -> list[str]:
    """What the user typed when the run began, one item for each argument; empty where that cannot be read."""
    try:
        words = yaml.safe_load(read_bounded(run / OVERRIDES_FILE))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return list(map(str, words)) if isinstance(words, list) else []


def is_complete(run: Path) -> bool:
    """Whether the run was trained to its end and saved."""
    summary = summary_of(run)
    return summary.get("status") == "completed" and summary.get("exit_code") == 0


def has_failed(run: Path) -> bool:
    """Whether the run ended by an error of its own; one that was killed or interrupted has not."""
    return summary_of(run).get("status") == "failed"


def final_return(run: Path) -> float:
    """Mean return of the run's last episodes, NaN where none has ended or the run has not."""
    final = summary_of(run).get("final")
    value = final.get(RETURN_TAG) if isinstance(final, dict) else None
    return float(value) if isinstance(value, int | float) else math.nan


def job_return(folder: Path) -> float:
    """The same for a job, the mean over its seeds where it has several."""
    runs = [path.parent for path in folder.glob(f"seed=*/{SUMMARY_FILE}")]
    return mean(final_return(run) for run in runs or [folder])


def mean(values: Iterable[float]) -> float:
    """Mean of the numbers among ``values``, NaN where there is none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def recency(run: Path) -> tuple[float, float]:
    """What orders runs by when they wrote last: by their last record, since copied files are all as old; then by files.

    Both in seconds since 1970. A run without a record goes by its files alone.
    """
    by_files = max((path.lstat().st_mtime for path in run.glob("**/*") if path.is_file()), default=0.0)
    try:
        with (run / METRICS_FILE).open("rb") as file:
            file.seek(max(0, (run / METRICS_FILE).stat().st_size - LONGEST_TAIL))
            rows = map(parsed, reversed(file.read().splitlines()))
        times = (row.get("wall_time") for row in rows)
        return next(float(time) for time in times if isinstance(time, int | float)), by_files
    except (OSError, StopIteration):
        return by_files, by_files


class MetricsTail:
    """The rows of a ``metrics.jsonl`` that is being written, as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.row: Mapping[str, Any] = {}  # the newest one
        self._position = 0

    def read(self) -> list[Mapping[str, Any]]:
        """The whole rows that have come since; all of them where a run that goes on has dropped some."""
        try:
            with self.path.open("rb") as file:
                if self.path.stat().st_size < self._position:
                    self._position = 0
                file.seek(self._position)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        if not newline:
            return []
        self._position += len(whole) + 1
        rows: list[Mapping[str, Any]] = [row for line in whole.splitlines() if (row := parsed(line))]
        self.row = rows[-1] if rows else self.row
        return rows


def parsed(line: bytes) -> dict[str, Any]:
    """One row; empty where a crash or a full disk has spoilt it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


class JobProgress:
    """How far the runs in a job's folder are: one run, or one for each of its seeds.

    Args:
        folder: Where the run lies, or its seeds' runs.
        total_env_steps: Of all of them.
    """

    def __init__(self, folder: Path, total_env_steps: int) -> None:
        self.folder = folder
        self.total_env_steps = total_env_steps
        self._tails: dict[Path, MetricsTail] = {}
        self._throughput: Throughput | None = None
        self.snapshot = Snapshot(0, total_env_steps, math.nan)

    def read(self) -> Snapshot:
        """Take in what was written since."""
        for path in (self.folder / METRICS_FILE, *self.folder.glob(f"seed=*/{METRICS_FILE}")):
            if path not in self._tails and path.exists():
                self._tails[path] = MetricsTail(path)
        for tail in self._tails.values():
            tail.read()
        rows = [tail.row for tail in self._tails.values() if tail.row]
        env_steps = sum(int(row["env_steps"]) for row in rows)
        if env_steps != self.snapshot.env_steps:
            if self._throughput is None:  # what came before was not watched
                self._throughput = Throughput(env_steps)
            else:
                self._throughput.mark(env_steps)
            returns = mean(row.get(RETURN_TAG) or math.nan for row in rows)
            rate = self._throughput.recent
            self.snapshot = Snapshot(env_steps, self.total_env_steps, rate, {RETURN_TAG: returns})
        return self.snapshot
