"""``ppo-search``: try settings, drawn from a space, for those with the highest return. Optuna is imported last.

A value fixes a setting (``env=cartpole gamma=0.99``); several make it part of the space (``clip=interval(0.1,0.4)``).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ppo_cli.cli.arguments import Arguments, UserError, repeated_flags, sort_arguments, trusted_on_command_line
from ppo_cli.cli.commands import run_command, typed_settings
from ppo_cli.cli.compose import Composer, choices_of, resolve
from ppo_cli.cli.declared import declared_settings
from ppo_cli.cli.jobs import job_settings
from ppo_cli.cli.mistakes import closest, unknown_setting
from ppo_cli.cli.program import print_warnings
from ppo_cli.cli.run_folder import folder_problem, sweep_id
from ppo_cli.cli.search_space import Dimension, space_of
from ppo_cli.cli.sweep import NOT_COMPARED, NOT_REPEATED, Sweep, claimed, digest, newest_like, read_sweep
from ppo_cli.cli.trust import trust
from ppo_cli.cli.validate import SEARCH_SETTINGS, Settings
from ppo_cli.run_files import command_line, shown_path

SEARCH_FILE = "search.yaml"
FLAGS = ("--help", "--config-dir")


def main(words: list[str] | None = None) -> int:
    """The console command. Returns the exit code."""
    return run_command("ppo-search", command, words, has_flags=True)


def command(words: list[str]) -> int:
    """Do what the words ask for."""
    arguments = sort_arguments(words)
    if "--help" in arguments.flags:
        from ppo_cli.cli.help import print_search_help

        print_search_help()
        return 0
    arguments.problems += [f"{flag}: ppo-search has no such flag" for flag in arguments.flags if flag not in FLAGS]
    if arguments.problems:
        raise UserError(*arguments.problems)
    print_warnings(arguments.warnings)
    trust(trusted_on_command_line(arguments))
    settings, rest = search_settings(arguments)
    composer = Composer(arguments.flags.get("--config-dir"))
    try:
        fixed, space = space_of(composer, rest, preset_space(composer, rest, settings))
        config = checked(composer, fixed, space)
    except UserError as error:
        raise UserError(*with_own_names(error.problems, rest)) from error
    if not is_installed("optuna"):
        raise UserError("ppo-search: needs optuna, which is not installed: pip install 'ppo-cli[search]'")
    search = identity(composer, fixed, space, settings, repeated_flags(arguments))
    folder = search_folder(composer, fixed, config, search)
    if problem := folder_problem(folder, f"output_dir={config['output_dir']}"):
        raise UserError(problem)
    with claimed(folder, asdict(search), SEARCH_FILE):
        from ppo_cli.cli.search_loop import SearchLoop

        return SearchLoop(composer, fixed, space, config | settings, folder).run(search)


def is_installed(package: str) -> bool:
    """Whether the package can be imported."""
    return importlib.util.find_spec(package) is not None


def search_settings(arguments: Arguments) -> tuple[Settings, list[str]]:
    """The settings of the search, and the words that are about the runs.

    Raises:
        UserError: with every mistake in the former.
    """
    declared = declared_settings(SEARCH_SETTINGS) or {}
    own = [word for word in arguments.overrides if word.partition("=")[0] in declared]
    rest = [word for word in arguments.overrides if word not in own]
    return typed_settings(own, SEARCH_SETTINGS, "ppo-search"), rest


def with_own_names(problems: Sequence[str], words: Sequence[str]) -> list[str]:
    """Unknown settings once more: what is no setting of a run may be a misspelt one of the search."""
    declared = declared_settings(SEARCH_SETTINGS) or {}
    result = list(problems)
    for word in words:
        name, _, value = word.partition("=")
        for place, problem in enumerate(problems):
            if problem.startswith(f"{word}: there is no setting") and closest(name, declared):
                result[place] = unknown_setting(name, value, declared, command="ppo-search")
    return result


def preset_space(composer: Composer, words: Sequence[str], settings: Settings) -> dict[str, Any]:
    """What space/<name>.yaml says, by default that of the algorithm.

    Raises:
        UserError: there is no such file, or several algorithms were named.
    """
    given = dict(word.split("=", 1) for word in words)
    for name in ("env", "env.id", "algo", "network", "experiment"):
        if "," in given.get(name, ""):
            what = "env" if name == "env.id" else name
            raise UserError(f"{name}={given[name]}: a search is about one {what}; ppo-train -m compares several")
    name = settings["space"] or given.get("algo", "ppo")
    options = composer.options("space")
    if name not in options:
        if settings["space"] is None:
            return {}
        raise UserError(f"space={name}: there is no such file in space/. Choose from: {', '.join(options)}")
    content: Any = OmegaConf.to_container(composer.compose([f"+space@search_space={name}"]).search_space)
    return {str(key): value for key, value in content.items()}


def checked(composer: Composer, fixed: Sequence[str], space: Sequence[Dimension]) -> Settings:
    """The settings that all trials share, once every mistake in them and at either end of the space is ruled out.

    Raises:
        UserError: with all mistakes that were found, or where there is nothing to try.
    """
    problems: list[str] = []
    if not space:
        problems.append("ppo-search: nothing to try; give a setting several values, as in clip=interval(0.1,0.4)")
    shared: Settings = {}
    for words in [*([word] for each in space for word in each.ends), []]:
        try:
            shared = job_settings(composer.compose([*fixed, *words]))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return shared


def identity(
    composer: Composer, fixed: list[str], space: Sequence[Dimension], settings: Settings, flags: list[str]
) -> Sweep:
    """What the search is: two commands with the same one go on with each other, also towards more trials."""
    config = composer.compose(fixed)
    shared = {name: value for name, value in resolve(config, choices_of(config)).items() if name not in NOT_COMPARED}
    own = {name: value for name, value in settings.items() if name != "trials"}
    words = [word for word in fixed if word.partition("=")[0] not in (*NOT_REPEATED, "seed")]
    return Sweep(command_line(), digest(shared, own), [*flags, *words], {each.name: [each.text] for each in space})


def search_folder(composer: Composer, fixed: list[str], config: Settings, search: Sweep) -> Path:
    """Where the search lies: in the folder that the user named, with the same search before it, or in a new one.

    Raises:
        UserError: the named folder holds something else.
    """
    parent = Path(str(composer.compose(fixed).hydra.sweep.dir)).parent
    folder = parent / sweep_id(config["run_name"], "search")
    if config["run_name"] is None:
        return (None if config["again"] else newest_like(search, parent, SEARCH_FILE)) or folder
    before = read_sweep(folder, SEARCH_FILE)
    is_same = before is not None and search.is_same(before, may_grow=False)
    if folder.is_dir() and any(folder.iterdir()) and (config["again"] or not is_same):
        what = "this search already" if is_same else "something else"
        raise UserError(f"{shown_path(folder)}: holds {what}; choose another run_name")
    return folder


if __name__ == "__main__":
    sys.exit(main())
