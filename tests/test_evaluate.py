from __future__ import annotations

import math

import pytest
import torch

from ppo_cli.envs.probes import ActionProbe, TruncationProbe
from ppo_cli.evaluate import Evaluation, evaluate, wilson_interval
from tests.helpers import learner
from tests.test_rollout import CountingEnv, EchoNetwork


def test_every_listed_seed_is_played_once_even_where_they_do_not_fill_the_batch() -> None:
    env = CountingEnv(4, length=3, autoreset="same_step", ends_by="termination")
    state = learner(env, network=EchoNetwork())
    heard: list[int] = []
    result = evaluate(
        state.actor_critic, state.obs_normalizer, env, list(range(10)), mode="greedy", on_progress=heard.append
    )
    assert result.episode_return.tolist() == [6.0] * 10
    assert result.episode_length.tolist() == [3.0] * 10
    assert heard[-1] == 10


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_only_the_first_episode_of_an_environment_counts(autoreset: str) -> None:
    env = TruncationProbe(8, autoreset=autoreset, time_limit=5)  # type: ignore[arg-type]
    state = learner(env)
    result = evaluate(state.actor_critic, state.obs_normalizer, env, list(range(8)), mode="greedy")
    assert result.episode_return.tolist() == [4.0] * 8


def test_greedy_takes_the_mode_and_sampling_does_not_always() -> None:
    env = ActionProbe(64)
    state = learner(env)
    generator = torch.Generator().manual_seed(0)
    greedy = evaluate(state.actor_critic, state.obs_normalizer, env, list(range(64)), mode="greedy")
    sampled = evaluate(
        state.actor_critic, state.obs_normalizer, env, list(range(64)), mode="sampled", generator=generator
    )
    assert len(set(greedy.episode_return.tolist())) == 1
    assert len(set(sampled.episode_return.tolist())) == 2


def test_the_summary_by_hand() -> None:
    figures = Evaluation(
        episode_return=torch.tensor([1.0, 0.0, 1.0, 0.0]),
        episode_length=torch.tensor([2.0, 4.0, 6.0, 8.0]),
        extra={
            "task/win_rate": torch.tensor([1.0, 0.0, 1.0, 0.0]),
            "task/revealed": torch.tensor([0.5, 0.2, 1.0, 0.3]),
        },
    ).summary()
    assert figures["episodes"] == 4
    assert figures["episodic_return"] == 0.5
    assert figures["episodic_return_std"] == pytest.approx(math.sqrt(1 / 3))
    assert figures["episodic_return_standard_error"] == pytest.approx(math.sqrt(1 / 12))
    assert figures["episodic_length"] == 5
    assert (figures["task/win_rate_low"], figures["task/win_rate_high"]) == pytest.approx(wilson_interval(2, 4))
    assert "task/revealed_low" not in figures


def test_the_wilson_interval_equals_published_values_and_stays_within_0_and_1() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Brown, Cai and DasGupta 2001
    low, high = wilson_interval(0, 20)
    assert low == 0
    assert high == pytest.approx(0.1611, abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1
