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


def checkpoint_path(folder: Path, env_steps: int) -> Path:
    """Where the checkpoint after ``env_steps`` goes: names sort by age."""
    return folder / f"step_{env_steps:012d}{SUFFIX}"


def save(folder: Path, env_steps: int, content: dict[str, Any], *, keep: int) -> Path:
    """Write one checkpoint and delete all but the newest ``keep``.

    The bytes go to a temporary name, to the disk, and only then under the final name, next to their SHA-256: whoever
    kills the process, a file with the final name is whole. Older files go once the new one is in place.

    Raises:
        OSError: the disk refused; the older checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    data = buffer.getvalue()
    path = checkpoint_path(folder, env_steps)
    write_atomically(digest_path(path), hashlib.sha256(data).hexdigest().encode())
    write_atomically(path, data)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
        digest_path(old).unlink(missing_ok=True)
    return path


def load(path: Path) -> dict[str, Any]:
    """Read and verify one checkpoint; tensors on the CPU.

    Raises:
        CheckpointError: not there, not what was written (SHA-256), or written by a newer program.
    """
    try:
        data = path.read_bytes()
        expected = digest_path(path).read_text().strip()
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename} is missing") from None
    if hashlib.sha256(data).hexdigest() != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one it was written with")
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises half a dozen kinds, none of them documented
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is not a checkpoint of this program ({reason})") from None
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {content.get('format')}; this version of ppo-cli reads {FORMAT}")
    return content


def load_newest(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The newest checkpoint that verifies, and why newer ones were passed over.

    Raises:
        CheckpointError: there is none, or none that verifies. Never falls back to a fresh start.
    """
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return load(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("; ".join(problems) if problems else f"there is no checkpoint in {folder}")


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if NAME.fullmatch(path.name))


def digest_path(path: Path) -> Path:
    """Where a checkpoint's SHA-256 stands."""
    return path.with_suffix(".sha256")
