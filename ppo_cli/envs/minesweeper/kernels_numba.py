"""The game of `rules`, compiled: the same boards, bit for bit, some hundred times faster.

One call steps N games on one core. Only the cells that a click shows are written; rows are touched as a whole when a
game starts. Hashing and cell indices are unsigned throughout: in Numba uint64 with int64 makes float64, and an unsigned
index needs no test for "counted from the end".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_cli.envs.minesweeper.layout import Rules
from ppo_cli.envs.minesweeper.rules import GOLDEN, HIDDEN, MINE, Boards
from ppo_cli.kernels.compiled import compiled
from ppo_cli.kernels.random import mix

Cells = NDArray[np.uint16]

FIRST_CLICK_CODE = {"unsafe": 0, "safe": 1, "zero": 2}

_GOLDEN = np.uint64(GOLDEN)
_ONE, _THIRTY_TWO = np.uint64(1), np.uint64(32)
_MASK32 = np.uint64(2**32 - 1)


def neighbour_table(rules: Rules) -> Cells:
    """The cells around each cell, [A, 8], filled up with the cell itself.

    The filler is harmless: a cell whose neighbours matter is neither a mine nor hidden.
    """
    table = np.empty((rules.num_cells, 8), np.uint16)
    for cell, near in enumerate(rules.neighbours):
        table[cell] = near + [cell] * (8 - len(near))
    return table


@compiled
def _fill(rows: NDArray[Any], n: int, value: int) -> None:
    """``rows[n] = value`` without the view's reference count, which costs more than the memset."""
    for cell in range(rows.shape[1]):
        rows[n, cell] = value


@compiled
def _place_mines(boards: Boards, n: int, first: np.uint64, neighbours: Cells, num_mines: int, first_click: int) -> None:
    """Lay the mines of game n; forbidden cells count as taken until the last mine lies."""
    mines = boards.mines
    num_cells = np.uint64(mines.shape[1])
    threshold = (_MASK32 + _ONE) % num_cells
    _fill(mines, n, False)
    if first_click >= 1:
        mines[n, first] = True
    if first_click == 2:
        for k in range(8):
            mines[n, neighbours[first, k]] = True

    counter = mix(mix(boards.seed[n] + _GOLDEN) + (boards.episode[n] + _ONE) * _GOLDEN)
    placed = 0
    while placed < num_mines:
        counter += _GOLDEN
        product = (mix(counter) >> _THIRTY_TWO) * num_cells
        cell = product >> _THIRTY_TWO
        if product & _MASK32 >= threshold:
            placed += not mines[n, cell]
            mines[n, cell] = True

    if first_click >= 1:
        mines[n, first] = False
    if first_click == 2:
        for k in range(8):
            mines[n, neighbours[first, k]] = False


@compiled
def _reveal(boards: Boards, n: int, cell: np.uint64, neighbours: Cells, queue: Cells) -> int:
    """Show a safe cell and, from zero to zero, everything around; returns how many cells.

    ``legal`` turns False when a cell joins the queue: joining is then two stores and an addition, without a branch that
    no processor could predict.
    """
    queue[0] = cell
    boards.legal[n, cell] = False
    shown, length = 0, 1
    while shown < length:
        center = queue[shown]
        shown += 1
        number = 0
        for k in range(8):
            number += boards.mines[n, neighbours[center, k]]
        boards.board[n, center] = number
        boards.final_board[n, center] = number
        boards.final_legal[n, center] = False
        if number == 0:
            for k in range(8):
                near = neighbours[center, k]
                queue[length] = near
                length += boards.legal[n, near]
                boards.legal[n, near] = False
    return length


@partial(compiled, allocates=True)
def step_boards(
    boards: Boards, action: NDArray[np.int64], neighbours: Cells, num_mines: int, first_click: int, shaping: float
) -> None:
    """`rules.step_boards` with ``neighbours`` from `neighbour_table` and ``first_click`` from `FIRST_CLICK_CODE`.

    Actions must lie in [0, A): nothing here tests it.
    """
    num_envs, num_cells = boards.board.shape
    num_safe = num_cells - num_mines
    queue = np.empty(num_cells + 1, np.uint16)  # one more: a cell that does not join is written behind the last
    for n in range(num_envs):
        cell = np.uint64(action[n])
        if not boards.placed[n]:
            _place_mines(boards, n, cell, neighbours, num_mines, first_click)
            boards.placed[n] = True
            _fill(boards.final_board, n, HIDDEN)
            _fill(boards.final_legal, n, True)

        shown_before = boards.num_shown[n]
        shown = shown_before
        lost = False
        if boards.board[n, cell] == HIDDEN:
            lost = boards.mines[n, cell]
            if lost:
                boards.final_board[n, cell] = MINE
                boards.final_legal[n, cell] = False
            else:
                shown += _reveal(boards, n, cell, neighbours, queue)

        won = shown == num_safe
        before = shaping * shown_before / num_safe
        after = 0.0 if won or lost else shaping * shown / num_safe
        boards.reward[n] = won + (after - before)
        boards.terminated[n] = won or lost
        boards.num_shown[n] = shown
        if won or lost:
            boards.won[n] = won
            boards.revealed[n] = shown / num_safe
            boards.episode[n] += _ONE
            boards.placed[n] = False
            boards.num_shown[n] = 0
            _fill(boards.board, n, HIDDEN)
            _fill(boards.legal, n, True)


def compiled_step(rules: Rules, shaping: float) -> Callable[[Boards, NDArray[np.int64]], None]:
    """`rules.step_boards` for these rules, compiled."""
    neighbours, first_click = neighbour_table(rules), FIRST_CLICK_CODE[rules.first_click]

    def step(boards: Boards, action: NDArray[np.int64]) -> None:
        step_boards(boards, action, neighbours, rules.mines, first_click, shaping)

    return step
