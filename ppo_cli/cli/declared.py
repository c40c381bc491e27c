"""Read a class's settings (type, range, default, meaning) from its source, without importing it.

So that `--help`, tab completion and validation cost no `import torch` and never run a user's module.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ppo_cli.cli.sources import Module, UndeclaredError, read_module
from ppo_cli.settings import Range

Base = Literal["int", "float", "bool", "str", "choice", "list", "dict", "none", "any"]

SUPPLIED = {"self", "num_envs", "device", "observation_space", "action_space", "trusted_modules", "skip_nonfinite"}
"""Constructor arguments that the program supplies itself."""

BASES: dict[str, Base] = {
    "int": "int", "float": "float", "bool": "bool", "str": "str", "None": "none",
    "list": "list", "tuple": "list", "List": "list", "Tuple": "list", "Sequence": "list",
    "dict": "dict", "Dict": "dict", "Mapping": "dict",
}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """One of the types that a setting may have."""

    base: Base
    range: Range | None = None
    choices: tuple[Any, ...] = ()
    item: tuple[Option, ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """All that it can be, where they are few."""
        return (True, False) if self.base == "bool" else self.choices

    def __str__(self) -> str:
        """In words, as an error message says what it expected."""
        match self.base:
            case "choice":
                names = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices]
                return "one of " + ", ".join(names) if len(names) > 1 else names[0]
            case "int" | "float":
                name = "a whole number" if self.base == "int" else "a number"
                return f"{name} {self.range}" if self.range else name
            case "list":
                return "a list [a,b,c]"
            case "dict":
                return "a group of settings {name: value}"
            case "bool":
                return "true or false"
            case "none":
                return "null"
            case "str":
                return "text"
        return "anything"


@dataclass(frozen=True)
class Setting:
    """What a class says about one of its settings."""

    name: str
    options: tuple[Option, ...]
    default: Any
    meaning: str

    REQUIRED = object()
    """The default of a setting that has none."""

    @property
    def choices(self) -> list[str]:
        """What tab completion offers."""
        values = [value for option in self.options for value in option.values]
        return [str(value).lower() if isinstance(value, bool) else str(value) for value in values]

    @property
    def range_text(self) -> str:
        """The range or the choices, short."""
        texts = [option.range.short for option in self.options if option.range]
        return ", or ".join([*texts, " | ".join(self.choices)] if self.choices else texts)


def declared_settings(target: str, search_path: tuple[str, ...] = ()) -> dict[str, Setting] | None:
    """The settings of the class with the dotted name ``target``, or None where it takes any keyword.

    Args:
        target: ``package.module.Class``; a function that builds the object is read the same way.
        search_path: folders to look for the package in, besides Python's own path.

    Raises:
        UndeclaredError: where there is no such module, or no such class in it.
    """
    module_name, _, name = target.rpartition(".")
    module = read_module(module_name, search_path)
    definition = module.find(name)
    if definition is None:
        raise UndeclaredError(f"no class {name} in {module.path}", name, module.names)
    node, module = definition
    return _settings(node, module)


def class_names(module_name: str) -> list[str]:
    """The public classes and functions that a module defines.

    Raises:
        UndeclaredError: where there is no such module.
    """
    return read_module(module_name, ()).names


def _settings(node: ast.AST, module: Module) -> dict[str, Setting] | None:
    if isinstance(node, ast.ClassDef):
        functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        constructor = next((function for function in functions if function.name == "__init__"), None)
        if constructor is None:
            is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
            own = {setting.name: setting for setting in _fields(node, module)} if is_dataclass else {}
            return _inherited(node, module) | own
        return _parameters(constructor, module, (ast.get_docstring(node) or "") + "\n")
    if isinstance(node, ast.FunctionDef):
        return _parameters(node, module, "")
    return None


def _inherited(node: ast.ClassDef, module: Module) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for base in node.bases:
        found = module.find(base.id) if isinstance(base, ast.Name) else None
        if found and isinstance(found[0], ast.ClassDef):
            settings |= _settings(*found) or {}
    return settings


def _fields(node: ast.ClassDef, module: Module) -> Iterator[Setting]:
    for part, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)):
            continue
        if part.target.id.startswith("_") or "ClassVar" in ast.unparse(part.annotation):
            continue
        meaning = _text(following) if isinstance(following, ast.Expr) else ""
        yield Setting(part.target.id, _options(part.annotation, module), _default(part.value, module), meaning)


def _parameters(function: ast.FunctionDef, module: Module, doc: str) -> dict[str, Setting] | None:
    if function.args.kwarg is not None:
        return None
    meanings = _argument_meanings(doc + (ast.get_docstring(function) or ""))
    positional = [*function.args.posonlyargs, *function.args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(function.args.defaults))
    defaults += function.args.defaults
    settings = {}
    for argument, default in [
        *zip(positional, defaults, strict=True),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]:
        if argument.arg not in SUPPLIED:
            options = _options(argument.annotation, module)
            meaning = meanings.get(argument.arg, "")
            settings[argument.arg] = Setting(argument.arg, options, _default(default, module), meaning)
    return settings


def _argument_meanings(docstring: str) -> dict[str, str]:
    """The Google-style ``Args:`` section of a docstring, by argument."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", inspect.cleandoc(docstring), re.MULTILINE)
    entries = re.findall(
        r"^(\w+)(?: \(.*?\))?: (.*(?:\n[ \t]+.*)*)", inspect.cleandoc(section[1]) if section else "", re.M
    )
    return {name: " ".join(text.split()) for name, text in entries}


