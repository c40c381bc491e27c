"""What the console commands share: how each begins, and the words and settings of those that take runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from ppo_cli.cli.arguments import COMPLETION, UserError, misspelled, repeated, unknown_flag
from ppo_cli.cli.declared import declared_settings
from ppo_cli.cli.mistakes import unknown_setting, unreadable
from ppo_cli.cli.program import guarded, print_warnings
from ppo_cli.cli.run_folder import is_there, saved_config
from ppo_cli.cli.trust import trust
from ppo_cli.cli.validate import Settings, device_problems
from ppo_cli.cli.values import RefusedError, convert


def run_command(
    command: str, work: Callable[[list[str]], int], words: list[str] | None, *, has_flags: bool = False
) -> int:
    """The console ``command``, which does ``work`` with the words that follow it. Returns the exit code.

    Tab completion is answered here, and so is ``--help``, but for commands that have more flags and sort them.
    """

    def answer() -> int:
        given = sys.argv[1:] if words is None else words
        if given and given[0] in COMPLETION:
            from ppo_cli.cli.complete import complete

            return complete(command, given[1:])
        if not has_flags and {"--help", "-h"} & set(given):
            from ppo_cli.cli.help import print_help

            print_help(command)
            return 0
        return work(given)

    return guarded(answer)


def runs_and_settings(words: list[str], command: str, target: str, most_runs: int = 1) -> tuple[list[str], Settings]:
    """The runs that the words after ``command`` name, and the settings that the class ``target`` declares.

    Raises:
        UserError: with every word that is neither, or with every mistake in the settings.
    """
    runs, overrides = sort_words(words, command, most_runs)
    print_warnings(repeated(overrides))
    return runs, typed_settings(overrides, target, command)


def sort_words(words: list[str], command: str, most_runs: int) -> tuple[list[str], list[str]]:
    """The runs and the settings that the words after ``command`` name.

    Raises:
        UserError: with every word that is neither.
    """
    rest, overrides, runs, problems = list(words), [], [], []
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            problems.append(unknown_flag(word, rest))
        elif "=" not in word or "/" in word.partition("=")[0] or is_there(Path(word)):  # no setting's name has a /
            runs.append(word)
        elif problem := misspelled(word, rest):
            problems.append(problem)
        else:
            overrides.append(word)
    if not runs:
        problems.append(f"which run? {command} <run folder>, or {command} latest")
    if len(runs) > most_runs:
        expected = "one run folder" if most_runs == 1 else f"at most {most_runs} run folders"
        problems.append(f"{' '.join(runs)}: expected {expected}")
    if problems:
        raise UserError(*problems)
    return runs, overrides


def typed_settings(overrides: list[str], target: str, command: str) -> Settings:
    """The settings that the class ``target`` declares, each of its declared type.

    Raises:
        UserError: with every mistake.
    """
    declared = declared_settings(target) or {}
    settings: Settings = {name: setting.default for name, setting in declared.items()}
    problems = []
    for text in overrides:
        name, _, value = text.partition("=")
        if name not in declared:
            problems.append(unknown_setting(name, value, declared, command=command))
            continue
        try:
            settings[name] = convert(parse_value(text), declared[name].options)
        except RefusedError as refusal:
            problems.append(f"{text}: expected {refusal}")
        except HydraException:
            problems.append(unreadable(text))
    problems += device_problems(settings)
    if problems:
        raise UserError(*problems)
    return settings


def parse_value(text: str) -> Any:  # noqa: ANN401 - whatever was typed
    """The value of ``name=value`` by the same grammar as for ``ppo-train``."""
    (override,) = OverridesParser.create().parse_overrides([text])
    return text.partition("=")[2] if override.is_sweep_override() else override.value()


def trust_named(settings: Settings) -> None:
    """Trust the modules that the setting ``trust`` names."""
    trust([settings["trust"]] if isinstance(settings["trust"], str) else settings["trust"] or [])


def run_config(folder: Path) -> dict[str, Any]:
    """The settings that a run was started with."""
    config = OmegaConf.to_container(saved_config(folder))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()} | {"device": "auto"}
