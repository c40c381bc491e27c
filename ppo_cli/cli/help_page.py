"""A page of help: text for a terminal, wrapped to its width; rows of what to type and what it does."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from ppo_cli.cli.declared import Setting
from ppo_cli.cli.values import plain

WIDEST = 110  # columns; longer lines are hard to read
NARROWEST = 60
UNBROKEN = "\N{NO-BREAK SPACE}"


class Page:
    """Text for a terminal: wrapped to its width; bold and colour where it has them."""

    def __init__(self) -> None:
        columns = shutil.get_terminal_size((100, 24)).columns
        self.width = max(NARROWEST, min(columns, WIDEST))
        self.with_style = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.text: list[str] = []

    def style(self, code: str, text: str) -> str:
        """``text`` in an ANSI style, if there are any."""
        return f"\033[{code}m{text}\033[0m" if self.with_style and text else text

    def line(self, text: str = "") -> None:
        """One line as it is."""
        self.text.append(text)

    def paragraph(self, text: str) -> None:
        """Text over the full width."""
        self.text += textwrap.wrap(text, self.width)

    def heading(self, text: str, note: str = "") -> None:
        """The start of a section."""
        self.text += ["", self.style("1", text) + (f"  {self.style('2', note)}" if note else "")]

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        """Two columns: what to type, and what it does."""
        rows = list(rows)
        left = max(len(typed) for typed, _ in rows)
        for typed, meaning in rows:
            self.hanging(f"  {self.style('36', typed)}{' ' * (left - len(typed))}  ", left + 4, meaning)

    def hanging(self, prefix: str, indent: int, text: str, faint: str = "") -> None:
        """``text`` to the right of ``prefix``, its further lines under its first; ``faint`` follows it, greyed."""
        full = f"{text} {faint}".strip().replace("``", "")
        lines = textwrap.wrap(full, self.width - indent, break_long_words=False) or [""]
        start = len(full) - len(faint)
        position = 0
        for number, line in enumerate(lines):
            cut = max(0, min(len(line), start - position))
            shown = line[:cut] + self.style("2", line[cut:])
            self.line((prefix if number == 0 else " " * indent) + shown)
            position += len(line) + 1

    def settings(self, settings: Mapping[str, Setting], values: Mapping[str, Any], prefix: str = "") -> None:
        """Three columns: name, value, and meaning with the range."""
        shown = [setting for setting in settings.values() if setting.name in values]
        if not shown:
            return
        texts = {setting.name: shorten(plain(values[setting.name])) for setting in shown}
        left = max(22, *(len(prefix + setting.name) for setting in shown))
        for setting in shown:
            name, value = prefix + setting.name, texts[setting.name]
            start = f"  {self.style('36', name)}{' ' * (left - len(name))}  {self.style('1', value)}"
            self.hanging(start + " " * max(1, 12 - len(value)), left + 16, setting.meaning, range_note(setting))

    def show(self) -> None:
        """Print it."""
        print("\n".join(self.text).replace(UNBROKEN, " "))


def range_note(setting: Setting) -> str:
    """A setting's range or choices in brackets, never broken within a range; what true and false mean is clear."""
    if [option.base for option in setting.options] == ["bool"] or not setting.range_text:
        return ""
    text = setting.range_text if setting.choices else setting.range_text.replace(" ", UNBROKEN)
    return f"({text})"


def shorten(value: str) -> str:
    """A value that fits its column: 2000000 as 2e6."""
    digits = value.rstrip("0")
    zeros = len(value) - len(digits)
    return f"{digits}e{zeros}" if value.isdigit() and zeros >= 4 else value
