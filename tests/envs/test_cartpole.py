from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from scipy import stats
from torch import Tensor

from ppo_cli.envs.base import env_seeds
from ppo_cli.envs.cartpole import START, CartPole
from ppo_cli.types import Step
from tests.fused.helpers import make_run


def started(num_envs: int, max_steps: int = 500, seed: int = 1) -> CartPole:
    env = CartPole(num_envs, max_steps)
    env.reset(env_seeds(seed, num_envs))
    return env


def taken(env: CartPole, action: Tensor) -> Step:
    """One step, its tensors safe from the next."""
    return Step(*(part.clone() for part in env.step(action)))  # type: ignore[union-attr]


def actions(env: CartPole, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (env.num_envs,), generator=generator)


def test_every_step_is_that_of_gymnasium() -> None:
    """20,000 random steps, each from our state; the angle, the position and both flags at every one of them."""
    theirs = CartPoleEnv()
    theirs.reset(seed=1)
    ours, generator = started(1), torch.Generator().manual_seed(1)
    fell = 0
    for _ in range(20_000):
        before, action = ours.carts.state[0].copy(), actions(ours, generator)
        theirs.state = tuple(before)
        theirs.steps_beyond_terminated = None
        obs, reward, terminated, _, _ = theirs.step(int(action))
        step = ours.step(action)
        assert bool(step.terminated) == terminated
        assert float(step.reward) == reward == 1.0
        np.testing.assert_array_equal(step.final_obs.numpy()[0], obs)  # type: ignore[union-attr]
        if terminated or bool(step.truncated):
            fell += terminated
        else:
            np.testing.assert_allclose(ours.carts.state[0], theirs.state, rtol=1e-12, atol=1e-15)
    assert fell > 500


@pytest.mark.parametrize(
    "start", [(2.39, 1.0, 0.0, 0.0), (-2.39, -1.0, 0.0, 0.0), (0, 0, 0.2, 1.0), (0, 0, -0.2, -1.0)]
)
def test_each_of_the_four_bounds_ends_the_episode(start: tuple[float, ...]) -> None:
    env = started(1)
    for inside in (True, False):
        env.carts.state[0] = np.array(start) * (0.9 if inside else 1.0)
        assert bool(env.step(torch.tensor([0])).terminated) is not inside


def test_an_episode_is_truncated_after_max_steps_and_can_end_both_ways_at_once() -> None:
    env = started(2, max_steps=3)
    assert [taken(env, torch.tensor([0, 1])).truncated.tolist() for _ in range(4)] == [
        [False, False],
        [False, False],
        [True, True],
        [False, False],
    ]
    env = started(2, max_steps=1)
    env.carts.state[0, 2] = 0.3
    step = env.step(torch.tensor([0, 0]))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [True, True]


def test_an_ended_episode_shows_its_end_and_the_next_ones_start() -> None:
    env, generator = started(8, max_steps=15), torch.Generator().manual_seed(2)
    obs, ended = env.obs.clone(), 0
    for _ in range(100):
        step = taken(env, actions(env, generator))
        assert isinstance(step.obs, Tensor) and isinstance(step.final_obs, Tensor)
        done = step.terminated | step.truncated
        ended += int(done.sum())
        assert (step.obs[done].abs() <= START).all()
        assert torch.equal(step.obs[~done], step.final_obs[~done])
        # the position moves by the velocity that it had: the end belongs to the episode before
        torch.testing.assert_close(step.final_obs[:, 0], obs[:, 0] + 0.02 * obs[:, 1])
        obs = step.obs
    assert ended > 50


def test_starting_states_are_uniform_and_independent() -> None:
    env = started(2_000)
    first = env.obs.clone().numpy()
    env.carts.state[:, 2] = 1.0
    second = taken(env, torch.zeros(2_000, dtype=torch.int64)).obs.numpy()  # type: ignore[union-attr]
    for states in (first, second):
        assert np.abs(states).max() <= START
        for column in states.T:
            assert stats.kstest(column, stats.uniform(-START, 2 * START).cdf).pvalue > 1e-4
    correlation = np.corrcoef(np.concatenate([first, second], axis=1).T) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(2_000)


def test_a_cart_depends_on_its_own_seed_only() -> None:
    three, one = CartPole(3), CartPole(1)
    three.reset([5, 6, 7])
    one.reset([6])
    for action in (0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1):
        assert torch.equal(three.step(torch.full((3,), action)).obs[1], one.step(torch.tensor([action])).obs[0])  # type: ignore[index]
    assert one.carts.episode[0] == 2
    assert not torch.equal(three.reset([1, 2, 1])[0], three.obs[1])
    assert torch.equal(three.obs[0], three.obs[2])


def test_reset_begins_anew_and_takes_one_seed_for_each_cart() -> None:
    env = CartPole(2)
    first = env.reset([3, 4]).clone()
    for _ in range(30):
        env.step(torch.tensor([1, 0]))
    assert torch.equal(env.reset([3, 4]), first)
    with pytest.raises(ValueError, match="one seed for each of 2 carts, got 3"):
        env.reset([1, 2, 3])


@pytest.mark.parametrize(("setting", "value"), [("num_envs", 0), ("max_steps", 0)])
def test_a_setting_outside_its_range_is_refused_by_name(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{setting} must be at least 1, got 0"):
        CartPole(**{"num_envs": 1} | {setting: value})


def test_a_saved_state_continues_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(3)
    env = started(5, max_steps=20)
    for _ in range(33):
        env.step(actions(env, generator))
    saved = env.state_dict()
    future = torch.randint(2, (50, 5), generator=generator)
    expected = [taken(env, action) for action in future]
    other = CartPole(5, max_steps=20)
    other.load_state_dict(saved)
    for action, theirs in zip(future, expected, strict=True):
        assert all(torch.equal(ours, part) for ours, part in zip(other.step(action), theirs, strict=True))  # type: ignore[arg-type]
    for name, value in CartPole(5).state_dict().items():
        assert value.dtype in (torch.float64, torch.int64), name


@pytest.mark.parametrize("normalize", [False, True])
def test_a_rollout_in_one_call_is_the_one_played_step_by_step(normalize: bool) -> None:
    whole = make_run("fused", CartPole(9, max_steps=25), rollout_length=40, normalize=normalize)
    steps = make_run("fused", StepByStep(9, max_steps=25), rollout_length=40, normalize=normalize)
    for _ in range(3):
        played, stepped = whole.collector.collect(), steps.collector.collect()
        for name in ("obs", "action", "log_prob", "value", "reward", "terminated", "truncated", "valid"):
            assert torch.equal(getattr(played, name), getattr(stepped, name)), name
        torch.testing.assert_close(played.next_value, stepped.next_value, rtol=1e-6, atol=1e-6)
    assert torch.equal(*(run.collector.episode_return for run in (whole, steps)))
    assert played.truncated.any() and played.terminated.any()


class StepByStep(CartPole):
    """The same carts, which cannot play whole rollouts."""

    play = None  # type: ignore[assignment]
