"""The page's style sheet, with the palettes of the charts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from ppo_cli.report.charts import DARK_PALETTE, PALETTE


def style_sheet() -> str:
    """Everything between ``<style>`` and its end: constant text of ours."""
    classes = "".join(f".c{place}{{--own:var(--c{place})}}" for place in range(len(PALETTE)))
    dark = f"@media screen and (prefers-color-scheme:dark){{{_root(DARK_PALETTE)}}}"
    sheet = resources.files("ppo_cli.report").joinpath("style.css").read_text(encoding="utf-8")
    return f"{_root(PALETTE)}{dark}{classes}\n{sheet}"


def _root(palette: Sequence[str]) -> str:
    return ":root{" + "".join(f"--c{place}:{colour};" for place, colour in enumerate(palette)) + "}"
