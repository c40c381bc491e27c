"""What is read from the source must be what Python sees when it imports the class."""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from pathlib import Path

import pytest

from ppo_cli.cli.compose import Composer, resolve
from ppo_cli.cli.declared import SUPPLIED, Option, Setting, declared_settings
from ppo_cli.cli.sources import UndeclaredError
from ppo_cli.settings import Range

COMPOSER = Composer()
TARGETS = sorted(
    {
        str(target)
        for group in ("env", "algo", "network")
        for name in COMPOSER.options(group)
        if (target := resolve(COMPOSER.compose([f"{group}={name}", "++env.id=x"]), {})[group]["_target_"]) is not None
    }
    | {"ppo_cli.cli.schema.TrainSettings", "ppo_cli.cli.schema.EvalSettings"}
)


@pytest.mark.parametrize("target", TARGETS)
def test_names_and_defaults_are_those_of_the_class(target: str) -> None:
    module, _, name = target.rpartition(".")
    supplied = set() if module == "ppo_cli.cli.schema" else SUPPLIED
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    expected = {
        name: Setting.REQUIRED if parameter.default is inspect.Parameter.empty else parameter.default
        for name, parameter in parameters.items()
        if name not in supplied
    }
    assert {name: setting.default for name, setting in (declared_settings(target) or {}).items()} == expected


@pytest.mark.parametrize("target", TARGETS)
def test_every_setting_has_a_type_and_a_meaning(target: str) -> None:
    for setting in (declared_settings(target) or {}).values():
        assert setting.meaning.endswith("."), f"{target}: {setting.name} has no sentence"
        assert "any" not in {option.base for option in setting.options}, f"{target}: {setting.name}"


def declared(source: str, folder: Path, name: str = "Thing") -> dict[str, Setting] | None:
    module = f"declared_{abs(hash((source, name)))}"
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    return declared_settings(f"{module}.{name}", (str(folder),))


def test_a_dataclass_is_read_with_ranges_choices_and_docstrings(tmp_path: Path) -> None:
    source = '''
    Schedule = Literal["constant", "linear"]
    LIMIT = 7

    @dataclass
    class Thing:
        clip: Annotated[float, Range(above=0)] = 0.2
        """Half-width
        of the interval."""
        schedule: Schedule = "linear"
        size: Annotated[int, Range(at_most=LIMIT)] | None = None
        names: list[str] = field(default_factory=list)
        kind: ClassVar[int] = 3
        required: int
    '''
    number = (Option("float", Range(above=0)),)
    size = (Option("int", Range(at_most=7)), Option("none"))
    assert declared(source, tmp_path) == {
        "clip": Setting("clip", number, 0.2, "Half-width of the interval."),
        "schedule": Setting("schedule", (Option("choice", choices=("constant", "linear")),), "linear", ""),
        "size": Setting("size", size, None, ""),
        "names": Setting("names", (Option("list", item=(Option("str"),)),), Setting.REQUIRED, ""),
        "required": Setting("required", (Option("int"),), Setting.REQUIRED, ""),
    }


def test_a_constructor_is_read_with_its_argument_section(tmp_path: Path) -> None:
    source = '''
    class Thing:
        def __init__(self, num_envs: int, *, length: int = 5, slip: float = 0.5) -> None:
            """Make it.

            Args:
                num_envs: Supplied.
                length: Cells,
                    from left to right.
                slip (float): Chance.

            Raises:
                ValueError: never.
            """
    '''
    settings = declared(source, tmp_path) or {}
    assert {name: (setting.default, setting.meaning) for name, setting in settings.items()} == {
        "length": (5, "Cells, from left to right."),
        "slip": (0.5, "Chance."),
    }


def test_inherited_settings_are_found(tmp_path: Path) -> None:
    source = """
    class Base:
        def __init__(self, num_envs: int, size: int = 3) -> None: ...

    class Thing(Base):
        note: str = "a class attribute, not a setting"
    """
    assert list(declared(source, tmp_path) or {}) == ["size"]


def test_a_factory_function_is_read_like_a_constructor(tmp_path: Path) -> None:
    assert list(declared("def make(num_envs, length=5): ...", tmp_path, "make") or {}) == ["length"]


def test_any_keyword_is_taken_where_the_class_takes_any(tmp_path: Path) -> None:
    assert declared("class Thing:\n    def __init__(self, **settings): ...", tmp_path) is None


def test_reading_runs_nothing(tmp_path: Path) -> None:
    declared("raise SystemExit('imported')\nclass Thing: ...", tmp_path)
    assert not any(name.startswith("declared_") for name in sys.modules)


def test_a_missing_class_is_told(tmp_path: Path) -> None:
    with pytest.raises(UndeclaredError, match=r"no class Thing in .*\.py"):
        declared("class Think: ...", tmp_path)
    with pytest.raises(UndeclaredError, match="no module nowhere"):
        declared_settings("nowhere.Thing")
