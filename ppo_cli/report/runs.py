"""Runs as they lie on the disk: finished, running, killed or crashed; whatever is missing or cut short is left out.

Folders may come from elsewhere: files are parsed as data, and a link that leads out of a run is not followed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

import numpy as np
import yaml
from numpy.typing import NDArray

from ppo_cli.run_files import CONFIG_FILE, CRASH_FILE, METRICS_FILE, OVERRIDES_FILE, SUMMARY_FILE
from ppo_cli.trials import NOT_HYPERPARAMETERS, chosen_settings

Status = Literal["completed", "interrupted", "failed", "running", "killed"]

RETURN = "charts/episodic_return"
NOT_TAGS = {"env_steps", "update", "wall_time"}

LOG_FILE = "output.log"
"""What a job of a sweep printed: all that is left of one that died before its run began."""

LARGEST_FILE = 1 << 30  # bytes; of anything but metrics a thousandth
LONGEST_TAIL = 1 << 16
MAX_SETTINGS = 1000
MAX_DEPTH = 8
LONGEST_LABEL = 60
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


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    runs: tuple[Run, ...]
    """One a seed, the one that came furthest."""
    repeated: tuple[Run, ...]
    """Others of the same seeds: the same sample once more, which no statistic counts."""
    settings: Mapping[str, Any]
    """Those that differ between the groups."""
    factors: Mapping[str, Any]
    """Of these, the ones that someone chose and that tell the groups apart; the others follow from them."""
    label: str
    """What tells it from the others, short: ``clip=0.2``."""


def find_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Every run in and below these folders, once, ordered by path; ``clip=2`` stands before ``clip=10``.

    Links to folders are not followed, except a path that is given itself.
    """
    folders = {folder.resolve(): folder for path in paths for folder in _run_folders(Path(path))}
    return [load_run(folder) for folder in sorted(folders.values(), key=natural_order)]


