from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer
from torch.testing import assert_close

from ppo_cli.advantages import explained_variance, gae, monte_carlo, reverse_scan, standardize, td_error
from ppo_cli.types import Rollout
from tests.helpers import random_rollout

GAMMA, GAE_LAMBDA = 0.97, 0.9


def slow_gae(rollout: Rollout, gamma: float, gae_lambda: float) -> torch.Tensor:
    """The definition, element by element: discounted TD errors summed up to the end of the episode or the rollout."""
    num_steps, num_envs = rollout.reward.shape
    result = torch.zeros(num_steps, num_envs, dtype=torch.float64)
    for n in range(num_envs):
        for t in range(num_steps):
            weight = 1.0
            for k in range(t, num_steps):
                successor = 0.0 if rollout.terminated[k, n] else float(rollout.next_value[k, n])
                delta = float(rollout.reward[k, n]) + gamma * successor - float(rollout.value[k, n])
                result[t, n] += weight * delta
                if rollout.terminated[k, n] or rollout.truncated[k, n]:
                    break
                weight *= gamma * gae_lambda
    return result


def test_reverse_scan_by_hand() -> None:
    x = torch.tensor([[1.0], [2.0], [4.0]])
    decay = torch.tensor([[0.5], [0.25], [9.0]])  # the last decay meets nothing
    assert reverse_scan(x, decay).flatten().tolist() == [1 + 0.5 * 3, 2 + 0.25 * 4, 4.0]


def test_gae_of_one_episode_by_hand() -> None:
    rollout = replace(
        random_rollout(0, 3, 1),
        reward=torch.tensor([[1.0], [0.0], [2.0]]),
        value=torch.tensor([[0.5], [1.0], [1.5]]),
        next_value=torch.tensor([[1.0], [1.5], [0.0]]),
        terminated=torch.tensor([[False], [False], [True]]),
        truncated=torch.zeros(3, 1, dtype=torch.bool),
    )
    # deltas with gamma 0.5: 1 + 0.5 - 0.5 = 1; 0 + 0.75 - 1 = -0.25; 2 - 1.5 = 0.5. Decay 0.5 * 0.5 = 0.25.
    assert gae(rollout, gamma=0.5, gae_lambda=0.5).flatten().tolist() == [1 + 0.25 * (-0.25 + 0.25 * 0.5), -0.125, 0.5]


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_gae_equals_its_definition_on_random_rollouts(seed: int, gamma: float, gae_lambda: float) -> None:
    rollout = random_rollout(seed, 12, 3)
    expected = slow_gae(rollout, gamma, gae_lambda)
    assert_close(gae(rollout, gamma=gamma, gae_lambda=gae_lambda).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_gae_equals_the_rollout_buffer_of_stable_baselines3(seed: int) -> None:
    rollout = random_rollout(seed)
    rollout = replace(rollout, truncated=rollout.truncated & ~rollout.terminated)
    num_steps, num_envs = rollout.reward.shape
    # SB3 knows no successor values: within an episode it takes the next row's value, so ours must be that too.
    next_value = torch.where(rollout.done, rollout.next_value, rollout.value.roll(-1, 0))
    next_value[-1] = torch.where(rollout.done[-1], rollout.next_value[-1], rollout.value[0])
    rollout = replace(rollout, next_value=next_value)
    buffer = RolloutBuffer(
        num_steps, spaces.Box(-1, 1, (4,)), spaces.Discrete(3), gamma=GAMMA, gae_lambda=GAE_LAMBDA, n_envs=num_envs
    )
    # It adds the discounted value of a truncated episode's last observation to the reward instead.
    reward = rollout.reward + GAMMA * rollout.next_value * rollout.truncated
    starts = torch.cat([torch.zeros(1, num_envs, dtype=torch.bool), rollout.done[:-1]])
    for t in range(num_steps):
        buffer.add(
            rollout.obs[t].numpy(),
            rollout.action[t].numpy(),
            reward[t].numpy(),
            starts[t].numpy(),
            rollout.value[t],
            rollout.log_prob[t],
        )
    buffer.compute_returns_and_advantage(rollout.next_value[-1], rollout.done[-1].numpy())
    expected = torch.from_numpy(np.asarray(buffer.advantages))
    assert_close(gae(rollout, gamma=GAMMA, gae_lambda=GAE_LAMBDA), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_gae_with_lambda_0_is_the_td_error(seed: int) -> None:
    rollout = random_rollout(seed)
    assert torch.equal(gae(rollout, gamma=GAMMA, gae_lambda=0.0), td_error(rollout, gamma=GAMMA))


def three_steps(*, terminated: list[bool], truncated: list[bool]) -> Rollout:
    """Rewards 1, 0, 2 and successors worth 10, 20, 40."""
    return replace(
        random_rollout(0, 3, 1),
        reward=torch.tensor([[1.0], [0.0], [2.0]]),
        next_value=torch.tensor([[10.0], [20.0], [40.0]]),
        terminated=torch.tensor(terminated).unsqueeze(-1),
        truncated=torch.tensor(truncated).unsqueeze(-1),
    )


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        ([False, False, True], [False, False, False], [1 + 0.25 * 2, 0.5 * 2, 2]),
        ([False, False, False], [False, False, False], [1 + 0.25 * 22, 0.5 * 22, 2 + 0.5 * 40]),  # the rollout ends
        ([False, False, True], [False, True, False], [1 + 0.5 * 10, 0.5 * 20, 2]),  # a time limit after step 2
        ([False, True, False], [False, True, False], [1, 0, 22]),  # termination wins
    ],
)
def test_the_reward_to_go_by_hand_takes_the_critics_word_only_beyond_a_cut(
    terminated: list[bool], truncated: list[bool], expected: list[float]
) -> None:
    rollout = three_steps(terminated=terminated, truncated=truncated)
    assert monte_carlo(rollout, gamma=0.5).flatten().tolist() == expected


