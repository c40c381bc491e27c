from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from ppo_cli.envs.cartpole import CartPole
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.envs.minesweeper.layout import Rules
from ppo_cli.envs.minesweeper.minefield import Minefield, Reward
from ppo_cli.envs.minesweeper.render import FLAG, OTHER_MINE
from ppo_cli.envs.minesweeper.rules import HIDDEN, MINE
from ppo_cli.play.agent import Score, side_by_side, win_estimate
from tests.play.helpers import Preference, Still, agent, minesweeper_agent


@pytest.mark.parametrize(("reward", "shaping"), [("progress", 1.0), ("progress", 0.4), ("win", 0.0)])
@pytest.mark.parametrize("rules", [Rules(1, 5, 2, "unsafe"), Rules(2, 2, 1, "unsafe")], ids=["1x5", "2x2"])
def test_value_plus_potential_is_the_probability_of_winning(rules: Rules, reward: Reward, shaping: float) -> None:
    """In every position of a random player, by playing every layout in every order."""
    cells = range(rules.num_cells)
    games = [(mines, order) for mines in combinations(cells, rules.mines) for order in permutations(cells)]
    field = Minefield(len(games), rules, reward, shaping, "reference")
    field.start(range(len(games)))
    layouts = np.zeros((len(games), len(cells)), np.bool_)
    layouts[np.arange(len(games))[:, None], [mines for mines, _ in games]] = True
    field.lay_mines(layouts)
    orders = np.array([order for _, order in games])

    visited, rewards = [], []
    playing, won = np.ones(len(games), np.bool_), np.zeros(len(games))
    while playing.any():
        legal = np.take_along_axis(field.boards.legal, orders, axis=1)
        clicks = orders[np.arange(len(games)), legal.argmax(axis=1)]
        visited.append([board.tobytes() if on else None for board, on in zip(field.boards.board, playing, strict=True)])
        boards = field.step(clicks)
        rewards.append(np.where(playing, boards.reward, 0.0))
        won = np.where(playing & boards.terminated, boards.won, won)
        playing &= ~boards.terminated

    to_go = np.cumsum(np.array(rewards)[::-1], axis=0)[::-1]
    positions: dict[bytes, list[tuple[float, float]]] = {}
    for row, values in zip(visited, to_go, strict=True):
        for board, value, outcome in zip(row, values, won, strict=True):
            if board is not None:
                positions.setdefault(board, []).append((value, outcome))
    assert len(positions) > 10
    for board, samples in positions.items():
        value, probability = np.mean(samples, axis=0)
        shown = np.frombuffer(board, np.int8).reshape(rules.shape)
        assert win_estimate(rules, shown, value, shaping) == pytest.approx(probability, abs=1e-6)


def test_a_moment_holds_what_the_agent_sees_thinks_and_does() -> None:
    first, *_, last = moments = list(minesweeper_agent(value=0.1).episode(1))
    assert (first.step, first.choice, first.done) == (0, 0, False)
    assert first.board is not None and (first.board == HIDDEN).all()
    assert first.win == pytest.approx(0.1)
    assert first.probs is not None and first.probs.sum() == pytest.approx(1) and first.probs.argmax() == 0
    second = moments[1]
    assert second.board is not None
    assert second.win == pytest.approx(0.1 + (second.board >= 0).sum() / 6)
    assert (last.done, last.choice, last.probs) == (True, None, None)
    assert last.win == float(bool(last.success)) == round(last.episode_return)


def test_the_end_uncovers_the_mines() -> None:
    ends = {last.success: last.board for seed in range(40) for *_, last in [minesweeper_agent().episode(seed)]}
    won, lost = ends[True], ends[False]
    assert won is not None and (won == FLAG).sum() == 3 and (won >= 0).all()
    assert lost is not None and (lost == MINE).sum() == 1 and (lost == OTHER_MINE).sum() == 2


def test_values_are_in_the_rewards_of_the_environment_again() -> None:
    first = next(minesweeper_agent(value=0.1, value_scale=3.0).episode(5))
    assert first.value == pytest.approx(0.3) and first.win == pytest.approx(0.3)


def test_an_episode_is_the_same_every_time_also_when_sampled() -> None:
    ours = minesweeper_agent(sample=True)
    games = [[moment.choice for moment in ours.episode(seed)] for seed in (1, 2, 1, 3, 4, 5)]
    assert games[0] == games[2]
    assert len({tuple(game) for game in games}) > 2


def test_greedy_takes_the_most_probable_hidden_cell() -> None:
    for moment in minesweeper_agent([8, 0, 4, 1, 2, 3, 5, 6, 7]).episode(2):
        assert moment.choice is None or (moment.probs is not None and moment.choice == moment.probs.argmax())


def test_two_agents_play_the_same_boards_and_wait_for_each_other() -> None:
    ours, theirs = minesweeper_agent(), minesweeper_agent()
    for seed in range(5):
        for one, other in side_by_side([ours, theirs], seed):
            assert np.array_equal(one.board, other.board)
    ends = [
        side_by_side([minesweeper_agent(), minesweeper_agent([4, *range(4), *range(5, 9)])], seed) for seed in (1, 3)
    ]
    for episode in ends:
        *_, last = episode
        assert all(moment.done for moment in last)


@pytest.mark.parametrize("seed", [1, 7])
def test_two_carts_start_alike(seed: int) -> None:
    pair = [agent(CartPole(1), Preference([0, 1])), agent(CartPole(1), Preference([1, 0]))]
    starts = [one.env.reset([seed]).clone() for one in pair]
    assert torch.equal(*starts)
    *_, last = side_by_side(pair, seed)
    assert all(moment.done and moment.episode_return == moment.step for moment in last)


def test_continuous_actions_have_no_probabilities() -> None:
    env = GymnasiumVecEnv(1, "Pendulum-v1", {"max_episode_steps": 3}, vectorization="sync", autoreset="next_step")
    moments = list(agent(env, Still()).episode(1))
    assert len(moments) == 4
    assert all(moment.probs is None and moment.choice is None for moment in moments)
    assert moments[0].action is not None and moments[0].action.shape == (1,)


def test_a_score_counts_wins_or_returns() -> None:
    score = Score()
    assert score.text() == ""
    for seed in range(4):
        *_, end = minesweeper_agent().episode(seed)
        score.add(end)
    assert score.text() == f"won {score.successes} of 4"
    *_, end = agent(CartPole(1), Preference([0, 1])).episode(1)
    plain = Score()
    plain.add(end)
    assert plain.text() == f"mean return {end.episode_return:g} of 1"
