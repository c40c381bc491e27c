"""The rules under which Minesweeper is tested."""

from __future__ import annotations

from hypothesis import strategies as st

from ppo_cli.envs.minesweeper.layout import FirstClick, Rules

FIRST_CLICKS: list[FirstClick] = ["unsafe", "safe", "zero"]
LEVELS = [(9, 9, 10), (16, 16, 40), (16, 30, 99)]


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    """Small boards of any shape, from one mine to as many as the first click leaves room for."""
    height, width, first_click = draw(st.integers(1, 6)), draw(st.integers(4, 9)), draw(st.sampled_from(FIRST_CLICKS))
    most = height * width - (min(3, height) * 3 if first_click == "zero" else 1)
    return Rules(height, width, draw(st.integers(1, most)), first_click)
