"""Tab completion: names of settings, names in the groups, choices, run folders. Never imports torch.

`ppo-train -sc install=bash` prints the shell's side of it, which asks `ppo-train -sc query="<the line so far>"`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from ppo_cli.cli.arguments import FLAGS, LONG, UserError, sort_arguments
from ppo_cli.cli.compose import Composer
from ppo_cli.cli.declared import Setting, declared_settings
from ppo_cli.cli.help import settings_of_part
from ppo_cli.cli.run_folder import known_runs
from ppo_cli.cli.schema import MOST_PLAYED
from ppo_cli.cli.validate import (
    EVAL_SETTINGS,
    EXPORT_SETTINGS,
    PLAY_SETTINGS,
    REPORT_SETTINGS,
    SEARCH_SETTINGS,
    TRAIN_SETTINGS,
)
from ppo_cli.cli.values import plain

BASH = """\
_{function}() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" word head
    word="${{line##* }}"
    mapfile -t COMPREPLY < <("${{COMP_WORDS[0]}}" -sc query="$line" 2>/dev/null)
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        head="${{word%"${{word##*=}}"}}"
        COMPREPLY=("${{COMPREPLY[@]#"$head"}}")
    fi
    [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
}}
complete -o bashdefault -o default -F _{function} {command} {script} ./{script}
"""

ZSH = """\
_{function}() {{
    local -a found
    found=("${{(@f)$({command} -sc query="$LBUFFER" 2>/dev/null)}}")
    compadd -Q -S '' -- $found
}}
compdef _{function} {command}
"""

FISH = """\
complete -c {command} -f -a '({command} -sc query=(commandline -cp) 2>/dev/null)'
"""

SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
REMOVALS = {
    "bash": "complete -r {command} {script} ./{script}",
    "zsh": "compdef -d {command}",
    "fish": "complete -c {command} -e",
}


def train_candidates(before: list[str], last: str) -> list[str]:
    """What could stand for the word ``last`` of ``ppo-train``."""
    if before and before[-1] in ("-c", "--cfg"):
        return ["job", "hydra", "all"]
    if last.startswith("-"):
        return [flag for flag in FLAGS if flag not in LONG]
    arguments = sort_arguments(before)
    composer = Composer(arguments.flags.get("--config-dir"))
    name, equals, typed = last.partition("=")
    if name in composer.groups() and equals:
        return offered(name, typed, composer.options(name))
    config, _ = composer.try_compose(arguments.overrides, is_sweep=True)
    values: Any = OmegaConf.to_container(config, resolve=False) if config is not None else {}
    settings = (declared_settings(TRAIN_SETTINGS) or {}) | settings_of_part(values.get("algo"))
    known = {key: (setting, values.get(key)) for key, setting in settings.items()}
    for part in ("env", "network"):
        node = values.get(part) or {}
        known |= {f"{part}.{key}": (setting, node.get(key)) for key, setting in settings_of_part(node).items()}
    if not equals:
        return [f"{key}=" for key in [*composer.groups(), *known]]
    if name == "resume":
        return [f"resume={run}" for run in ["latest", *known_runs()]]
    if name == "env.id":
        import gymnasium

        return offered(name, typed, gymnasium.registry)
    return offered(name, typed, values_of(*known[name])) if name in known else []


def search_candidates(before: list[str], last: str) -> list[str]:
    """What could stand for the word ``last`` of ``ppo-search``: its own settings, and those of ``ppo-train``."""
    declared = declared_settings(SEARCH_SETTINGS) or {}
    name, equals, _ = last.partition("=")
    if equals and name == "space":
        return [f"space={option}" for option in Composer().options("space")]
    if equals and name in declared:
        return [f"{name}={value}" for value in values_of(declared[name], declared[name].default)]
    of_runs = train_candidates([word for word in before if word.partition("=")[0] not in declared], last)
    return [f"{key}=" for key in declared] + of_runs if not equals and not last.startswith("-") else of_runs


def run_candidates(target: str, most_runs: int, before: list[str], last: str) -> list[str]:
    """What could stand for the word ``last`` of a command that takes runs and the settings that ``target`` declares."""
    declared = declared_settings(target) or {}
    name, equals, typed = last.partition("=")
    if equals and name in declared:
        return offered(name, typed, values_of(declared[name], declared[name].default))
    names = [f"{key}=" for key in declared]
    num_runs = sum("=" not in word or "/" in word for word in before)
    return ["latest", *map(str, known_runs()), *names] if num_runs < most_runs else names


def values_of(setting: Setting, value: Any) -> list[str]:  # noqa: ANN401 - any setting
    """A setting's choices, or what it is now where it has none."""
    return setting.choices or ([] if value is None else [plain(value)])


def offered(name: str, typed: str, values: Iterable[str]) -> list[str]:
    """``name=value`` for each value; after a comma the next one of a sweep."""
    head = re.sub("[^,]*$", "", typed)
    return [f"{name}={head}{value}" for value in values]


CANDIDATES: dict[str, Callable[[list[str], str], Iterable[str]]] = {
    "ppo-train": train_candidates,
    "ppo-search": search_candidates,
    "ppo-eval": partial(run_candidates, EVAL_SETTINGS, 1),
    "ppo-play": partial(run_candidates, PLAY_SETTINGS, MOST_PLAYED),
    "ppo-report": partial(run_candidates, REPORT_SETTINGS, sys.maxsize),
    "ppo-export": partial(run_candidates, EXPORT_SETTINGS, 1),
}
"""By command: from the complete words of a line and the last one, what could stand in its place."""


def complete(command: str, words: list[str]) -> int:
    """Answer ``-sc install=SHELL``, ``-sc uninstall=SHELL`` or ``-sc query=LINE``.

    Args:
        command: The console command; the script of the same name in the checkout starts it, too.
        words: What follows ``-sc``.

    Raises:
        UserError: another request, or a shell that is not known.
    """
    request, _, value = " ".join(words).partition("=")
    if request == "query":
        *before, last = value.split(" ") if " " in value else [value, ""]
        offer = CANDIDATES[command]([word for word in before[1:] if word], last)
        if found := [word for word in offer if word.startswith(last)]:
            print("\n".join(found))
        return 0
    texts = {"install": SHELLS, "uninstall": REMOVALS}.get(request, {})
    if value not in texts:
        raise UserError(f"-sc {' '.join(words)}: expected install= or uninstall= and one of {', '.join(SHELLS)}")
    script, function = f"scripts/{command.removeprefix('ppo-')}", command.replace("-", "_")
    print(texts[value].format(command=command, script=script, function=function).rstrip())
    return 0
