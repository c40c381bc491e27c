"""Which of this package's algorithms has which setting: read from their sources, and only once a setting is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from ppo_cli.cli.declared import class_names, declared_settings
from ppo_cli.cli.sources import UndeclaredError
from ppo_cli.cli.trust import search_path

PACKAGE = "ppo_cli.algorithms"


def settings_by_algorithm() -> dict[str, set[str]]:
    """Names of the settings of each algorithm; its module is called as it is."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec and spec.submodule_search_locations) or ()
    modules = sorted(path.stem for folder in folders for path in Path(folder).glob("*.py"))
    found = {
        module: {
            setting
            for name in class_names(f"{PACKAGE}.{module}")
            for setting in declared_settings(f"{PACKAGE}.{module}.{name}") or ()
        }
        for module in modules
    }
    return {module: settings for module, settings in found.items() if settings}


def settings_of(target: str) -> list[str]:
    """Names of the settings of the algorithm with the dotted name ``target``; none where it cannot be read."""
    try:
        return list(declared_settings(target, search_path(target)) or ())
    except UndeclaredError:
        return []


def setting_of_another(name: str, value: str, algo: str, has: Iterable[str]) -> str | None:
    """The sentence for a setting that the chosen algorithm lacks and another has; None where none has it."""
    others = [other for other, settings in settings_by_algorithm().items() if name in settings and other != algo]
    if not others:
        return None
    owners = f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} it"
    return f"{name}={value}: algo={algo} has no setting {name} ({owners}). It has: {', '.join(has)}"