@given(st.integers(0, 10_000), st.floats(0, 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_gae_with_lambda_1_is_the_monte_carlo_return_minus_the_value(seed: int, gamma: float, all_valid: bool) -> None:
    rollout = random_rollout(seed, 12, 3, all_valid=all_valid)
    dead = ~rollout.valid  # follows the end of an episode, as the dead steps of an auto-reset do
    ended = rollout.terminated | torch.cat([dead[1:], dead[:1]])
    # Within an episode the successor is the next row; beyond a cut it is worth what the critic says.
    next_value = torch.where(rollout.truncated, rollout.next_value, rollout.value.roll(-1, 0))
    rollout = replace(rollout, terminated=ended & rollout.valid, next_value=next_value)
    advantage = gae(rollout, gamma=gamma, gae_lambda=1.0)
    expected = monte_carlo(rollout, gamma=gamma) - rollout.value
    assert_close(advantage[rollout.valid], expected[rollout.valid], atol=1e-4, rtol=1e-4)


def test_termination_wins_over_truncation() -> None:
    rollout = replace(
        random_rollout(0, 1, 1),
        reward=torch.tensor([[1.0]]),
        value=torch.tensor([[0.25]]),
        next_value=torch.tensor([[100.0]]),
        terminated=torch.tensor([[True]]),
        truncated=torch.tensor([[True]]),
    )
    assert td_error(rollout, gamma=GAMMA).item() == 0.75


def test_a_row_that_is_not_valid_has_no_advantage_and_changes_no_other() -> None:
    rollout = random_rollout(3, 6, 1)
    done = torch.tensor([[False], [False], [True], [False], [False], [False]])
    valid = torch.tensor([[True], [True], [True], [False], [True], [True]])
    rollout = replace(rollout, terminated=done, truncated=torch.zeros_like(done), valid=valid)
    poisoned = replace(rollout, reward=torch.where(valid, rollout.reward, torch.inf))
    advantage = gae(poisoned, gamma=GAMMA, gae_lambda=GAE_LAMBDA)
    clean = gae(replace(rollout, valid=torch.ones_like(valid)), gamma=GAMMA, gae_lambda=GAE_LAMBDA)
    assert torch.equal(advantage[valid], clean[valid])
    assert advantage[3].item() == pytest.approx(GAMMA * GAE_LAMBDA * clean[4].item())


def test_standardized_valid_elements_have_mean_0_and_std_1_and_the_others_are_0() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, torch.nan, 6.0])
    valid = torch.tensor([True, True, True, False, True])
    result = standardize(x, valid)
    assert result[3] == 0
    assert result[valid].mean().item() == pytest.approx(0, abs=1e-6)
    assert result[valid].std().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.7, 10.1, 1e-20, 1e20])
@pytest.mark.parametrize("size", [1, 2, 5, 7, 1024, 2048, 100_000])
def test_standardizing_what_does_not_vary_gives_0(value: float, size: int) -> None:
    x = torch.full((size,), value)
    rounded = x.clone()
    rounded[: size // 2] = torch.nextafter(x[: size // 2], torch.tensor(torch.inf))  # equal but for their last bit
    for constant in (x, rounded) if abs(value) > 1e-8 else (x,):
        assert (standardize(constant, torch.ones(size, dtype=torch.bool)) == 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_standardizing_does_not_hide_what_is_not_finite(bad: float) -> None:
    x = torch.tensor([1.0, bad, 3.0])
    assert not standardize(x, torch.ones(3, dtype=torch.bool)).isfinite().all()


def test_standardizing_keeps_what_varies_little_beside_its_mean() -> None:
    x = 100 + 0.01 * torch.randn(2048, generator=torch.Generator().manual_seed(0))
    result = standardize(x, torch.ones(2048, dtype=torch.bool))
    assert result.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("value", [0.1, -7.7, 10.1])
def test_explained_variance_of_a_target_that_varies_by_rounding_alone_is_nan(value: float) -> None:
    for size in (1, 7, 1024, 2048):
        target = torch.full((size,), value)
        target[: size // 2] = torch.nextafter(target[: size // 2], torch.tensor(torch.inf))
        valid = torch.ones(size, dtype=torch.bool)
        assert explained_variance(torch.randn(size), target, valid).isnan()
        assert explained_variance(torch.randn(size), torch.full((size,), value), valid).isnan()


def test_explained_variance_by_hand() -> None:
    target = torch.tensor([0.0, 2.0, 4.0, 100.0])
    valid = torch.tensor([True, True, True, False])
    assert explained_variance(target, target, valid).item() == 1
    assert explained_variance(torch.full((4,), 7.0), target, valid).item() == pytest.approx(0)
    assert explained_variance(-target, target, valid).item() == pytest.approx(-3)
    assert explained_variance(target, torch.ones(4), valid).isnan()
