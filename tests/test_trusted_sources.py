"""What the package never calls, read from its source: ways to run a text or a stranger's file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ppo_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "code", "codeop", "runpy"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *("os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.load"),
    *("torch.hub.load", "torch.package", "logging.config.dictConfig", "hydra.utils.instantiate", "instantiate"),
}
DYNAMIC_IMPORTS = {
    "cli/trust.py": "after `target_problem`",
    "policy.py": "after the check against `trust`",
    "cli/validate.py": "ale_py, by its name",
    "envs/gymnasium_specs.py": "after the check against `trusted_modules`",
    "__main__.py": "one of our commands",
    "kernels/compiled.py": "numba, by its name",
    "claims/base.py": "one of our claims",
}
"""Where a module is imported by a name that is computed, and why that is no stranger's."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str, str]:
    return {str(keyword.arg): ast.unparse(keyword.value) for keyword in call.keywords}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_a_text_or_unpickles_a_file(path: Path) -> None:
    for name, call in calls(path):
        assert name not in FORBIDDEN_CALLS, f"{path}:{call.lineno} calls {name}"
        if name == "torch.load":
            assert keywords(call).get("weights_only") == "True", f"{path}:{call.lineno}"
            assert "mmap" not in keywords(call)
        if name == "yaml.load":
            loaders = set(re.findall(r"\b\w*Loader\b", path.read_text(encoding="utf-8")))
            assert loaders <= {"SafeLoader", "CSafeLoader"}, f"{path}:{call.lineno}"
        assert keywords(call).get("shell", "False") == "False", f"{path}:{call.lineno} starts a shell"
        assert keywords(call).get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"
        if name.endswith("import_module"):
            assert str(path.relative_to(PACKAGE)) in DYNAMIC_IMPORTS, f"{path}:{call.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_a_module_that_does(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & FORBIDDEN_MODULES, f"{path}:{node.lineno}"


def test_checkpoints_are_loaded_in_one_place() -> None:
    loading = {path.name for path in MODULES for name, _ in calls(path) if name == "torch.load"}
    assert loading == {"checkpoint.py"}
