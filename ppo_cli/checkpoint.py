"""Checkpoints: written whole or not at all, verified before they are believed, loaded without running any code."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch

from ppo_cli.run_files import write_atomically

FORMAT = 1
"""Raised when a change makes older programs unable to read a checkpoint."""

SUFFIX = ".pt"
NAME = re.compile(r"step_(\d{12})\.pt")


class CheckpointError(Exception):
    """A checkpoint is missing, damaged, or of a kind that this program cannot read. The message is for the user."""


class NewerFormatError(CheckpointError):
    """A newer program wrote it: nothing is wrong with it, and what is older is not what the user wants."""


def checkpoint_path(folder: Path, env_steps: int) -> Path:
    """Where the checkpoint after ``env_steps`` goes: names sort by age."""
    return folder / f"step_{env_steps:012d}{SUFFIX}"


def save(
    folder: Path, env_steps: int, content: dict[str, Any], *, keep: int, keep_every: int = 0, best: int | None = None
) -> Path:
    """Write one checkpoint and delete those that need not be kept.

    The bytes go to a temporary name, to the disk, and only then under the final name, next to their SHA-256: whoever
    kills the process, a file with the final name is whole. Older files go once the new one has been read back.

    Args:
        folder: Made where it does not exist.
        env_steps: After which the checkpoint is taken.
        content: Plain tensors, numbers, text, lists and dicts.
        keep: The newest so many stay.
        keep_every: So does the first at or after each multiple of this many env steps; 0 is none.
        best: So does the one after this many env steps.

    Raises:
        OSError: the disk refused; the older checkpoints are untouched.
        CheckpointError: the disk took the file and gives back another one; the older checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    data = buffer.getvalue()
    path = checkpoint_path(folder, env_steps)
    try:
        write_atomically(digest_path(path), hashlib.sha256(data).hexdigest().encode())
        write_atomically(path, data)
        read_verified(path)
    except (OSError, CheckpointError):
        remove(path)
        raise
    for old in dispensable(list_checkpoints(folder), keep, keep_every, best):
        remove(old)
    for leftover in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    for digest in folder.glob("*.sha256"):  # or just before, or while it deleted
        if not digest.with_suffix(SUFFIX).exists():
            digest.unlink(missing_ok=True)
    return path


def remove(path: Path) -> None:
    """A checkpoint and its digest."""
    path.unlink(missing_ok=True)
    digest_path(path).unlink(missing_ok=True)


def dispensable(paths: list[Path], keep: int, keep_every: int, best: int | None) -> list[Path]:
    """Which of ``paths``, oldest first, need not be kept; the words are those of ``save``."""
    found, last_multiple = [], 0
    for path in paths[:-keep]:
        multiple = env_steps_of(path) // keep_every if keep_every else 0
        if multiple == last_multiple and env_steps_of(path) != best:
            found.append(path)
        last_multiple = multiple
    return found


def env_steps_of(path: Path) -> int:
    """After how many env steps a checkpoint was taken, by its name."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def load(path: Path) -> dict[str, Any]:
    """Read and verify one checkpoint; tensors on the CPU.

    Raises:
        CheckpointError: not there, not what was written (SHA-256), or written by a newer program.
    """
    data = read_verified(path)
    try:
        content: Any = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises half a dozen kinds, none of them documented
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a checkpoint of this program ({reason})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of this program (it holds a {type(content).__name__})")
    if (found := content.get("format")) != FORMAT:
        if isinstance(found, int) and found > FORMAT:
            raise NewerFormatError(f"{path} was written by a newer ppo-cli (format {found}, this one reads {FORMAT})")
        raise CheckpointError(f"{path} has format {found}; this version of ppo-cli reads {FORMAT}")
    return content


def read_verified(path: Path) -> bytes:
    """The bytes of a checkpoint.

    Raises:
        CheckpointError: not there, or not what was written (SHA-256).
    """
    try:
        for file in (path, digest_path(path)):
            if file.exists() and not file.is_file():  # a pipe would be waited for
                raise CheckpointError(f"{file} is not a file")
        data = path.read_bytes()
        expected = digest_path(path).read_bytes().strip()
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename} is missing") from None
    if hashlib.sha256(data).hexdigest().encode() != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one it was written with")
    return data


def load_newest(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The newest checkpoint that verifies, and why newer ones were passed over.

    Raises:
        CheckpointError: there is none, none that verifies, or the newest that does was written by a newer program.
            Never falls back to a fresh start.
    """
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return load(path), problems
        except NewerFormatError:
            raise
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("; ".join(problems) if problems else f"there is no checkpoint in {folder}")


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if NAME.fullmatch(path.name))


def digest_path(path: Path) -> Path:
    """Where a checkpoint's SHA-256 stands."""
    return path.with_suffix(".sha256")
