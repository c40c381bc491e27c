"""What stands on the command line: flags, settings `name=value`, and what to say about anything else."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field

from hydra.core.override_parser.types import Quote, QuotedString

FLAGS = {
    "--help": 0, "-h": 0, "--version": 0, "--hydra-help": 0, "--resolve": 0, "--run": 0, "-r": 0,
    "--multirun": 0, "-m": 0, "--cfg": 1, "-c": 1, "--package": 1, "-p": 1, "--config-path": 1, "-cp": 1,
    "--config-name": 1, "-cn": 1, "--config-dir": 1, "-cd": 1,
}  # fmt: skip
"""Hydra's flags that it can run with, and the number of words that follow each."""

COMPLETION = ("-sc", "--shell-completion")

INFO_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")

LONG = {
    "-h": "--help", "-r": "--run", "-m": "--multirun", "-c": "--cfg", "-p": "--package", "-cp": "--config-path",
    "-cn": "--config-name", "-cd": "--config-dir",
}  # fmt: skip

NAME = r"[A-Za-z_][\w.@/-]*"

OPEN = re.compile(r"env\.kwargs[.=]")
"""Settings with names of their own inside, which Hydra wants to be told by ``++``."""


class UserError(Exception):
    """One or more mistakes in what the user asked for, each a sentence of one or two lines."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


@dataclass
class Arguments:
    """The command line, sorted."""

    flags: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def sort_arguments(words: list[str]) -> Arguments:
    """Sort the words of the command line into flags and settings, and collect what is neither."""
    arguments = Arguments()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, _, attached = word.partition("=")
        if flag in ("--info", "-i"):
            arguments.flags["--info"] = rest.pop(0) if rest and rest[0] in INFO_TOPICS else attached or "all"
        elif flag in FLAGS:
            needs_value = FLAGS[flag] and not attached
            if needs_value and not rest:
                arguments.problems.append(f"{flag}: expected a value after it")
                continue
            arguments.flags[LONG.get(flag, flag)] = rest.pop(0) if needs_value else attached
        elif word.startswith("-") and not re.fullmatch(r"-[\d.].*", word):
            arguments.problems.append(unknown_flag(word, rest))
        elif problem := misspelled(word, rest):
            arguments.problems.append(problem)
        else:
            arguments.overrides.append(f"++{word}" if OPEN.match(word) else with_literal_path(word))
    arguments.warnings = repeated(arguments.overrides)
    return arguments


def with_literal_path(word: str) -> str:
    """``resume=<path>`` in quotes: Hydra's grammar would stumble over the ``=`` in the names of a sweep's folders."""
    name, _, path = word.partition("=")
    is_there = path not in ("latest", "null") and os.path.exists(path)
    is_unquoted = re.fullmatch(r"[^'\"\\]*=[^'\"\\]*", path) is not None  # then Hydra could not read it
    return f"{name}={quoted(path)}" if name == "resume" and (is_there or is_unquoted) else word


def quoted(text: str) -> str:
    """The text as Hydra's grammar reads it, whatever characters it has."""
    return QuotedString(text, Quote.single).with_quotes()


def unknown_flag(word: str, rest: list[str]) -> str:
    """``--clip 0.3`` and ``--clip=0.3``: settings are written without dashes. Takes the value from ``rest``."""
    name, _, value = word.lstrip("-").partition("=")
    name = name.replace("-", "_")
    if not value and rest and re.fullmatch(r"[^=-][^=]*|-[\d.][^=]*", rest[0]):
        value = rest.pop(0)
        word = f"{word} {value}"
    return f"{word}: there is no such flag; settings are written without dashes: {name}={value or '...'}"


def misspelled(word: str, rest: list[str]) -> str | None:
    """What is wrong with the form of a setting, or None. Takes the words that belong to it from ``rest``."""
    name, equals, value = word.partition("=")
    if word.startswith("~"):
        return f"{word}: a setting cannot be deleted; many are switched off by 0, false or null"
    if equals and not name.strip("+"):
        return f"{word}: the setting's name is missing before ="
    if not equals:
        return without_equals(word, rest)
    if name != name.strip() or value != value.strip():
        return f"{word!r}: no space around =: {name.strip()}={value.strip()}"
    if not value and rest and "=" not in rest[0] and not rest[0].startswith("-"):
        return f"{word} {rest[0]}: no space after =: {name}={rest.pop(0)}"
    if not re.fullmatch(r"\+{0,2}" + NAME, name):
        return f"{word}: {name!r} is not the name of a setting"
    return None


def without_equals(word: str, rest: list[str]) -> str:
    """``clip 0.2``, ``clip = 0.2``, or a word that is nothing at all."""
    following = rest[0] if rest else ""
    if following.startswith("="):
        rest.pop(0)
        value = following[1:] or (rest.pop(0) if rest else "...")
        return f"{word} = {value}: no space around =: {word}={value}"
    if re.fullmatch(NAME, word) and following and "=" not in following and not following.startswith("--"):
        return f"{word} {following}: settings are written with =: {word}={rest.pop(0)}"
    if "/" in word:
        return f"{word}: settings are written name=value; to go on with a run: resume={shlex.quote(word)}"
    return f"{word}: expected name=value, for example clip=0.2"


def repeated(overrides: list[str]) -> list[str]:
    """A warning for each setting that is given twice."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        name, _, _ = override.lstrip("+").partition("=")
        values.setdefault(name, []).append(override)
    return [
        f"{' '.join(given)}: given more than once, the last one counts" for given in values.values() if len(given) > 1
    ]


def trusted_on_command_line(arguments: Arguments) -> list[str]:
    """The modules after ``trust=``."""
    values = [
        override.partition("=")[2] for override in arguments.overrides if override.lstrip("+").startswith("trust=")
    ]
    return [name.strip(" '\"") for value in values for name in value.strip("[]").split(",") if name.strip(" '\"")]


def repeated_flags(arguments: Arguments) -> list[str]:
    """The flags without which the settings would mean something else."""
    flags = {"--config-dir", "--config-path", "--config-name"} & arguments.flags.keys()
    return [word for flag in sorted(flags) for word in (flag, arguments.flags[flag])]
