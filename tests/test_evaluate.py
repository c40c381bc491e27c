from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor

from ppo_cli.envs.base import VecEnv
from ppo_cli.envs.probes import ActionProbe, TruncationProbe
from ppo_cli.evaluate import CUT_OFF, Evaluation, UnfinishedError, cut_off_words, evaluate, wilson_interval
from ppo_cli.faults import NonFiniteError
from ppo_cli.networks.mlp import MLP
from ppo_cli.signals import StopRequest
from ppo_cli.train_state import TrainState
from ppo_cli.types import Obs, Step
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


class MaskedEnv(CountingEnv):
    """Allows action 1 alone, and refuses any other, in environments that nobody watches too."""

    def observe(self, age: Tensor) -> Obs:  # type: ignore[override]
        legal = torch.tensor([[False, True]]).expand(self.num_envs, 2)
        return {"obs": super().observe(age), "legal": legal}

    def step(self, action: Tensor) -> Step:
        assert (action == 1).all(), "an illegal action"
        return super().step(action)


class UnevenEnv(MaskedEnv):
    """Environment n ends after n + 1 steps."""

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        self.length = 100
        return step._replace(terminated=self.age == torch.arange(self.num_envs) + 1)


def masked_learner(env: VecEnv) -> TrainState:
    return learner(env, network=MLP(env.single_observation_space, env.single_action_space, hidden=(8,)))


def test_environments_whose_episode_has_ended_are_stepped_on_by_legal_actions() -> None:
    env = UnevenEnv(4, length=100, autoreset="same_step", ends_by="termination")
    state = masked_learner(env)
    result = evaluate(state.actor_critic, state.obs_normalizer, env, list(range(4)), mode="greedy")
    assert result.episode_length.tolist() == [1, 2, 3, 4]


def test_an_episode_without_an_end_is_cut_off_and_said_to_be() -> None:
    env = CountingEnv(3, length=10**9, autoreset="same_step", ends_by="termination")
    state = learner(env, network=EchoNetwork())
    result = evaluate(state.actor_critic, state.obs_normalizer, env, [1, 2, 3, 4], mode="greedy", longest=50)
    assert result.episode_length.tolist() == [50] * 4
    assert result.episode_return.tolist() == [sum(range(51))] * 4
    summary = result.summary()
    assert summary[CUT_OFF] == 1
    assert "100 % of the evaluation's episodes had no end after 100,000 steps" in cut_off_words(summary)


def test_an_episode_that_ends_in_its_last_step_is_not_cut_off() -> None:
    env = CountingEnv(2, length=50, autoreset="same_step", ends_by="termination")
    state = learner(env, network=EchoNetwork())
    result = evaluate(state.actor_critic, state.obs_normalizer, env, [1, 2], mode="greedy", longest=50)
    assert CUT_OFF not in result.summary()


def test_an_evaluation_ends_soon_after_it_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    env = CountingEnv(2, length=10**9, autoreset="same_step", ends_by="termination")
    state, stop = learner(env, network=EchoNetwork()), StopRequest()
    stop.signal_number = 15
    monkeypatch.setattr("ppo_cli.evaluate.PATIENCE", 0.2)
    started = time.monotonic()
    with pytest.raises(UnfinishedError):
        evaluate(state.actor_critic, state.obs_normalizer, env, [1, 2], mode="greedy", stop=stop)
    assert 0.2 <= time.monotonic() - started < 2
    env.length = 3
    result = evaluate(state.actor_critic, state.obs_normalizer, env, [1, 2], mode="greedy", stop=stop)
    assert result.episode_length.tolist() == [3, 3], "a short one is finished: the run goes on with all its figures"


@pytest.mark.parametrize("gift", ["a reward", "an observation"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_an_environment_that_gives_nan_is_named_with_its_step_and_seed(gift: str, number: float) -> None:
    class Sick(CountingEnv):
        def step(self, action: Tensor) -> Step:
            step = super().step(action)
            if self.age[0] == 4:
                values = step.reward if gift == "a reward" else step.obs
                assert isinstance(values, Tensor)
                values[1] = number
            return step

    env = Sick(2, length=9, autoreset="same_step", ends_by="termination")
    state = learner(env, network=EchoNetwork())
    step = 4 if gift == "a reward" else 5  # an observation is looked at when it is acted on
    words = f"environment 1 gave {gift} of {number} in step {step} of the episode of seed 8"
    with pytest.raises(NonFiniteError, match=words):
        evaluate(state.actor_critic, state.obs_normalizer, env, [7, 8], mode="greedy")


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
