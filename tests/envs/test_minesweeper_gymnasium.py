from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from ppo_cli.envs.minesweeper.gymnasium_env import MinesweeperEnv, MinesweeperVectorEnv
from ppo_cli.envs.minesweeper.render import (
    DIGIT_COLOURS,
    FLAG,
    LIGHT,
    OTHER_MINE,
    RED,
    render_ansi,
    render_grid,
    render_rgb,
    with_mines,
)
from ppo_cli.envs.minesweeper.rules import HIDDEN, MINE

ENV_ID = "ppo_cli/Minesweeper-v0"
LAYOUT = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]], np.bool_)


def small_env(**settings: Any) -> MinesweeperEnv:
    env = MinesweeperEnv(height=3, width=3, mines=2, **settings)
    env.reset(seed=0, options={"mines": LAYOUT})
    return env


def assert_same(left: Any, right: Any) -> None:
    """Equal values of equal types, through dicts and arrays of objects."""
    assert type(left) is type(right)
    if isinstance(left, tuple):
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, np.ndarray) and left.dtype == object:
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(left, right)
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None)


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=-1).any())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["Minesweeper-v0", "MinesweeperIntermediate-v0", "MinesweeperExpert-v0"])
def test_gymnasium_has_no_complaint_about_the_registered_levels(name: str) -> None:
    env = gymnasium.make(f"ppo_cli/{name}", render_mode="rgb_array")
    check_env(env.unwrapped)


def test_the_module_before_the_id_registers_it_in_a_fresh_process() -> None:
    program = (
        "import gymnasium;"
        "env = gymnasium.make('ppo_cli.envs.minesweeper.gymnasium_env:ppo_cli/MinesweeperExpert-v0');"
        "assert env.observation_space.shape == (16, 30);"
        "assert gymnasium.make_vec('ppo_cli/Minesweeper-v0', num_envs=2, mines=5).num_envs == 2"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_settings_reach_the_game() -> None:
    env = gymnasium.make(ENV_ID, height=4, width=6, mines=3, first_click="zero")
    obs, _ = env.reset(seed=1)
    assert obs.shape == (4, 6)
    assert env.action_space.n == 24  # type: ignore[attr-defined]
    obs, *_ = env.step(np.int64(7))
    assert obs[1, 1] == 0


def test_one_game_from_start_to_win() -> None:
    env = small_env(reward="win")
    rewards = []
    for cell in (4, 2, 6):
        obs, reward, terminated, truncated, info = env.step(np.int64(cell))
        rewards.append(reward)
        assert terminated == (cell == 6)
        assert not truncated
        assert ("is_success" in info) == terminated
    assert rewards == [0.0, 0.0, 1.0]
    assert info["is_success"] is True
    np.testing.assert_array_equal(obs, [[HIDDEN, 1, 0], [1, 2, 1], [0, 1, HIDDEN]])


def test_a_lost_game_shows_the_mine_and_waits_for_reset() -> None:
    env = small_env()
    obs, _, terminated, _, info = env.step(np.int64(8))
    assert terminated
    assert info["is_success"] is False
    assert obs[2, 2] == MINE
    assert (obs == HIDDEN).sum() == 8
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.int64(0))
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        MinesweeperEnv().step(np.int64(0))


def test_masks_allow_hidden_cells_only() -> None:
    env = small_env()
    obs, *_, info = env.step(np.int64(2))
    np.testing.assert_array_equal(env.action_masks(), obs.ravel() == HIDDEN)
    np.testing.assert_array_equal(info["action_mask"], env.action_masks())
    assert env.action_masks().dtype == np.bool_
    env.action_space.seed(0)
    draws = {int(env.action_space.sample(info["action_mask"])) for _ in range(100)}
    assert draws == set(np.flatnonzero(obs.ravel() == HIDDEN))


def test_an_illegal_click_changes_nothing_and_pays_nothing() -> None:
    env = small_env()
    before, *_ = env.step(np.int64(4))
    after, reward, terminated, truncated, _ = env.step(np.int64(4))
    np.testing.assert_array_equal(before, after)
    assert (reward, terminated, truncated) == (0.0, False, False)
    with pytest.raises(ValueError, match="actions must be cells from 0 to 8, got 9"):
        env.step(np.int64(9))


