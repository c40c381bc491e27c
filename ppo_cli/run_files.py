"""The files of a run folder: whole records or none, and where the numbers came from."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.yaml"
OVERRIDES_FILE = "overrides.yaml"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
RESUMES_FILE = "resumes.yaml"
CRASH_FILE = "error.txt"

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What a disk says that is full, has a quota, or may only be read."""

REPORTED_PACKAGES = ("ppo-cli", "torch", "numpy", "gymnasium", "hydra-core", "omegaconf", "tensorboard", "numba")


class WriteError(OSError):
    """A disk that is full or read-only, or the like, and which file it refused."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause), str(path))

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written ({self.strerror})"


@dataclass
class Summary:
    """What ``summary.json`` says: how a run went, and what it was made of.

    It lies in the run folder from the first second, with ``status`` "running": a run that was killed keeps saying so.
    """

    status: str
    exit_code: int | None
    error: str | None
    env_steps: int
    start_env_steps: int  # above 0 where the run was resumed
    total_env_steps: int
    updates: int
    steps_per_second: float | None  # of this session, without its first update, which pays for start-up
    wall_seconds: float  # of this session
    started: str
    ended: str | None
    final: dict[str, float | None]  # latest value by tag
    checkpoint: str | None  # the newest one, below the run folder
    best_checkpoint: str | None
    dropped_records: int  # log records that the disk refused
    faults: dict[str, int]  # what was passed over, by tag: workers replaced, steps left out for NaN
    trial_id: str  # equal for runs that differ in nothing but the seed
    command: str
    git: dict[str, Any] | None
    versions: dict[str, str]


class WallClock:
    """Seconds since 1970 that only go forward, whatever happens to the system's clock meanwhile.

    The time of day is read once, and counted on by a clock that cannot be set.

    Args:
        not_before: Where to start at the earliest, for a run that goes on after the system's clock was set back.
    """

    def __init__(self, not_before: float = 0.0) -> None:
        self._offset = max(time.time(), not_before) - time.monotonic()

    def __call__(self) -> float:
        """Now."""
        return time.monotonic() + self._offset


class AppendFile:
    """A file that grows by whole records and never stops the run.

    Each record is handed to the operating system at once, so it outlives a killed process. A record that cannot be
    written (full disk, quota, lost volume) is counted, taken back to the last whole one, and told once.

    Args:
        path: Created where it does not exist.
        warn: Called with one sentence when the first record is lost.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self.dropped = 0
        self._warn = warn
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise WriteError(path, error) from error
        self._end = os.lseek(self._descriptor, 0, os.SEEK_END)

    def write(self, record: bytes) -> None:
        """Append one record, or count it as dropped."""
        try:
            position = self._end
            while position < self._end + len(record):
                position += os.pwrite(self._descriptor, record[position - self._end :], position)
            self._end = position
        except OSError as error:
            with suppress(OSError):  # the next record overwrites from the same place, whether or not this succeeds
                os.ftruncate(self._descriptor, self._end)
            if self.dropped == 0:
                self._warn(f"cannot write {self.path}: {error.strerror}; training goes on, its log has a gap")
            self.dropped += 1

    def close(self) -> None:
        """Close the file; a file that cannot even be closed counts as one more lost record."""
        try:
            os.close(self._descriptor)
        except OSError:
            self.dropped += 1


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by a file with this content: a reader, or a crash, meets the old file or the new one.

    Raises:
        WriteError: The folder cannot be written; the old file stands and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # a link that somebody left there would be written through
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WriteError(path, error) from error
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def json_value(value: float) -> float | None:
    """The number, or None where JSON has no word for it (NaN, infinities)."""
    return value if math.isfinite(value) else None


def trim_metrics(path: Path, env_steps: int) -> None:
    """Keep the lines of ``metrics.jsonl`` up to ``env_steps``; drop later ones and any that a crash cut short."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if 0 <= _env_steps_of(line) <= env_steps]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))


def _env_steps_of(line: bytes) -> int:
    """Where on the x-axis a line of ``metrics.jsonl`` lies; -1 for a line that is not a whole record."""
    try:
        return int(json.loads(line)["env_steps"]) if line.endswith(b"\n") else -1
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return -1


def command_line() -> str:
    """The command that started this process, ready to paste into a shell."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Python and the packages that decide what a run computes, where they are installed."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def git_revision() -> dict[str, Any] | None:
    """Commit of the checkout that this package runs from, and whether tracked files differ from it.

    None for an installed package, and where git cannot answer: a run never depends on it.
    """
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


def _git(checkout: Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails, is missing or takes longer than anyone would wait."""
    command = ["git", "-C", str(checkout), "--no-optional-locks", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write one JSON object atomically, for people to read."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def shown_path(path: Path) -> str:
    """The path as one would type it here: relative where it lies below the current folder."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
