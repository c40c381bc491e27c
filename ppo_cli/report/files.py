"""Files of run folders that may come from elsewhere: parsed as data, and no link that leads out is followed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from ppo_cli.bounded_yaml import require_bounded

LARGEST_FILE = 1 << 30  # bytes; of anything but metrics a thousandth
LONGEST_TAIL = 1 << 16


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
        record = read_json(line)
        if isinstance(record, dict) and is_number(steps := record.get("env_steps")) and steps >= 0:
            records[int(steps)] = record
    return [records[steps] for steps in sorted(records)]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number, which JSON's null, NaN, true and texts are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def read_json(text: str) -> Any:  # noqa: ANN401 - whatever stands there
    """The value of a JSON text, None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_yaml(folder: Path, name: str) -> Any:  # noqa: ANN401 - whatever stands there
    """The value of a YAML file of the folder; None where it is none that JSON could hold, too.

    What an alias makes endless is refused.
    """
    text = read_inside(folder, name)
    try:
        require_bounded(text)
        value = yaml.safe_load(text)
        json.dumps(value, default=str)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None
    return value


def mapping(value: object) -> dict[str, Any]:
    """A mapping with texts as keys, empty where it is none."""
    return {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else {}


def natural_order(text: str) -> list[tuple[int, float, str]]:
    """A key that orders numbers inside a text by value."""
    parts = re.split(r"(\d+\.?\d*(?:e[+-]?\d+)?)", text)
    return [(0, float(part), "") if part[:1].isdigit() else (1, 0.0, part) for part in parts]
