"""Imports point down, and what is heavy is imported where it is used. Read from the source, nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ppo_cli"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("settings", "types", "schedules", "signals", "run_files", "bounded_yaml", "spaces", "faults"),
    ("advantages", "losses", "distributions", "normalize", "accelerate", "parallel", "optimizers", "episodes",
     "event_writer", "progress", "progress_bar", "progress_group", "progress_jobs",
     "closing_words", "processes", "run_reader", "trials", "kernels"),
    ("train_state",),
    ("envs", "networks"),
    ("rollout", "algorithms"),
    ("fused",),
    ("evaluate", "checkpoint", "logger", "play", "policy", "report"),
    ("random_obs",),
    ("export",),
    ("trainer",),
    ("claims",),
    ("cli",),
    ("bench", "__main__", "__init__"),
)  # fmt: skip
"""From the ground up. A part may import its own layer and those before it."""

HEAVY = {
    *("torch", "numpy", "gymnasium", "tensorboard", "numba", "rich", "PIL"),
    *("optuna", "matplotlib", "safetensors", "onnxruntime"),
}
COMMANDS = ("train", "eval", "play", "report", "search", "export", "commands", "complete", "help")
ENTRY_POINTS = (*(f"ppo_cli.cli.{name}" for name in COMMANDS), "ppo_cli.__main__")

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def part_of(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def layer_of(module: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part_of(module) in parts)


def imports(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; those inside functions and under TYPE_CHECKING only on request."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: imports are absolute"
                assert child.module is not None
                yield child.module
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            lazy |= isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if not (at_import_time and lazy):
                yield from walk(child)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")))


def test_every_part_has_a_layer() -> None:
    assert {part_of(module_name(path)) for path in MODULES} == {part for parts in LAYERS for part in parts}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    module = module_name(path)
    upward = [name for name in imports(path) if name.startswith("ppo_cli.") and layer_of(name) > layer_of(module)]
    assert not upward, f"{module} imports from above: {upward}"


@pytest.mark.parametrize("path", [path for path in MODULES if "cli" not in path.parent.parts[-1:]], ids=module_name)
def test_only_the_command_line_knows_hydra(path: Path) -> None:
    if path.parent == PACKAGE / "cli":
        return
    assert not {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_nothing_heavy_is_reached_when_a_command_is_imported(entry_point: str) -> None:
    by_name = {module_name(path): path for path in MODULES}
    pending, seen = [entry_point], set()
    while pending:
        module = pending.pop()
        if module in seen or module not in by_name:
            continue
        seen.add(module)
        parents = [".".join(module.split(".")[:length]) for length in range(1, len(module.split(".")))]
        reached = list(imports(by_name[module], at_import_time=True))
        heavy = {name.split(".")[0] for name in reached} & HEAVY
        assert not heavy, f"{entry_point} reaches {module}, which imports {heavy}"
        pending += [*reached, *parents]
    assert entry_point in seen


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_third_party_imports_are_declared_dependencies() -> None:
    import tomllib

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    names = {"hydra-core": "hydra", "pillow": "PIL", "pyyaml": "yaml"}
    listed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    declared = {name for entry in listed for name in [entry.split(">")[0].split("[")[0].strip()]}
    allowed = {names.get(name, name.replace("-", "_")) for name in declared} | {"ppo_cli"}
    ours = [path for path in MODULES if path.name != "jax_peers.py"]  # is run by another interpreter
    used = {name.split(".")[0] for path in ours for name in imports(path)} - set(sys.stdlib_module_names)
    assert used <= allowed