def _run_folders(path: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(path):
        inner.sort()
        if CONFIG_FILE in files or METRICS_FILE in files or (LOG_FILE in files and not inner):
            inner.clear()
            yield Path(folder)


def natural_order(path: Path) -> list[tuple[int, float, str]]:
    """A key that orders numbers inside a path by value."""
    parts = re.split(r"(\d+\.?\d*)", str(path))
    return [(0, float(part), "") if part[:1].isdigit() else (1, 0.0, part) for part in parts]


def load_run(folder: Path) -> Run:
    """Read a run folder. What is missing, damaged, or a link that leads out of it counts as empty."""
    summary = _mapping(_json(read_inside(folder, SUMMARY_FILE)))
    records = read_records(read_inside(folder, METRICS_FILE, LARGEST_FILE))
    crash = read_inside(folder, CRASH_FILE) if _is_of_this_session(folder) else ""
    overrides = read_yaml(folder, OVERRIDES_FILE)
    return Run(
        folder=folder,
        config=_mapping(read_yaml(folder, CONFIG_FILE)),
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        summary=summary,
        error=crash.strip() or str(summary.get("error") or "") or read_inside(folder, LOG_FILE, tail=True).strip(),
        status="failed" if crash else _status(folder, summary, records),
        records=records,
    )


def read_inside(folder: Path, name: str, largest: int = LARGEST_FILE // 1000, *, tail: bool = False) -> str:
    """The text, or its last part, of a regular file of the folder; empty where there is none, or it lies elsewhere."""
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            return ""
        size = path.stat().st_size
        if size > largest and not tail:
            return ""
        with path.open("rb") as file:
            file.seek(max(0, size - LONGEST_TAIL) if tail else 0)
            return file.read(LONGEST_TAIL if tail else largest).decode("utf-8", "replace")
    except OSError:
        return ""


def read_records(text: str) -> list[dict[str, Any]]:
    """The whole lines of ``metrics.jsonl`` by rising env steps, of several at one place the last."""
    records = {}
    for line in text.split("\n"):
        record = _json(line)
        if isinstance(record, dict) and is_number(steps := record.get("env_steps")) and steps >= 0:
            records[int(steps)] = record
    return [records[steps] for steps in sorted(records)]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number, which JSON's null, NaN, true and texts are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _json(text: str) -> Any:  # noqa: ANN401 - whatever stands there
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_yaml(folder: Path, name: str) -> Any:  # noqa: ANN401 - whatever stands there
    """Plain values of a YAML file of the folder, None where it holds none."""
    try:
        return yaml.load(read_inside(folder, name), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _mapping(value: object) -> dict[str, Any]:
    return {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else {}


def _is_of_this_session(folder: Path) -> bool:
    """Whether the crash came after the last start: a run that was resumed since is not a crashed one."""
    try:
        started = _mapping(_json(read_inside(folder, SUMMARY_FILE))).get("started", "")
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


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings under dotted names; lists stay whole."""
    return dict(item for item, _ in zip(_items(config, "", MAX_DEPTH), range(MAX_SETTINGS), strict=False))


def _items(config: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Lazy and of bounded depth: aliases can make a small file huge, or endless."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _items(value, f"{prefix}{name}.", depth - 1) if depth else ()
        else:
            yield f"{prefix}{name}", value


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ only in the seed belong together, in the order in which their first one comes."""
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(exact(dict(sorted(run.settings.items()))), []).append(run)
    samples = list(by_settings.values())
    names = differing([group[0].settings for group in samples])
    factors = factors_of([group[0] for group in samples], names)
    labels = labels_of([group[0] for group in samples], factors)
    return [_group(group, names, factors, label) for group, label in zip(samples, labels, strict=True)]


def _group(samples: list[Run], names: Sequence[str], factors: Sequence[str], label: str) -> Group:
    furthest: dict[str, Run] = {}
    for run in sorted(samples, key=lambda run: (run.is_finished, run.env_steps)):
        furthest[str(run.folder if run.seed is None else run.seed)] = run
    kept = tuple(run for run in samples if run in furthest.values())
    settings = {name: samples[0].settings[name] for name in names if name in samples[0].settings}
    deciding = {name: settings[name] for name in factors if name in settings}
    return Group(kept, tuple(run for run in samples if run not in kept), settings, deciding, label)


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that do not have the same value everywhere, or do not exist everywhere, in the order of the configs.

    A run that left no settings says nothing about them.
    """
    known = [each for each in settings if each]
    names = dict.fromkeys(name for each in known for name in each)
    return [name for name in names if len({exact(each.get(name, ...)) for each in known}) > 1]


def factors_of(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The settings to tell runs of different configurations apart by: those that were typed, where they suffice."""
    chosen = [name for name in chosen_settings([word for run in runs for word in run.overrides]) if name in names]
    is_enough = len({exact([run.settings.get(name, ...) for name in chosen]) for run in runs}) == len(runs)
    return chosen if is_enough else list(names)


def labels_of(runs: Sequence[Run], factors: Sequence[str]) -> list[str]:
    """A short name for each of these runs, no two alike: ``clip=0.2, algo=ppo``, or its folder where that is long."""
    labels = [
        ", ".join(
            f"{name.removesuffix('.name')}={shown(run.settings[name])}" for name in factors if name in run.settings
        )
        or run.folder.absolute().name
        for run in runs
    ]
    is_readable = len(set(labels)) == len(runs) and all(0 < len(label) <= LONGEST_LABEL for label in labels)
    return labels if is_readable else _folder_labels(runs)


def _folder_labels(runs: Sequence[Run]) -> list[str]:
    """Folder names with as many parents as it takes to tell them apart; of one run its last."""
    parts = [run.folder.absolute().parts for run in runs]
    for length in range(1, max(map(len, parts), default=1) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(runs):
            break
    return labels


def exact(value: object) -> str:
    """Equal for equal values only."""
    return json.dumps(value, default=repr)


def shown(value: object) -> str:
    """A setting's value as one would type it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    return str(value)
