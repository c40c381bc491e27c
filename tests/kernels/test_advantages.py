from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppo_cli import advantages
from ppo_cli.kernels import advantages as kernels
from ppo_cli.kernels.ppo import Samples, advantage_scale
from ppo_cli.types import Rollout
from tests.helpers import random_rollout


def computed(rollout: Rollout, gamma: float, gae_lambda: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantage and value target as the kernel has them."""
    advantage, target = np.full((2, *rollout.reward.shape), np.nan, np.float32)
    names = ("reward", "value", "next_value", "terminated", "truncated", "valid")
    rows = kernels.Advantages(*(getattr(rollout, name).numpy() for name in names), advantage, target)
    kernels.gae(rows, np.float32(gamma), np.float32(gamma * gae_lambda))
    return torch.from_numpy(advantage), torch.from_numpy(target)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_steps=st.integers(1, 40),
    num_envs=st.integers(1, 9),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
    all_valid=st.booleans(),
)
def test_gae_is_that_of_the_reference(
    seed: int, num_steps: int, num_envs: int, gamma: float, gae_lambda: float, all_valid: bool
) -> None:
    rollout = random_rollout(seed, num_steps, num_envs, all_valid=all_valid)
    advantage, target = computed(rollout, gamma, gae_lambda)
    reference = advantages.gae(rollout, gamma=gamma, gae_lambda=gae_lambda)
    # not to the last bit: the reference fuses a product and a sum, and rounds once less
    torch.testing.assert_close(advantage, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(target, reference + rollout.value, rtol=1e-5, atol=1e-5)


def test_poison_where_no_step_counts_changes_no_bit() -> None:
    rollout = random_rollout(1, all_valid=False)
    clean = computed(rollout, 0.97, 0.9)
    rollout.reward[~rollout.valid] = 1e9
    rollout.next_value[rollout.terminated] = math.nan
    poisoned = computed(rollout, 0.97, 0.9)
    assert torch.equal(clean[0], poisoned[0]) and torch.equal(clean[1], poisoned[1])


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(2, 200), share=st.floats(0.3, 1.0))
def test_explained_variance_is_that_of_the_reference(seed: int, size: int, share: float) -> None:
    random = np.random.default_rng(seed)
    value, target = random.standard_normal((2, size)).astype(np.float32)
    target = (target + value).astype(np.float32)
    valid = random.random(size) < share
    valid[:2] = True
    expected = advantages.explained_variance(*(torch.from_numpy(x) for x in (value, target, valid))).item()
    assert kernels.explained_variance(value, target, valid) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_explained_variance_of_a_constant_target_is_not_a_number() -> None:
    value, valid = np.arange(4, dtype=np.float32), np.array([True, True, True, False])
    target = np.array([2.0, 2.0, 2.0, 5.0], np.float32)
    assert math.isnan(kernels.explained_variance(value, target, valid))
    target[0] = np.nextafter(target[0], np.float32(np.inf))
    assert math.isnan(kernels.explained_variance(value, target, valid))
    assert kernels.explained_variance(value, value.copy(), valid) == 1.0


def standardized(advantage: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the update's kernel standardizes a minibatch of them."""
    size = len(advantage)
    one, rows, index = np.zeros(size, np.float32), np.zeros((size, 1), np.float32), np.arange(size)
    samples = Samples(rows, index, rows, one, one, advantage, one, np.ones(size, np.bool_), rows, rows)
    mean, scale, count = advantage_scale(samples, index, 0, size)
    assert count == size
    return (advantage - np.float32(mean)) * np.float32(scale)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.7, 10.1, 1e-20, 1e20])
@pytest.mark.parametrize("size", [1, 2, 7, 2048])
def test_equal_advantages_are_standardized_to_0(value: float, size: int) -> None:
    x = np.full(size, value, np.float32)
    assert (standardized(x) == 0).all()
    if abs(value) > 1e-8:
        x[: size // 2] = np.nextafter(x[: size // 2], np.float32(np.inf))  # equal but for their last bit
        assert (standardized(x) == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_standardizing_does_not_hide_what_is_not_finite(bad: float) -> None:
    assert not np.isfinite(standardized(np.array([1.0, bad, 3.0], np.float32))).all()


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(2, 300), offset=st.sampled_from([0.0, 1.0, -100.0]))
def test_advantages_are_standardized_as_by_the_reference(seed: int, size: int, offset: float) -> None:
    x = (np.random.default_rng(seed).standard_normal(size) + offset).astype(np.float32)
    expected = advantages.standardize(torch.from_numpy(x), torch.ones(size, dtype=torch.bool)).numpy()
    np.testing.assert_allclose(standardized(x), expected, rtol=1e-3, atol=1e-4)
