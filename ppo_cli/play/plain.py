"""Moments as plain text: for pipes, log files, and terminals without colour."""

from __future__ import annotations

import numpy as np

from ppo_cli.envs.minesweeper.render import render_ansi
from ppo_cli.envs.minesweeper.rules import HIDDEN
from ppo_cli.play.agent import Moment


def board_lines(moment: Moment) -> list[str]:
    """The board, and right of it the probability of each hidden cell in percent, the chosen one in brackets."""
    assert moment.board is not None
    lines = [f"  {line}" for line in render_ansi(moment.board, colour=False).split("\n")]
    if moment.probs is None or moment.choice is None:
        return lines
    width = moment.board.shape[1]
    percents = [f"{100 * prob:.0f}" for prob in moment.probs]
    hidden = (moment.board == HIDDEN).ravel()
    cells = [f"{text:>4} " if is_hidden else "   . " for text, is_hidden in zip(percents, hidden, strict=True)]
    cells[moment.choice] = f"{f'[{percents[moment.choice]}]':>5}"
    return [f"{line}   {''.join(cells[row * width : (row + 1) * width])}".rstrip() for row, line in enumerate(lines)]


def status(moment: Moment) -> str:
    """What the agent is about to do and how sure it is, or how the episode ended."""
    if moment.board is not None:
        if moment.choice is None:
            return f"{'won' if moment.success else 'lost'} after {moment.step} click{'s' * (moment.step != 1)}"
        row, column = divmod(moment.choice, moment.board.shape[1])
        return f"click {moment.step + 1}: row {row + 1}, column {column + 1}{certainty(moment)}"
    state = f"step {moment.step}, return {moment.episode_return:.5g}"
    if moment.action is None:
        return f"ended at {state}"
    action = " ".join(f"{number:.4g}" for number in np.atleast_1d(moment.action).tolist())
    return f"{state}, V {moment.value:.4g}, action {action}{certainty(moment)}"


def certainty(moment: Moment) -> str:
    """The probability of the chosen action, where actions have one."""
    if moment.probs is None or moment.choice is None:
        return ""
    return f", {100 * moment.probs[moment.choice]:.1f} %"


def win_text(moment: Moment) -> str:
    """The win estimate in percent."""
    return "" if moment.win is None else f"win {100 * moment.win:.1f} %"


def moment_lines(name: str, seed: int, moment: Moment) -> list[str]:
    """A moment of Minesweeper; of any other environment only the end of the episode."""
    if moment.board is not None:
        head = "   ".join(part for part in (name, f"seed {seed}", status(moment), win_text(moment)) if part)
        return [head, *board_lines(moment), ""]
    return [f"{name}   seed {seed}   {status(moment)}"] if moment.done else []