def test_what_was_returned_is_not_overwritten() -> None:
    env = small_env()
    first, first_info = env.reset(options={"mines": LAYOUT})
    mask = first_info["action_mask"].copy()
    env.step(np.int64(4))
    assert (first == HIDDEN).all()
    np.testing.assert_array_equal(first_info["action_mask"], mask)


def test_a_seed_gives_a_series_of_different_games() -> None:
    env = MinesweeperEnv()

    def layouts() -> list[bytes]:
        games = []
        for n in range(5):
            env.reset(seed=3 if n == 0 else None)
            env.step(np.int64(40))
            games.append(env._field.boards.mines.tobytes())
        return games

    series = layouts()
    assert series == layouts()
    assert len(set(series)) == 5


def test_a_layout_of_another_size_or_count_is_refused() -> None:
    env = MinesweeperEnv(height=3, width=3, mines=2)
    with pytest.raises(ValueError, match="expected 2 mines on each board, got"):
        env.reset(options={"mines": np.ones((3, 3), np.bool_)})
    with pytest.raises(ValueError, match="expected a mine mask of 9 cells"):
        env.reset(options={"mines": np.ones((2, 2), np.bool_)})


def test_layouts_that_agree_on_what_is_shown_give_identical_answers() -> None:
    """Every 3x3 layout with 2 mines that has the same number in the clicked cells, against each of its kind."""
    seen: dict[bytes, tuple[Any, ...]] = {}
    compared = 0
    for pair in combinations(range(9), 2):
        layout = np.isin(np.arange(9), pair)
        env = MinesweeperEnv(height=3, width=3, mines=2, render_mode="rgb_array")
        answer: tuple[Any, ...] = env.reset(seed=1, options={"mines": layout})
        history = b""
        for cell in (4, 1, 5):
            answer = env.step(np.int64(cell))
            history += answer[0].tobytes()
            if answer[2]:
                break
            everything = (*answer, env.action_masks(), env.render())
            if history in seen:
                compared += 1
                for left, right in zip(seen[history], everything, strict=True):
                    assert_same(left, right)
            seen[history] = everything
    assert compared > 20


def test_infos_of_the_vector_environment_follow_from_what_is_shown() -> None:
    layouts = np.array([np.isin(np.arange(9), pair) for pair in combinations(range(9), 2)])
    env = MinesweeperVectorEnv(len(layouts), height=3, width=3, mines=2)
    env.reset(seed=0, options={"mines": layouts})
    obs, _, terminated, _, info = env.step(np.full(len(layouts), 4))
    np.testing.assert_array_equal(info["action_mask"], obs.reshape(len(layouts), 9) == HIDDEN)
    assert set(info) == {"action_mask", "_action_mask", "final_obs", "_final_obs", "final_info", "_final_info"}
    assert set(info["final_info"]) == {"action_mask", "_action_mask", "is_success", "_is_success"}
    assert [frame is not None for frame in info["final_obs"]] == terminated.tolist()
    assert not info["final_info"]["action_mask"][~terminated].any()


def test_the_vector_environment_equals_many_single_ones() -> None:
    """Against Gymnasium's own SyncVectorEnv in the same autoreset mode: observations, rewards, ends and infos."""
    batched = gymnasium.make_vec(ENV_ID, num_envs=6, mines=6)
    sync = gymnasium.make_vec(
        ENV_ID,
        num_envs=6,
        mines=6,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    assert isinstance(batched, MinesweeperVectorEnv)
    assert batched.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    answers: list[tuple[Any, ...]] = [batched.reset(seed=9), sync.reset(seed=9)]
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(80):
        assert_same(answers[0], answers[1])
        action = np.where(batched.action_masks(), rng.random((6, 81)), -1.0).argmax(axis=1)
        answers = [batched.step(action), sync.step(action)]
        ended += int(answers[0][2].sum())
    assert ended > 50
    assert_same(batched.reset(), sync.reset())
    seeds: Any = [1, 2, 3, 4, 5, 6]
    assert_same(batched.reset(seed=seeds), sync.reset(seed=seeds))


def test_gymnasiums_episode_statistics_work_on_the_vector_environment() -> None:
    env = RecordEpisodeStatistics(MinesweeperVectorEnv(4, reward="win"))
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    lengths: list[int] = []
    while len(lengths) < 10:
        masks = env.unwrapped.action_masks()  # type: ignore[attr-defined]
        *_, terminated, _, info = env.step(np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=1))
        if terminated.any():
            lengths += info["episode"]["l"][terminated].tolist()
    assert all(1 <= length <= 71 for length in lengths)


