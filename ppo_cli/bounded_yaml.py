"""YAML that may come from a stranger: what is huge, or deep, or stands for something huge, is refused unbuilt."""

from __future__ import annotations

from pathlib import Path

import yaml

LARGEST = 1 << 18
"""Bytes of a file. Configs have a few thousand."""
MOST_VALUES = 20_000
"""Of a file, counted once for each place where an alias puts them: a text of a hundred bytes can stand for billions."""
DEEPEST = 50
"""Lists and mappings inside each other: libraries end the process at some depth."""


def read_bounded(path: Path) -> str:
    """The text of a YAML file that can be built safely.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text.
        yaml.YAMLError: it is no YAML, or one that grows beyond all bounds.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    if (size := path.stat().st_size) > LARGEST:
        raise yaml.YAMLError(f"it has {size:,} bytes, {LARGEST:,} are allowed")
    text = path.read_text(encoding="utf-8")
    require_bounded(text)
    return text


def require_bounded(text: str) -> None:
    """Make sure that what the text stands for has bounds, without building it.

    Raises:
        yaml.YAMLError: it has none, or is no YAML.
    """
    sizes: dict[str, int] = {}  # of what has a name; that of a value inside itself is never known
    within: list[tuple[str | None, int]] = []  # names of the lists and mappings around, and values before each
    count = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, count))
            sizes.pop(event.anchor or "", None)
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = within.pop()
            sizes[anchor or ""] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor or ""] = 1
            count += 1
        elif isinstance(event, yaml.AliasEvent):
            count += sizes.get(event.anchor or "", MOST_VALUES)
        if count > MOST_VALUES:
            raise yaml.YAMLError(f"it holds more than {MOST_VALUES:,} values")
        if len(within) > DEEPEST:
            raise yaml.YAMLError(f"it is more than {DEEPEST} levels deep")
