"""The game, written to be read: the definition that every faster spelling is tested against.

A board is a flat row of A = height * width cells, index = row * width + column. What a player sees of a cell is one
int8 code: ``HIDDEN`` (-1), the number of mines around it (0 to 8), or ``MINE`` (-2), the mine that ended the game.

Mines are placed at the first click, exactly uniformly under the rule ``first_click``:

- ``unsafe``: over all layouts;
- ``safe``: over the layouts without a mine in the clicked cell;
- ``zero``: over the layouts without a mine in the clicked cell and the cells around it.

A layout is a function of (seed, episode, first click) alone, never of the batch or of the backend: random words come
from a counter (SplitMix64: Steele, Lea, Flood 2014), become cells without bias (Lemire 2019, "Fast Random Integer
Generation in an Interval", algorithm 5), and cells that are forbidden or taken are drawn again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.envs.minesweeper.layout import Rules

HIDDEN = -1
MINE = -2

MASK32 = 2**32 - 1
MASK64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: the step of the SplitMix64 counter


class Boards(NamedTuple):
    """N games of A cells and the answer to the last step: the arrays that both spellings step in place.

    Numba's disk cache looks at the kernel's own file only: after reordering these fields, change that file too.
    """

    seed: NDArray[np.uint64]  # [N]
    episode: NDArray[np.uint64]  # [N] games that this seed has finished or given up
    placed: NDArray[np.bool_]  # [N] False until the first click
    num_shown: NDArray[np.int64]  # [N] safe cells that are shown
    mines: NDArray[np.bool_]  # [N, A] of the running game; where not placed, of the one before
    board: NDArray[np.int8]  # [N, A] what the next action is chosen from
    legal: NDArray[np.bool_]  # [N, A] True where ``board`` is hidden
    final_board: NDArray[np.int8]  # [N, A] what the last action led to; the same as ``board`` where not terminated
    final_legal: NDArray[np.bool_]  # [N, A]
    reward: NDArray[np.float32]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    won: NDArray[np.float32]  # [N] 1 or 0 for the last game that ended
    revealed: NDArray[np.float32]  # [N] share of the safe cells that the last game to end had shown


def mix(word: int) -> int:
    """SplitMix64's bijection of 64-bit words."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK64
    return word ^ (word >> 31)


def stream_key(seed: int, episode: int) -> int:
    """Where the counter of a game's random words starts."""
    return mix((mix((seed + GOLDEN) & MASK64) + (episode + 1) * GOLDEN) & MASK64)


def place_mines(rules: Rules, seed: int, episode: int, first: int) -> NDArray[np.bool_]:
    """The layout [A] of a game whose first click is ``first``."""
    key = stream_key(seed, episode)
    threshold = 2**32 % rules.num_cells  # products whose low half is below it would favour some cells
    forbidden = rules.forbidden(first)
    mines = np.zeros(rules.num_cells, np.bool_)
    counter = placed = 0
    while placed < rules.mines:
        counter += 1
        product = (mix((key + counter * GOLDEN) & MASK64) >> 32) * rules.num_cells
        cell = product >> 32
        if product & MASK32 >= threshold and cell not in forbidden and not mines[cell]:
            mines[cell] = True
            placed += 1
    return mines


def count_mines(rules: Rules, mines: NDArray[np.bool_], cell: int) -> int:
    """Mines around ``cell`` in the layout ``mines`` [A]."""
    return int(mines[rules.neighbours[cell]].sum())


def reveal(rules: Rules, mines: NDArray[np.bool_], board: NDArray[np.int8], cell: int) -> None:
    """Show a hidden cell of ``board`` [A], in place; around a zero everything is shown, again and again."""
    if mines[cell]:
        board[cell] = MINE
        return
    waiting = [cell]
    while waiting:
        cell = waiting.pop()
        board[cell] = count_mines(rules, mines, cell)
        if board[cell] == 0:
            waiting += [near for near in rules.neighbours[cell] if board[near] == HIDDEN and near not in waiting]


def legal_cells(board: NDArray[np.int8]) -> NDArray[np.bool_]:
    """The action mask: a cell may be clicked while it is hidden."""
    return np.equal(board, HIDDEN)


def num_shown(board: NDArray[np.int8]) -> int:
    """Safe cells that are shown."""
    return int((board >= 0).sum())


def is_lost(board: NDArray[np.int8]) -> bool:
    """True once a mine was hit."""
    return bool((board == MINE).any())


def is_won(rules: Rules, board: NDArray[np.int8]) -> bool:
    """True once every safe cell is shown."""
    return num_shown(board) == rules.num_safe


def potential(rules: Rules, board: NDArray[np.int8], shaping: float) -> float:
    """Phi(s) = shaping * share of the safe cells that are shown; 0 where the game is over."""
    over = is_lost(board) or is_won(rules, board)
    return 0.0 if over else shaping * num_shown(board) / rules.num_safe


def step_boards(rules: Rules, boards: Boards, action: NDArray[np.int64], shaping: float) -> None:
    """Click the cell ``action`` [N] in each game, in place; a game that ends is replaced by its seed's next one.

    The reward is 1 for a cleared board plus Phi(s') - Phi(s), which leaves the optimal policy unchanged (Ng, Harada,
    Russell 1999, with gamma = 1): an episode's rewards sum to 1 for a win and to 0 for a loss, for every ``shaping``.
    A click on a shown cell changes nothing and pays nothing.
    """
    for n, cell in enumerate(action.tolist()):
        before = boards.board[n].copy()
        if not boards.placed[n]:
            boards.mines[n] = place_mines(rules, int(boards.seed[n]), int(boards.episode[n]), cell)
            boards.placed[n] = True
        if before[cell] == HIDDEN:
            reveal(rules, boards.mines[n], boards.board[n], cell)

        after = boards.board[n]
        won = is_won(rules, after)
        shaped = potential(rules, after, shaping) - potential(rules, before, shaping)
        boards.reward[n] = float(won) + shaped
        boards.terminated[n] = won or is_lost(after)
        boards.num_shown[n] = num_shown(after)
        boards.legal[n] = legal_cells(after)
        boards.final_board[n] = after
        boards.final_legal[n] = boards.legal[n]
        if boards.terminated[n]:
            boards.won[n] = won
            boards.revealed[n] = num_shown(after) / rules.num_safe
            boards.episode[n] += 1
            clear(boards, n)


def clear(boards: Boards, n: int | slice) -> None:
    """Give game ``n`` a fresh board."""
    boards.placed[n] = False
    boards.num_shown[n] = 0
    boards.board[n] = HIDDEN
    boards.legal[n] = True
