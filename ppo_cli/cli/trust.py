"""Which modules a config may name. A config or a run folder may come from someone else: naming a class runs its code.

Modules of this package are trusted. The user's own are once he says so, `trust=my_lab` on the command line or in the
environment variable PPO_CLI_TRUST; a `trust` in a file is never heard.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ppo_cli.cli.arguments import UserError

PACKAGE = "ppo_cli"
VARIABLE = "PPO_CLI_TRUST"
HYDRA_PACKAGES = ("hydra", "hydra_plugins", "logging", "colorlog")
FORBIDDEN_VARIABLES = ("PPO_CLI_", "PYTHON", "LD_", "PATH")


def trust(modules: Iterable[str]) -> None:
    """Trust these modules, and all inside them, for the rest of the process and in the processes that it starts."""
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*trusted_modules(), *modules]))


def trusted_modules() -> list[str]:
    """What has been trusted so far."""
    return [name for name in os.environ.get(VARIABLE, "").replace(" ", "").split(",") if name]


def is_trusted(target: str) -> bool:
    """Whether the dotted name lies in this package or in a trusted module."""
    return any(target == module or target.startswith(f"{module}.") for module in [PACKAGE, *trusted_modules()])


def search_path(target: str) -> tuple[str, ...]:
    """Where to look for the target's module before Python's own path: the current folder, for the user's modules."""
    return () if target.startswith(f"{PACKAGE}.") else (os.getcwd(),)


def import_target(target: str) -> Any:  # noqa: ANN401 - any class
    """The class or function that ``_target_`` names, of this package or of a trusted module.

    Raises:
        UserError: not trusted, or not there.
    """
    if problem := target_problem(target):
        raise UserError(f"_target_={target}: {problem}")
    module_name, _, name = target.rpartition(".")
    with current_folder_first() if search_path(target) else nullcontext():
        try:
            return getattr(importlib.import_module(module_name), name)
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):
                raise  # a package that the user's module needs
            raise UserError(f"_target_={target}: there is no module {error.name}") from error
        except AttributeError as error:
            raise UserError(f"_target_={target}: {module_name} has no {name}") from error


def target_problem(target: object) -> str | None:
    """Why ``target`` may not be imported, or None."""
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        return "expected package.module.Class"
    if not is_trusted(target):
        root = target.split(".")[0]
        return f"the module {root} is not part of ppo-cli; if you trust its code, say trust={root}"
    return None


def hydra_problems(hydra_config: Any) -> list[str]:  # noqa: ANN401 - whatever stands under hydra
    """What a config file asks Hydra to run or to change that only the user may: foreign classes, our own switches."""
    problems = []
    for name, value in _leaves(hydra_config, "hydra"):
        key = name.rpartition(".")[2]
        is_foreign = isinstance(value, str) and value.split(".")[0] not in HYDRA_PACKAGES and not is_trusted(value)
        if key in ("_target_", "()", "class") and is_foreign:
            problems.append(f"{name}={value}: {target_problem(value)}")
        if name.startswith("hydra.job.env_set.") and key.startswith(FORBIDDEN_VARIABLES):
            problems.append(f"{name}: a config may not set this variable")
    return problems


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
