from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ppo_cli.envs.minesweeper import rules as game
from ppo_cli.envs.minesweeper.layout import FirstClick, Rules
from ppo_cli.envs.minesweeper.minefield import Minefield
from ppo_cli.envs.minesweeper.rules import GOLDEN, HIDDEN, MINE

FIRST_CLICKS: list[FirstClick] = ["unsafe", "safe", "zero"]


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    first_click = draw(st.sampled_from(FIRST_CLICKS))
    height, width = draw(st.integers(1, 7)), draw(st.integers(4, 7))
    kept_free = min(3, height) * 3 if first_click == "zero" else 1
    return Rules(height, width, draw(st.integers(1, height * width - kept_free)), first_click)


def board_of(*rows: str) -> np.ndarray:
    """``.`` hidden, ``*`` the mine that was hit."""
    codes = {".": HIDDEN, "*": MINE}
    return np.array([codes.get(code, int(code) if code.isdigit() else 0) for row in rows for code in row], np.int8)


def mines_of(*rows: str) -> np.ndarray:
    return np.array([code == "*" for row in rows for code in row])


def revealed(rules: Rules, mines: np.ndarray, cell: int) -> np.ndarray:
    board = np.full(rules.num_cells, HIDDEN, np.int8)
    game.reveal(rules, mines, board, cell)
    return board


def test_random_words_are_those_published_for_splitmix64() -> None:
    assert game.mix(1234567 + GOLDEN) == 6457827717110365317
    assert game.mix((1234567 + 2 * GOLDEN) % 2**64) == 3203168211198807973


def test_a_cell_has_three_five_or_eight_neighbours() -> None:
    neighbours = Rules(3, 4, 2).neighbours
    assert neighbours[0] == [1, 4, 5]
    assert neighbours[1] == [0, 2, 4, 5, 6]
    assert neighbours[5] == [0, 1, 2, 4, 6, 8, 9, 10]
    assert Rules(1, 3, 1).neighbours == [[1], [0, 2], [1]]


def test_a_number_counts_the_mines_around_it_and_shows_that_cell_only() -> None:
    rules, mines = Rules(3, 3, 3), mines_of("*..", "..*", "*..")
    np.testing.assert_array_equal(revealed(rules, mines, 4), board_of("...", ".3.", "..."))
    np.testing.assert_array_equal(revealed(rules, mines, 8), board_of("...", "...", "..1"))


def test_a_zero_opens_its_whole_region_and_the_numbers_around_it() -> None:
    rules, mines = Rules(3, 7, 3), mines_of("...*...", "...*..*", ".......")
    np.testing.assert_array_equal(revealed(rules, mines, 0), board_of("002....", "002....", "001...."))
    np.testing.assert_array_equal(revealed(rules, mines, 20), board_of(".......", ".......", "......1"))


def test_a_mine_shows_itself_and_nothing_else() -> None:
    rules, mines = Rules(2, 2, 1), mines_of("..", ".*")
    np.testing.assert_array_equal(revealed(rules, mines, 3), board_of("..", ".*"))


@given(any_rules(), st.integers(0, 2**64 - 1), st.data())
def test_a_cascade_leaves_no_hidden_cell_beside_a_shown_zero(rules: Rules, seed: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, rules.num_cells - 1))
    mines = game.place_mines(rules, seed, 0, first)
    board = revealed(rules, mines, first)
    for cell in np.flatnonzero(board == 0):
        assert (board[rules.neighbours[cell]] >= 0).all()
    for cell in np.flatnonzero(board >= 0):
        assert not mines[cell]
        assert board[cell] == mines[rules.neighbours[cell]].sum()
        assert cell == first or (board[rules.neighbours[cell]] == 0).any()


@given(any_rules(), st.integers(0, 2**64 - 1), st.integers(0, 2**32), st.data())
def test_the_first_click_keeps_its_promise(rules: Rules, seed: int, episode: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, rules.num_cells - 1))
    mines = game.place_mines(rules, seed, episode, first)
    assert mines.sum() == rules.mines
    if rules.first_click != "unsafe":
        assert not mines[first]
    if rules.first_click == "zero":
        assert not mines[rules.neighbours[first]].any()


@pytest.mark.parametrize("stream", ["seeds", "episodes"])
@pytest.mark.parametrize("first_click", FIRST_CLICKS)
def test_every_layout_that_the_rule_allows_is_equally_likely(first_click: FirstClick, stream: str) -> None:
    rules, first, draws = Rules(3, 4, 2, first_click), 1, 4_000
    allowed = [cell for cell in range(12) if cell not in rules.forbidden(first)]
    counts: dict[tuple[int, ...], int] = dict.fromkeys(combinations(allowed, 2), 0)
    for n in range(draws):
        seed, episode = (n, 0) if stream == "seeds" else (0, n)
        counts[tuple(np.flatnonzero(game.place_mines(rules, seed, episode, first)).tolist())] += 1
    assert chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.parametrize(
    ("first_click", "exact"),
    [("unsafe", comb(77, 10) / comb(81, 10)), ("safe", comb(77, 10) / comb(80, 10)), ("zero", 1.0)],
)
def test_a_corner_is_zero_as_often_as_counting_says(first_click: FirstClick, exact: float) -> None:
    rules, draws = Rules(9, 9, 10, first_click), 40_000
    field = Minefield(draws, rules)
    field.start(range(draws))
    boards = field.step(np.zeros(draws, np.int64))
    share = (boards.final_board[:, 0] == 0).mean()
    assert abs(share - exact) <= 3.5 * (exact * (1 - exact) / draws) ** 0.5


def test_rewards_follow_the_potential() -> None:
    """2x3 with one mine: five safe cells; two shown, then lost, pays 1/5, 1/5, -2/5."""
    field = Minefield(1, Rules(2, 3, 1), shaping=1.0)
    field.start([0])
    field.lay_mines([[0, 1, 0, 0, 0, 0]])
    rewards = [float(field.step([cell]).reward[0]) for cell in (0, 3, 1)]
    assert rewards == pytest.approx([0.2, 0.2, -0.4])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ((9, 9, 81, "safe"), "env.mines must be between 1 and 80 on a 9x9 board with first_click=safe, got 81"),
        ((9, 9, 81, "unsafe"), "env.mines must be between 1 and 80 on a 9x9 board with first_click=unsafe, got 81"),
        ((9, 9, 73, "zero"), "env.mines must be between 1 and 72 on a 9x9 board with first_click=zero, got 73"),
        ((2, 9, 13, "zero"), "env.mines must be between 1 and 12 on a 2x9 board with first_click=zero, got 13"),
        ((9, 9, 0, "safe"), "env.mines must be between 1 and 80 on a 9x9 board with first_click=safe, got 0"),
        ((3, 3, 1, "zero"), "leave no room for a mine on a 3x3 board with first_click=zero"),
        ((1, 1, 1, "safe"), "make at least 2 cells, got 1x1"),
        ((9, 9, 10, "sure"), "env.first_click must be one of unsafe, safe, zero, got 'sure'"),
    ],
)
def test_impossible_boards_are_refused_in_words(settings: tuple[int, int, int, FirstClick], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rules(*settings)


@pytest.mark.parametrize("rules", [Rules(9, 9, 80, "safe"), Rules(9, 9, 80, "unsafe"), Rules(9, 9, 72, "zero")])
def test_the_fullest_board_can_be_placed_from_every_first_cell(rules: Rules) -> None:
    field = Minefield(rules.num_cells, rules)
    field.start([7] * rules.num_cells)
    boards = field.step(np.arange(rules.num_cells))
    assert (boards.mines.sum(axis=1) == rules.mines).all()
