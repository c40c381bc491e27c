from __future__ import annotations

import importlib.util
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ppo_cli.envs.base import VecEnv
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.envs.minesweeper.layout import FirstClick, Rules
from ppo_cli.envs.minesweeper.minefield import Minefield
from ppo_cli.envs.minesweeper.rules import HIDDEN, MINE, Boards
from ppo_cli.types import Step
from tests.envs.minesweeper_exact import ExactSolver
from tests.envs.minesweeper_levels import FIRST_CLICKS, LEVELS, any_rules


def random_cells(legal: np.ndarray, rng: np.random.Generator, illegal_share: float = 0.0) -> np.ndarray:
    cells = np.where(legal, rng.random(legal.shape), -1.0).argmax(axis=1)
    anywhere = rng.integers(legal.shape[1], size=len(legal))
    return np.where(rng.random(len(legal)) < illegal_share, anywhere, cells)


def cells_of_a_mixed_crowd(field: Minefield, rng: np.random.Generator) -> np.ndarray:
    """Even games avoid mines and so reach the end of the board; odd ones click anywhere."""
    legal = field.boards.legal.copy()
    legal[::2] &= ~field.mines()[::2]
    return random_cells(legal, rng, illegal_share=0.05)


def assert_same_boards(left: Boards, right: Boards) -> None:
    for name in Boards._fields:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def assert_both_play_alike(rules: Rules, seed: int, num_games: int, num_steps: int, shaping: float) -> int:
    """Kernel and reference show the same after every step. Returns how many games ended."""
    fast, slow = (Minefield(num_games, rules, shaping=shaping, backend=backend) for backend in ("numba", "reference"))
    for field in (fast, slow):
        field.start(range(seed, seed + num_games))
    rng = np.random.default_rng(seed)
    finished = 0
    for _ in range(num_steps):
        action = cells_of_a_mixed_crowd(slow, rng)
        assert_same_boards(fast.step(action), slow.step(action))
        finished += int(slow.boards.terminated.sum())
    return finished


def tensors(step: Step) -> list[Tensor]:
    assert isinstance(step.obs, dict)
    assert isinstance(step.final_obs, dict)
    return [*step.obs.values(), step.reward, step.terminated, step.truncated, *step.final_obs.values()]


def random_action(env: MinesweeperVecEnv, generator: torch.Generator) -> Tensor:
    assert isinstance(env.obs, dict)
    return torch.multinomial(env.obs["legal"].float(), 1, generator=generator)[:, 0]


def env_with_mines(num_envs: int, mines: list[list[int]], **settings: Any) -> MinesweeperVecEnv:
    """The same hand-made board in every row."""
    layout = np.array(mines, np.bool_)
    env = MinesweeperVecEnv(
        num_envs, height=layout.shape[0], width=layout.shape[1], mines=int(layout.sum()), **settings
    )
    env.reset(range(num_envs))
    env._field.lay_mines(np.broadcast_to(layout, (num_envs, *layout.shape)))
    return env


