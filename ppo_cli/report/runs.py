"""Runs as they lie on the disk: finished, running, killed or crashed; whatever is missing or cut short is left out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.processes import LOG_FILE
from ppo_cli.report.files import (
    LARGEST_FILE,
    is_number,
    mapping,
    natural_order,
    read_inside,
    read_json,
    read_records,
    read_yaml,
)
from ppo_cli.run_files import CONFIG_FILE, CRASH_FILE, METRICS_FILE, OVERRIDES_FILE, SUMMARY_FILE
from ppo_cli.trials import NOT_HYPERPARAMETERS

Status = Literal["completed", "interrupted", "failed", "running", "killed"]

RETURN = "charts/episodic_return"
NOT_TAGS = {"env_steps", "update", "wall_time"}


PATIENCE = 120.0
"""Seconds without a new line after which a run that calls itself running may be dead; a slow one gets ten gaps."""
STARTING = 900.0
"""The same before the first line: kernels are compiled, environments are made."""


class Curve(NamedTuple):
    """One figure of a run: env steps, rising, int64 [T], and the value there, finite, float64 [T]."""

    env_steps: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder, as far as it can be read."""

    folder: Path
    config: Mapping[str, Any]
    overrides: tuple[str, ...]
    summary: Mapping[str, Any]
    error: str
    """Last lines of what went wrong; empty where nothing did."""
    status: Status
    records: Sequence[Mapping[str, Any]] = field(repr=False)
    """The whole lines of its metrics, by rising env steps."""

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Every figure that was ever finite, by tag."""
        tags = dict.fromkeys(tag for record in self.records for tag in record if tag not in NOT_TAGS)
        curves = {tag: self._curve(tag) for tag in tags}
        return {tag: curve for tag, curve in curves.items() if len(curve.value)}

    def _curve(self, tag: str) -> Curve:
        points = [(int(record["env_steps"]), value) for record in self.records if is_number(value := record.get(tag))]
        steps, values = zip(*points, strict=True) if points else ((), ())
        return Curve(np.array(steps, np.int64), np.array(values, np.float64))

    def curve(self, tag: str) -> Curve:
        """One figure, of no points where the run does not have it."""
        return self.curves.get(tag) or Curve(np.array([], np.int64), np.array([], np.float64))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration under dotted names, without what tells samples of one configuration apart."""
        return {
            name: value
            for name, value in flat(self.config).items()
            if name not in NOT_HYPERPARAMETERS and not name.rpartition(".")[2].startswith("_")
        }

    @property
    def seed(self) -> Any:  # noqa: ANN401 - whatever stands there
        """The root of its random numbers, None where it is not known."""
        return self.config.get("seed")

    @property
    def env_steps(self) -> int:
        """How far its metrics go."""
        return int(self.records[-1]["env_steps"]) if self.records else 0

    @property
    def total_env_steps(self) -> int:
        """Where it was to end; how far it went, where that is not known."""
        total = self.config.get("total_env_steps", self.summary.get("total_env_steps"))
        return int(total) if is_number(total) else self.env_steps

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end."""
        return self.status == "completed"


def find_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Every run in and below these folders, once, ordered by path; ``clip=2`` stands before ``clip=10``.

    Links to folders are not followed, except a path that is given itself.
    """
    folders = {folder.resolve(): folder for path in paths for folder in _run_folders(Path(path))}
    return [load_run(folder) for folder in sorted(folders.values(), key=lambda folder: natural_order(str(folder)))]


def _run_folders(path: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(path):
        inner.sort()
        if CONFIG_FILE in files or METRICS_FILE in files or (LOG_FILE in files and not inner):
            inner.clear()
            yield Path(folder)


def load_run(folder: Path) -> Run:
    """Read a run folder. What is missing, damaged, or a link that leads out of it counts as empty."""
    summary = mapping(read_json(read_inside(folder, SUMMARY_FILE)))
    records = read_records(read_inside(folder, METRICS_FILE, LARGEST_FILE))
    crash = read_inside(folder, CRASH_FILE) if _is_of_this_session(folder) else ""
    overrides = read_yaml(folder, OVERRIDES_FILE)
    return Run(
        folder=folder,
        config=mapping(read_yaml(folder, CONFIG_FILE)),
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        summary=summary,
        error=crash.strip() or str(summary.get("error") or "") or read_inside(folder, LOG_FILE, tail=True).strip(),
        status="failed" if crash else _status(folder, summary, records),
        records=records,
    )


def _is_of_this_session(folder: Path) -> bool:
    """Whether the crash came after the last start: a run that was resumed since is not a crashed one."""
    try:
        started = mapping(read_json(read_inside(folder, SUMMARY_FILE))).get("started", "")
        return (folder / CRASH_FILE).stat().st_mtime >= datetime.fromisoformat(str(started)).timestamp()
    except (OSError, ValueError):
        return True


def _status(folder: Path, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Status:
    """What the summary says; a run that calls itself running and has been silent for long was killed."""
    told = summary.get("status")
    if told in ("completed", "interrupted", "failed"):
        return told  # type: ignore[no-any-return]
    times = [record["wall_time"] for record in records if is_number(record.get("wall_time"))]
    gaps = np.diff(times)
    patience = max(PATIENCE, 10 * float(np.quantile(gaps, 0.98))) if len(gaps) else STARTING
    try:
        names = (SUMMARY_FILE, METRICS_FILE, LOG_FILE)
        signs = [(folder / name).stat().st_mtime for name in names if (folder / name).exists()]
    except OSError:
        signs = []
    return "running" if time.time() - max(signs, default=0.0) < patience else "killed"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; lists stay whole, and of an empty mapping nothing is left."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
