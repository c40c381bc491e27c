"""The source of a module and what it defines, found and read without importing it."""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
from dataclasses import dataclass
from pathlib import Path


class UndeclaredError(LookupError):
    """A dotted name leads to no class that could be read."""


@dataclass(frozen=True)
class Module:
    """The source of one module."""

    path: Path
    package: str
    body: list[ast.stmt]
    search_path: tuple[str, ...]

    @functools.cached_property
    def names(self) -> list[str]:
        """The public classes and functions that it defines."""
        definitions = [node for node in self.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        return [node.name for node in definitions if not node.name.startswith("_")]

    def find(self, name: str) -> tuple[ast.AST, Module] | None:
        """The definition of ``name`` and the module it stands in; imports are followed."""
        for node in self.body:
            match node:
                case ast.ClassDef(name=found) | ast.FunctionDef(name=found) if found == name:
                    return node, self
                case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                    return value, self
                case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                    return value, self
                case ast.ImportFrom(module=source, names=imported, level=level):
                    for alias in imported:
                        if (alias.asname or alias.name) == name:
                            return self._imported(source, level, alias.name)
        return None

    def _imported(self, source: str | None, level: int, name: str) -> tuple[ast.AST, Module] | None:
        parts = self.package.split(".") if level else []
        absolute = ".".join([*parts[: len(parts) - level + 1], *([source] if source else [])])
        try:
            return read_module(absolute, self.search_path).find(name)
        except UndeclaredError:
            return None


@functools.cache
def read_module(name: str, search_path: tuple[str, ...]) -> Module:
    """The module with this dotted name, which the folders of ``search_path`` may hold as well as Python's own path.

    Raises:
        UndeclaredError: there is none.
    """
    path = _source_path(name, search_path)
    if path is None:
        raise UndeclaredError(f"no module {name}", name, [])
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return Module(path, package, ast.parse(path.read_text(encoding="utf-8")).body, search_path)


def _source_path(name: str, search_path: tuple[str, ...]) -> Path | None:
    """Where a module's source lies; looked up level by level, as ``find_spec`` of a dotted name imports packages."""
    root, *rest = name.split(".")
    spec = importlib.machinery.PathFinder.find_spec(root, list(search_path)) if search_path else None
    spec = spec or (importlib.util.find_spec(root) if root.isidentifier() else None)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        full_name = f"{spec.name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(full_name, list(spec.submodule_search_locations))
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None