@pytest.mark.parametrize("first_click", FIRST_CLICKS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_kernel_plays_full_games_of_every_level_as_the_reference_does(
    level: tuple[int, int, int], first_click: FirstClick
) -> None:
    rules = Rules(*level, first_click)
    ended = assert_both_play_alike(rules, seed=5, num_games=4, num_steps=level[0] * level[1] // 3, shaping=0.7)
    assert ended >= 8


@settings(max_examples=40, deadline=None)
@given(rules=any_rules(), seed=st.integers(0, 2**63))
def test_the_kernel_equals_the_reference_on_boards_of_any_shape(rules: Rules, seed: int) -> None:
    assert_both_play_alike(rules, seed, 4, 20, shaping=1.0)


@pytest.mark.parametrize("first_click", FIRST_CLICKS)
def test_a_game_depends_on_its_seed_and_not_on_its_neighbours(first_click: FirstClick) -> None:
    together = MinesweeperVecEnv(5, first_click=first_click)
    alone = MinesweeperVecEnv(1, first_click=first_click, backend="reference")
    together.reset([11, 12, 13, 14, 15])
    alone.reset([14])
    rng = np.random.default_rng(0)
    for _ in range(120):
        action = random_cells(together._field.boards.legal, rng)
        left, right = together.step(torch.from_numpy(action)), alone.step(torch.from_numpy(action[3:4]))
        for batched, single in zip(tensors(left), tensors(right), strict=True):
            assert torch.equal(batched[3:4], single)


def test_the_same_seeds_give_the_same_games_and_other_seeds_others() -> None:
    env = MinesweeperVecEnv(3)
    layouts = []
    for seeds in ([1, 2, 3], [1, 2, 3], [4, 5, 6]):
        env.reset(seeds)
        env.step(torch.tensor([40, 40, 40]))
        layouts.append(env.mines().clone())
    assert torch.equal(layouts[0], layouts[1])
    assert not torch.equal(layouts[0], layouts[2])
    assert not torch.equal(layouts[0][0], layouts[0][1])


def test_it_is_a_vec_env_whose_observations_lie_in_its_space() -> None:
    env: VecEnv = MinesweeperVecEnv(2, height=4, width=6, mines=5)
    obs = env.reset([0, 1])
    assert isinstance(obs, dict)
    assert obs["board"].shape == (2, 4, 6)
    assert obs["board"].dtype == torch.int8
    assert obs["legal"].shape == (2, 24)
    assert obs["legal"].dtype == torch.bool
    assert env.single_observation_space.contains({key: value[0].numpy() for key, value in obs.items()})
    assert env.single_action_space.n == 24  # type: ignore[attr-defined]
    assert env.autoreset == "same_step"


def test_steps_write_into_the_same_memory() -> None:
    env = MinesweeperVecEnv(4)
    env.reset(range(4))
    generator = torch.Generator().manual_seed(0)
    addresses = [[tensor.data_ptr() for tensor in tensors(env.step(random_action(env, generator)))] for _ in range(9)]
    assert all(row == addresses[0] for row in addresses)


def test_clearing_the_board_wins() -> None:
    env = env_with_mines(1, [[0, 0, 0], [0, 0, 0], [0, 0, 1]], reward="win")
    step = env.step(torch.tensor([0]))
    assert step.terminated.tolist() == [True]
    assert step.reward.tolist() == [1.0]
    assert isinstance(step.final_obs, dict)
    assert step.final_obs["board"].tolist() == [[[0, 0, 0], [0, 1, 1], [0, 1, HIDDEN]]]
    assert step.final_obs["legal"].tolist() == [[False] * 8 + [True]]
    assert {tag: value.tolist() for tag, value in env.episode_metrics().items()} == {
        "minesweeper/win_rate": [1.0],
        "minesweeper/revealed": [1.0],
    }


def test_hitting_a_mine_loses_and_shows_that_mine_only() -> None:
    env = env_with_mines(1, [[1, 0, 0], [0, 0, 0], [0, 0, 1]], reward="win")
    env.step(torch.tensor([4]))
    step = env.step(torch.tensor([8]))
    assert step.terminated.tolist() == [True]
    assert step.reward.tolist() == [0.0]
    assert isinstance(step.final_obs, dict)
    assert step.final_obs["board"].tolist() == [[[HIDDEN] * 3, [HIDDEN, 2, HIDDEN], [HIDDEN, HIDDEN, MINE]]]
    assert env.episode_metrics()["minesweeper/win_rate"].tolist() == [0.0]
    assert env.episode_metrics()["minesweeper/revealed"].tolist() == pytest.approx([1 / 7])


@pytest.mark.parametrize("backend", ["numba", "reference", "torch"])
def test_the_next_game_begins_in_the_step_that_ends_the_last(backend: Any) -> None:
    env = MinesweeperVecEnv(32, backend=backend)
    env.reset(range(32))
    generator = torch.Generator().manual_seed(1)
    ended = 0
    for _ in range(60):
        step = env.step(random_action(env, generator))
        assert isinstance(step.obs, dict)
        assert isinstance(step.final_obs, dict)
        assert (step.obs["board"][step.terminated] == HIDDEN).all()
        assert step.obs["legal"][step.terminated].all()
        assert (step.final_obs["board"][step.terminated] != HIDDEN).flatten(1).any(1).all()
        for key in step.obs:
            assert torch.equal(step.obs[key][~step.terminated], step.final_obs[key][~step.terminated])
        assert torch.equal(step.obs["legal"], step.obs["board"].flatten(1) == HIDDEN)
        assert not step.truncated.any()
        ended += int(step.terminated.sum())
    assert ended > 100


def test_a_click_on_a_shown_cell_changes_nothing() -> None:
    env = env_with_mines(1, [[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    env.step(torch.tensor([4]))
    before = {name: tensor.clone() for name, tensor in env.state_dict().items()}
    step = env.step(torch.tensor([4]))
    assert step.reward.tolist() == [0.0]
    assert not step.terminated.any()
    assert all(torch.equal(before[name], tensor) for name, tensor in env.state_dict().items())


@pytest.mark.parametrize("stray", [-1, 81, 2**40])
def test_an_action_that_is_no_cell_is_refused_before_anything_changes(stray: int) -> None:
    env = MinesweeperVecEnv(2)
    env.reset([0, 1])
    with pytest.raises(ValueError, match=f"actions must be cells from 0 to 80, got {stray}"):
        env.step(torch.tensor([3, stray]))
    with pytest.raises(ValueError, match=r"expected actions of shape \(2,\), got \(3,\)"):
        env.step(torch.tensor([3, 4, 5]))
    assert isinstance(env.obs, dict)
    assert (env.obs["board"] == HIDDEN).all()


@pytest.mark.parametrize(("reward", "shaping"), [("win", 1.0), ("progress", 1.0), ("progress", 0.3), ("progress", 5.0)])
def test_the_rewards_of_a_game_sum_to_one_for_a_win_and_to_zero_for_a_loss(reward: Any, shaping: float) -> None:
    field = Minefield(64, Rules(6, 6, 5), reward=reward, shaping=shaping)
    field.start(range(64))
    rng = np.random.default_rng(2)
    returns, wins, losses = np.zeros(64), 0, 0
    for _ in range(200):
        boards = field.step(cells_of_a_mixed_crowd(field, rng))
        returns += boards.reward
        done = boards.terminated
        np.testing.assert_allclose(returns[done], boards.won[done], atol=1e-5)
        wins, losses = wins + int(boards.won[done].sum()), losses + int((1 - boards.won[done]).sum())
        returns[done] = 0
    assert wins > 100
    assert losses > 100


def test_the_win_reward_pays_for_nothing_but_the_win() -> None:
    field = Minefield(64, Rules(5, 5, 3), reward="win")
    field.start(range(64))
    rng = np.random.default_rng(3)
    for _ in range(50):
        boards = field.step(cells_of_a_mixed_crowd(field, rng))
        np.testing.assert_array_equal(boards.reward, boards.won * boards.terminated)


def test_boards_that_agree_on_all_that_is_shown_cannot_be_told_apart() -> None:
    """All 560 layouts of 4x4 with 3 mines under the same clicks: what is shown decides every tensor a player gets."""
    layouts = np.zeros((560, 16), np.bool_)
    np.put_along_axis(layouts, np.array(ExactSolver(Rules(4, 4, 3)).layouts), True, axis=1)
    env = MinesweeperVecEnv(560, height=4, width=4, mines=3)
    env.reset(range(560))
    env._field.lay_mines(layouts)
    alive = torch.ones(560, dtype=torch.bool)
    shared = 0
    for cell in (0, 5, 10, 3, 15):
        step = env.step(torch.full((560,), cell))
        assert isinstance(step.final_obs, dict)
        groups: dict[bytes, list[int]] = defaultdict(list)
        for n in torch.nonzero(alive)[:, 0].tolist():
            groups[step.final_obs["board"][n].numpy().tobytes()].append(n)
        for members in groups.values():
            for tensor in tensors(step):
                assert (tensor[members] == tensor[members[0]]).all()
            shared += len(members) > 1
        alive &= ~step.terminated
    assert shared > 50


def test_a_loaded_state_continues_bit_for_bit() -> None:
    original, copy = MinesweeperVecEnv(16), MinesweeperVecEnv(16)
    original.reset(range(16))
    copy.reset(range(100, 116))
    generator = torch.Generator().manual_seed(4)
    for _ in range(25):
        original.step(random_action(original, generator))
    copy.load_state_dict(original.state_dict())
    assert isinstance(original.obs, dict)
    assert isinstance(copy.obs, dict)
    assert all(torch.equal(original.obs[key], copy.obs[key]) for key in original.obs)
    for _ in range(60):
        action = random_action(original, generator)
        for left, right in zip(tensors(original.step(action)), tensors(copy.step(action)), strict=True):
            assert torch.equal(left, right)


def test_a_state_is_a_copy_of_tensors_that_loads_with_weights_only(tmp_path: Any) -> None:
    env = MinesweeperVecEnv(2)
    env.reset([0, 2**64 - 1])
    env.step(torch.tensor([0, 0]))
    state = env.state_dict()
    torch.save(state, tmp_path / "state.pt")
    env.step(torch.tensor([80, 80]))
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    env.load_state_dict(loaded)
    assert env._field.boards.seed.tolist() == [0, 2**64 - 1]


def test_a_state_of_another_board_is_refused() -> None:
    state = MinesweeperVecEnv(2).state_dict()
    with pytest.raises(ValueError, match=r"the saved mines has shape \(2, 81\), this environment needs \(2, 256\)"):
        MinesweeperVecEnv(2, height=16, width=16, mines=40).load_state_dict(state)
    with pytest.raises(ValueError, match="the saved seed has shape"):
        MinesweeperVecEnv(3).load_state_dict(state)


def test_mines_are_unknown_to_everybody_before_the_first_click() -> None:
    env = MinesweeperVecEnv(2)
    env.reset([0, 1])
    assert not env.mines().any()
    env.step(torch.tensor([0, 0]))
    assert env.mines().flatten(1).sum(1).tolist() == [10, 10]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"mines": 81}, "env.mines must be between 1 and 80 on a 9x9 board with first_click=safe, got 81"),
        ({"mines": 0}, "mines must be at least 1, got 0"),
        ({"shaping": -1.0}, "shaping must be at least 0, got -1.0"),
        ({"reward": "cells"}, "reward must be one of progress, win, got 'cells'"),
        ({"backend": "cuda"}, "backend must be one of auto, numba, reference, torch, got 'cuda'"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused_in_words(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MinesweeperVecEnv(**({"num_envs": 2} | arguments))


def test_one_seed_per_board_is_asked_for() -> None:
    env = MinesweeperVecEnv(2)
    with pytest.raises(ValueError, match="expected one seed for each of 2 games, got 3"):
        env.reset([1, 2, 3])
    with pytest.raises(ValueError, match=r"seeds must lie in \[0, 2\*\*64\), got -5"):
        env.reset([1, -5])


def test_without_numba_the_reference_plays_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="numba is not installed"):
        env = MinesweeperVecEnv(1)
    env.reset([0])
    assert env.step(torch.tensor([0])).reward.shape == (1,)
    with pytest.raises(ValueError, match=r"env\.backend=numba needs numba"):
        MinesweeperVecEnv(1, backend="numba")


def win_share_of_optimal_play(solver: ExactSolver, rules: Rules, first: int, num_games: int) -> float:
    """One game for each of ``num_games`` seeds, every game counted."""
    field = Minefield(num_games, rules)
    field.start(range(num_games))
    best: dict[bytes, int] = {}
    action = np.full(num_games, first)
    playing, wins = np.ones(num_games, np.bool_), 0.0
    while playing.any():
        boards = field.step(action)
        wins += float(boards.won[playing & boards.terminated].sum())
        playing &= ~boards.terminated
        for n in np.flatnonzero(playing):
            seen = boards.board[n].tobytes()
            if seen not in best:
                best[seen] = solver.action(boards.board[n])
            action[n] = best[seen]
    return wins / num_games


@pytest.mark.parametrize(
    ("side", "mines", "first", "won", "layouts"), [(3, 2, 1, 24, 28), (3, 2, 0, 23, 28), (4, 3, 0, 400, 455)]
)
def test_optimal_play_wins_as_often_as_the_exact_optimum(
    side: int, mines: int, first: int, won: int, layouts: int
) -> None:
    rules = Rules(side, side, mines, "safe")
    solver = ExactSolver(rules)
    assert solver.wins(first) == won
    exact, num_games = won / layouts, 20_000
    share = win_share_of_optimal_play(solver, rules, first, num_games)
    assert abs(share - exact) <= 3.5 * (exact * (1 - exact) / num_games) ** 0.5


def test_an_unsafe_first_click_costs_exactly_the_share_of_mines() -> None:
    rules = Rules(4, 4, 3, "unsafe")
    exact, num_games = 400 / 560, 20_000
    share = win_share_of_optimal_play(ExactSolver(rules), rules, 0, num_games)
    assert abs(share - exact) <= 3.5 * (exact * (1 - exact) / num_games) ** 0.5


@pytest.mark.slow
def test_the_solver_knows_the_published_optimum_of_5x5_with_3_mines() -> None:
    assert ExactSolver(Rules(5, 5, 3)).wins(0) == 1798


def test_the_picture_shows_games_that_the_last_step_ended_and_is_none_where_it_ended_none() -> None:
    env = MinesweeperVecEnv(2, height=1, width=3, mines=1, first_click="unsafe")
    env.reset([1, 2])
    assert env.picture() is None
    sizes = set()
    for _ in range(20):
        terminated = env.step(torch.multinomial(env.obs["legal"].float(), 1).squeeze(1)).terminated  # type: ignore[index]
        picture = env.picture()
        assert (picture is None) == (not terminated.any())
        sizes |= {picture.shape[1]} if picture is not None else set()
    assert len(sizes) >= 1