def test_an_unseeded_vector_environment_draws_its_seeds_once() -> None:
    env = MinesweeperVectorEnv(3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(3, np.int64))
    env.reset()
    seeds = env._field.boards.seed.copy()
    assert len(set(seeds.tolist())) == 3
    env.step(np.zeros(3, np.int64))
    env.reset()
    np.testing.assert_array_equal(env._field.boards.seed, seeds)
    with pytest.raises(ValueError, match="expected one seed for each of 3 games, got 2"):
        env.reset(seed=[1, 2])


def test_text_shows_digits_and_the_mines_of_a_finished_game() -> None:
    env = small_env(render_mode="ansi")
    env.step(np.int64(4))
    assert render_ansi([[HIDDEN, 2, 0], [MINE, OTHER_MINE, FLAG]], colour=False) == ". 2  \n* * P"
    during = env.render()
    assert isinstance(during, str)
    assert "2" in during
    assert "*" not in during
    env.step(np.int64(0))
    after = env.render()
    assert isinstance(after, str)
    assert after.count("*") == 2


def test_pictures_have_the_classic_colours() -> None:
    for digit, colour in DIGIT_COLOURS.items():
        assert has_colour(render_rgb([[digit]], cell=24), colour)
    centre = slice(13, 35)  # inside the frame
    hidden, shown = render_rgb([[HIDDEN]])[centre, centre], render_rgb([[0]])[centre, centre]
    assert has_colour(hidden, LIGHT)
    assert not has_colour(shown, LIGHT)
    assert has_colour(render_rgb([[MINE]]), RED)
    assert not has_colour(render_rgb([[OTHER_MINE]]), RED)
    assert has_colour(render_rgb([[FLAG]]), RED)


@pytest.mark.parametrize("cell", [8, 16, 24, 33])
def test_pictures_grow_with_the_board_and_the_cell(cell: int) -> None:
    margin = 2 * (cell // 2)
    board = np.full((16, 30), HIDDEN, np.int8)
    assert render_rgb(board, cell).shape == (16 * cell + margin, 30 * cell + margin, 3)
    assert render_rgb(board, cell).dtype == np.uint8
    grid = render_grid(np.stack([board] * 5), columns=2, cell=cell)
    assert grid.shape == (3 * (16 * cell + margin), 2 * (30 * cell + margin), 3)


def test_each_cell_is_drawn_at_its_place() -> None:
    board = np.array([[0, 1, 2], [HIDDEN, MINE, 8]], np.int8)
    picture = render_rgb(board, cell=10)
    for row in range(2):
        for column in range(3):
            top, left = 5 + 10 * row, 5 + 10 * column
            alone = render_rgb(board[row : row + 1, column : column + 1], cell=10)[5:15, 5:15]
            np.testing.assert_array_equal(picture[top : top + 10, left : left + 10], alone)


def test_a_finished_game_is_uncovered_with_flags_after_a_win_and_mines_after_a_loss() -> None:
    mines = np.array([[True, False, True]])
    np.testing.assert_array_equal(with_mines(np.array([[HIDDEN, 2, HIDDEN]], np.int8), mines), [[FLAG, 2, FLAG]])
    np.testing.assert_array_equal(
        with_mines(np.array([[MINE, HIDDEN, HIDDEN]], np.int8), mines), [[MINE, HIDDEN, OTHER_MINE]]
    )


def test_a_mine_under_an_unsafe_first_click_still_uncovers_the_others() -> None:
    env = MinesweeperEnv(height=3, width=3, mines=8, first_click="unsafe", render_mode="ansi")
    for seed in range(20):
        env.reset(seed=seed)
        *_, info = env.step(np.int64(4))
        if not info["is_success"]:
            frame = env.render()
            assert isinstance(frame, str)
            assert frame.count("*") == 8
            return
    pytest.fail("no mine under 20 first clicks")


def test_rendering_is_off_unless_asked_for() -> None:
    assert small_env().render() is None
    with pytest.raises(ValueError, match="render_mode must be one of None, ansi, rgb_array, got 'human'"):
        MinesweeperEnv(render_mode="human")
    frames = MinesweeperVectorEnv(2, render_mode="rgb_array").render()
    assert [frame.shape for frame in frames if isinstance(frame, np.ndarray)] == [(240, 240, 3)] * 2
