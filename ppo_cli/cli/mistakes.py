"""Sentences about what somebody typed: what was given, what was expected, the nearest thing that exists."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Iterable

import yaml
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException

INTERNAL = ("_target_", "name")
"""Settings in a group's file that nobody is advised to type."""


def unreadable(text: str) -> str:
    """The sentence for a value that Hydra's grammar cannot read."""
    name, _, value = text.partition("=")
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            return f"{text}: the value has {value.count(opening)} {opening} and {value.count(closing)} {closing}"
    if re.search(r"^\s*,|,\s*,|,\s*$", value):
        return f"{text}: there is no value before or after a comma"
    quoted = f"'{name}=\"{value}\"'" if '"' not in value else "single quotes around the word, double ones in it"
    return f"{text}: the value has characters that need quotes: {quoted}"


def sweep_problem(override: Override) -> str:
    """The sentence for several values where there is one run."""
    line = override.input_line or ""
    if override.is_interval_sweep():
        return interval_problem(line)
    name, _, value = line.partition("=")
    list_hint = f"; for a list: {name}=[{value}]" if re.fullmatch(r"[\w.,-]+", value) else ""
    return f"{line}: several values are a sweep: ppo-train -m {shlex.quote(line)}{list_hint}"


def interval_problem(line: str) -> str:
    """The sentence for an interval where values are listed."""
    return f"{line}: values are drawn from an interval by ppo-search {shlex.quote(line)}; ppo-train -m wants a list"


def resume_problem(override: Override) -> str:
    """The sentence for several values where one run goes on."""
    return f"{override.input_line}: several values are a sweep, but resume= goes on with one run; give one value"


def valueless_problem(override: Override) -> str | None:
    """Why a sweep cannot be spelled out, or has nothing to try; None where it has."""
    line, sweep = override.input_line or "", override.value()
    if isinstance(sweep, ChoiceSweep) and any(isinstance(choice, Sweep) for choice in sweep.list):
        return f"{line}: a sweep among the values of a sweep; list all values: {override.key_or_group}=1,2"
    if isinstance(sweep, RangeSweep):
        numbers = [sweep.start or 0, sweep.stop or 0, sweep.step]
        if not all(map(math.isfinite, numbers)) or not sweep.step:
            return f"{line}: expected range(start,end,step) with finite numbers and a step other than 0"
    if not override.is_discrete_sweep() or any(True for _ in override.sweep_iterator()):
        return None
    if isinstance(sweep, RangeSweep):
        return f"{line}: there is no value in this range; it goes from the start up to the end, which is left out"
    return f"{line}: there is no value of this name; glob looks among the names in a group, as in env=glob(*)"


def unknown_setting(
    name: str, value: str, known: Iterable[str], groups: Iterable[str] = (), *, command: str = "ppo-train"
) -> str:
    """The sentence for a setting that does not exist, with the nearest one that does."""
    given = f"{name}={value}"
    public = [key for key in [*known, *groups] if name.startswith("hydra") or not key.startswith("hydra")]
    public = [key for key in public if key.rpartition(".")[2] not in INTERNAL]
    guess = closest(name, public) or closest(name.rpartition(".")[2], [key for key in public if "." in key], tail=True)
    if guess:
        return f"{given}: there is no setting {name}. Did you mean {guess}={value}?"
    parent = name.rpartition(".")[0]
    inside = [key.rpartition(".")[2] for key in public if parent and key.rpartition(".")[0] == parent]
    has = f"{parent} has: {', '.join(inside)}" if inside else f"{command} --help lists them"
    return f"{given}: there is no setting {name}; {has}"


def unnamed_network(name: str, value: str) -> str:
    """The sentence for a setting of a network that nobody named."""
    return f"{name}={value}: network=auto chooses by itself; to set something, name one: network=mlp {name}={value}"


def closest(word: str, words: Iterable[str], *, tail: bool = False) -> str | None:
    """The most similar of ``words``, or None where none is near; ``tail`` compares what follows the last dot."""
    spelled = {(known.rpartition(".")[2] if tail else known).lower(): known for known in words}
    found = difflib.get_close_matches(word.lower(), spelled, n=1, cutoff=0.7)
    return spelled[found[0]] if found else None


def first_line(error: Exception) -> str:
    """What an exception of Hydra says, without its advice on Hydra's internals."""
    cause = (
        error.__cause__ if isinstance(error, HydraException) and error.__cause__ and not str(error).strip() else error
    )
    if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark is not None:
        return f"{cause.problem_mark.name}, line {cause.problem_mark.line + 1}: {cause.problem}"
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(cause))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__