def _options(annotation: ast.expr | None, module: Module) -> tuple[Option, ...]:
    """``Annotated[float, Range(above=0)] | None`` and its like, as options."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _options(left, module) + _options(right, module)
        case ast.Constant(value=None):
            return (Option("none"),)
        case ast.Constant(value=str(text)):
            return _options(ast.parse(text, mode="eval").body, module)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=chosen):
            nodes = chosen.elts if isinstance(chosen, ast.Tuple) else [chosen]
            return (Option("choice", choices=tuple(ast.literal_eval(node) for node in nodes)),)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return (*_options(inner, module), Option("none"))
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *extras])):
            allowed = next((found for extra in extras if (found := _range(extra, module))), None)
            return tuple(
                Option(option.base, allowed if option.base in ("int", "float") else None, option.choices, option.item)
                for option in _options(inner, module)
            )
        case ast.Subscript(value=ast.Name(id=name), slice=inner) if BASES.get(name) == "list":
            first = inner.elts[0] if isinstance(inner, ast.Tuple) else inner
            return (Option("list", item=_options(first, module)),)
        case ast.Subscript(value=ast.Name(id=name)) if BASES.get(name) == "dict":
            return (Option("dict"),)
        case ast.Name(id=name) if name in BASES:
            return (Option(BASES[name]),)
        case ast.Name(id=name):
            alias = module.find(name)
            return _options(alias[0], alias[1]) if alias and isinstance(alias[0], ast.expr) else (Option("any"),)
    return (Option("any"),)


def _range(node: ast.expr, module: Module) -> Range | None:
    match node:
        case ast.Call(func=ast.Name(id="Range"), keywords=bounds):
            limits = {bound.arg: _default(bound.value, module) for bound in bounds if bound.arg}
            return None if Setting.REQUIRED in limits.values() else Range(**limits)
        case ast.Name(id=name):
            alias = module.find(name)
            return _range(alias[0], alias[1]) if alias and isinstance(alias[0], ast.expr) else None
    return None


def _default(node: ast.expr | None, module: Module) -> Any:  # noqa: ANN401 - a default may be anything
    if node is None:
        return Setting.REQUIRED
    if isinstance(node, ast.Name) and (alias := module.find(node.id)) and isinstance(alias[0], ast.expr):
        return _default(alias[0], alias[1])
    try:
        return ast.literal_eval(node)
    except ValueError:  # computed: unknown until the class is imported
        return Setting.REQUIRED


def _text(node: ast.Expr) -> str:
    return " ".join(str(node.value.value).split()) if isinstance(node.value, ast.Constant) else ""
