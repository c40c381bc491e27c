"""What the pages in docs/ refer to exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ppo_cli"
LADDER = (ROOT / "docs" / "ladder.md").read_text(encoding="utf-8")
EXCERPTS = re.findall(
    r"((?:`[\w.]+`(?:, | and )?)+) in (?:\[[^]]*\]\(\.\./ppo_cli/([\w/]+\.py)\)|`([\w/]+\.py)`)", LADDER
)
"""Quoted names, then the file that they stand in: linked, or as a path below ``ppo_cli``."""


def names_in(path: Path) -> set[str]:
    """Functions, classes, and ``Class.member`` for methods and fields."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            fields = {ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)}
            found |= {f"{node.name}.{member}" for member in methods | fields}
    return found


EVERY_NAME = {name.rpartition(".")[2] for path in PACKAGE.rglob("*.py") for name in names_in(path)}
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", LADDER))
def test_a_linked_file_exists(target: str) -> None:
    assert (ROOT / "docs" / target).is_file()


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, linked or quoted) for names, linked, quoted in EXCERPTS for name in re.findall(r"[\w.]+(?=`)", names)],
)
def test_an_excerpt_stands_in_the_file_that_is_named(name: str, file: str) -> None:
    assert name in names_in(PACKAGE / file)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:ppo_cli|tests|docs|configs)/[\w/.]*\w/?", LADDER))))
def test_a_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+)(?:`|=)", LADDER))))
def test_a_name_or_setting_exists(name: str) -> None:
    algorithms = {path.stem for path in (PACKAGE / "algorithms").glob("*.py")}
    groups = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()}
    assert name in EVERY_NAME | algorithms | groups


@pytest.mark.parametrize("tag", sorted(set(re.findall(r"`((?:losses|trpo|charts)/\w+)`", LADDER))))
def test_a_metric_is_logged_under_this_tag(tag: str) -> None:
    assert f'"{tag}"' in SOURCES
