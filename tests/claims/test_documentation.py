"""docs/claims.md shows every claim: its command, its figure and its verdict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ppo_cli.claims.base import NAMES

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "claims.md").read_text(encoding="utf-8")
SECTIONS = dict(zip(NAMES, re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_claims_section_has_its_command_its_figure_and_its_verdict(name: str) -> None:
    section = SECTIONS[name]
    assert f"    ppo-train -m experiment={name}\n" in section
    assert f"](claims/{name}.png)" in section
    assert re.search(r"^> \*\*(Holds|Holds in part|Does not hold|Undecided)\.\*\* ", section, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_small(name: str) -> None:
    assert 10_000 < (DOCS / "claims" / f"{name}.png").stat().st_size < 150_000


def test_the_table_says_what_the_sections_say() -> None:
    rows = re.findall(r"^\| (C\d) \| \[[^]]*\]\(#([^)]*)\) \| ([a-z ]+) \|", PAGE, re.MULTILINE)
    verdicts = [re.findall(r"^> \*\*(.*?)\.\*\*", section, re.MULTILINE)[0].lower() for section in SECTIONS.values()]
    assert [outcome for _, _, outcome in rows] == verdicts
    headings = [section.splitlines()[0] for section in SECTIONS.values()]
    assert [anchor for _, anchor, _ in rows] == [
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
    ]
