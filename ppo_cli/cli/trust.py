"""Which modules a config may name. A config or a run folder may come from someone else: naming a class runs its code.

The environments, networks and algorithms of this package are trusted. The user's own are once he says so,
`trust=my_lab` on the command line or in the environment variable PPO_CLI_TRUST; a `trust` in a file is never heard.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from ppo_cli.bounded_yaml import read_bounded
from ppo_cli.cli.arguments import UserError

PACKAGE = "ppo_cli"
VARIABLE = "PPO_CLI_TRUST"
HOMES = {
    "env": (f"{PACKAGE}.envs.",),
    "network": (f"{PACKAGE}.networks.",),
    "algo": (f"{PACKAGE}.algorithms.", f"{PACKAGE}.claims.measuring."),
}
"""Where this package's own classes for each part of a config are; nothing else in it is for a config to call."""

HYDRA_TARGETS = ("hydra._internal.core_plugins.", "hydra.experimental.callbacks.", "hydra_plugins.")
"""What Hydra's own part of a config may name: launchers, sweepers and callbacks, installed ones too."""


def trust(modules: Iterable[str]) -> None:
    """Trust these modules, and all inside them, for the rest of the process and in the processes that it starts."""
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*trusted_modules(), *modules]))


def trusted_modules() -> list[str]:
    """What has been trusted so far."""
    return [name for name in os.environ.get(VARIABLE, "").replace(" ", "").split(",") if name]


def is_trusted(target: str) -> bool:
    """Whether the dotted name lies where this package keeps such classes, or in a trusted module."""
    return target.startswith(tuple(chain(*HOMES.values()))) or is_trusted_by_user(target)


def is_trusted_by_user(target: str) -> bool:
    """Whether the dotted name lies in a module that the user has named."""
    return any(target == module or target.startswith(f"{module}.") for module in trusted_modules())


def search_path(target: str) -> tuple[str, ...]:
    """Where to look for the target's module before Python's own path: the current folder, for the user's modules."""
    return () if target.startswith(f"{PACKAGE}.") else (os.getcwd(),)


def import_target(target: str, part: str) -> Any:  # noqa: ANN401 - any class
    """The class or function that ``_target_`` of a ``part`` names, of this package or of a trusted module.

    Raises:
        UserError: not trusted, or not there.
    """
    if problem := target_problem(target, part):
        raise UserError(f"{part}._target_={target}: {problem}")
    module_name, _, name = target.rpartition(".")
    with current_folder_first() if search_path(target) else nullcontext():
        try:
            found = getattr(importlib.import_module(module_name), name)
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):
                raise  # a package that the user's module needs
            raise UserError(f"{part}._target_={target}: there is no module {error.name}") from error
        except AttributeError as error:
            raise UserError(f"{part}._target_={target}: {module_name} has no {name}") from error
    if not is_trusted_by_user(target) and not (isinstance(found, type) and found.__module__ == module_name):
        raise UserError(f"{part}._target_={target}: is no class of {module_name}")  # but something that it imports
    return found


def target_problem(target: object, part: str) -> str | None:
    """Why a config may not name ``target`` as its ``part``, or None."""
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        return "expected package.module.Class"
    if not (target.startswith(HOMES[part]) or is_trusted_by_user(target)):
        root = target.split(".")[0]
        if root == PACKAGE:
            return f"expected a class of {HOMES[part][0]}..., or of a module of yours named in trust="
        return f"the module {root} is not part of ppo-cli; if you trust its code, say trust={root}"
    return None


def hydra_problems(hydra_config: Any) -> list[str]:  # noqa: ANN401 - whatever stands under hydra
    """What a config file asks Hydra to run or to change that only the user may."""
    problems = []
    for name, value in _leaves(hydra_config, "hydra"):
        key = name.rpartition(".")[2]
        if key == "_target_" and not (str(value).startswith(HYDRA_TARGETS) or is_trusted_by_user(str(value))):
            root = str(value).split(".")[0]
            problems.append(f"{name}={value}: a config may not call this; if you trust its code, say trust={root}")
        if name.startswith("hydra.job.env_set."):
            problems.append(f"{name}: a config may not set a variable; set it in the shell")
    problems += [
        f"hydra/{name}: a run has a log of its own; leave it at none"
        for name in ("job_logging", "hydra_logging")
        if (hydra_config.get(name) or {}).get("root") is not None  # Python's logging calls what its config names
    ]
    subdir = hydra_config.get("output_subdir")
    if subdir is not None and not str(subdir).strip(".").isidentifier():
        problems.append(f"hydra.output_subdir={subdir}: expected the name of a folder below the run's")
    return problems


def search_path_problems(config_dir: Path, config_name: str) -> list[str]:
    """What the user's folder adds to the search for configs that only the command line may: Hydra imports packages."""
    path = config_dir / f"{config_name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        return []
    try:
        config = yaml.safe_load(read_bounded(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return [f"{path}: is not YAML ({str(error).splitlines()[0]})"]
    hydra = config.get("hydra") if isinstance(config, dict) else None
    added = hydra.get("searchpath") if isinstance(hydra, dict) else None
    folders = [entry for entry in added if str(entry).startswith("file://") and "$" not in entry] if added else []
    if added and folders != added:
        return [f"hydra.searchpath in {path}: expected file://<folder> only; others are named on the command line"]
    return []


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any node of a config
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        yield name, node
        return
    for key, child in children:
        yield from _leaves(child, f"{name}.{key}")


@contextmanager
def current_folder_first() -> Iterator[None]:
    """A console script does not have the current folder on Python's path; the user's module is usually there."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
