from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from ppo_cli.normalize import ObsNormalizer, RewardNormalizer, RunningMoments


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_running_moments_equal_those_of_all_valid_rows_at_once(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    moments = RunningMoments((3,))
    kept = []
    for size in sizes:
        rows = 5 + 3 * torch.randn(size, 3, generator=generator)
        valid = torch.rand(size, generator=generator) < 0.8
        moments.update(torch.where(valid[:, None], rows, torch.nan), valid)
        kept.append(rows[valid])
    rows = torch.cat(kept).double()
    if len(rows):
        assert moments.count.item() == len(rows)
        assert_close(moments.mean, rows.mean(0))
        assert_close(moments.variance, rows.var(0, correction=0))


def test_observations_are_shifted_scaled_and_clipped() -> None:
    normalizer = ObsNormalizer((2,), enabled=True)
    normalizer.update(torch.tensor([[0.0, 10.0], [2.0, 30.0]]), torch.tensor([True, True]))
    result = normalizer(torch.tensor([[1.0, 30.0], [1e9, 20.0]]))
    assert_close(result, torch.tensor([[0.0, 1.0], [10.0, 0.0]]))


def test_the_action_mask_beside_an_observation_is_left_alone() -> None:
    normalizer = ObsNormalizer((1,), enabled=True)
    obs = {"obs": torch.tensor([[1.0], [3.0]]), "legal": torch.tensor([[True, False], [True, True]])}
    normalizer.update(obs, torch.tensor([True, True]))
    result = normalizer(obs)
    assert isinstance(result, dict)
    assert_close(result["obs"], torch.tensor([[-1.0], [1.0]]))
    assert torch.equal(result["legal"], obs["legal"])


def test_rewards_are_divided_by_the_spread_of_the_discounted_return() -> None:
    normalizer = RewardNormalizer(1, gamma=0.5, enabled=True)
    reward = torch.tensor([[1.0], [1.0], [4.0], [0.0]])
    done = torch.tensor([[False], [True], [False], [False]])
    valid = torch.tensor([[True], [True], [True], [True]])
    # returns: 1, 1.5, (episode ends) 4, 2
    std = torch.tensor([1.0, 1.5, 4.0, 2.0]).std(correction=0)
    assert_close(normalizer(reward, done, valid), reward / std)


def test_a_dead_step_is_no_reward_and_no_sample() -> None:
    normalizer = RewardNormalizer(1, gamma=0.5, enabled=True)
    reward = torch.tensor([[1.0], [1e9], [4.0]])
    done = torch.tensor([[True], [False], [False]])
    normalizer(reward, done, torch.tensor([[True], [False], [True]]))
    assert normalizer.moments.count.item() == 2
    assert normalizer.moments.mean.item() == pytest.approx(2.5)


def test_what_is_switched_off_changes_nothing() -> None:
    obs, reward = torch.randn(3, 2), torch.randn(4, 3)
    flags = torch.ones(4, 3, dtype=torch.bool)
    assert ObsNormalizer((2,), enabled=False)(obs) is obs
    assert RewardNormalizer(3, gamma=0.9, enabled=False)(reward, flags, flags) is reward


def test_a_restored_normalizer_continues_as_if_nothing_had_happened() -> None:
    flags = torch.zeros(4, 3, dtype=torch.bool)
    first = RewardNormalizer(3, gamma=0.9, enabled=True)
    first(torch.randn(4, 3), flags, ~flags)
    second = RewardNormalizer(3, gamma=0.9, enabled=True)
    second.load_state_dict(first.state_dict())
    reward = torch.randn(4, 3)
    assert torch.equal(first(reward, flags, ~flags), second(reward, flags, ~flags))
