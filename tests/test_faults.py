"""What a fault leaves in a rollout and in an update: nothing. By both ways to compute them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from ppo_cli.advantages import gae, monte_carlo
from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo_kl import PPOKL
from ppo_cli.algorithms.trpo import TRPO
from ppo_cli.algorithms.vpg import VPG
from ppo_cli.envs.base import Fault
from ppo_cli.envs.gymnasium_adapter import MOST_STARTS, GymnasiumVecEnv
from ppo_cli.envs.supervised import fresh_seeds
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.evaluate import evaluate
from ppo_cli.faults import GRADIENT_STEPS, RESTARTS, TRANSITIONS, Faults, NonFiniteError
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from ppo_cli.types import Rollout, Step
from tests.envs.faulty import VICTIM, register
from tests.fused.helpers import assert_same_learning, assert_same_metrics, make_run
from tests.helpers import learner

LENGTH, EPISODE = 8, 5


class Fragile:
    """Two environments that show their clocks, pay 1 a step, and end after `EPISODE` steps; the second fails at once.

    A failed step pays what must not be seen. ``fails`` lists the steps, counted from 0 over the whole run.
    """

    autoreset = "same_step"
    may_fail = True
    num_envs = 2
    single_observation_space = spaces.Box(-100, 100, (1,))
    single_action_space = spaces.Discrete(2)

    def __init__(self, fails: Sequence[int]) -> None:
        self.fails = fails
        self.clock, self.steps = torch.zeros(2), -1
        self.found: list[Fault] = []

    def reset(self, seeds: Sequence[int]) -> Tensor:
        self.clock.zero_()
        return self.clock.clone()[:, None]

    def step(self, action: Tensor) -> Step:
        self.steps += 1
        self.clock += 1
        final_obs, terminated = self.clock.clone()[:, None], self.clock == EPISODE
        if self.steps in self.fails:
            self.found.append(Fault([1], "restart", "environment 1: lost"))
            self.clock[1], terminated[1] = 0, False
        self.clock[terminated] = 0
        reward = torch.tensor([1.0, 0.0 if self.steps in self.fails else 1.0])
        return Step(self.clock.clone()[:, None], reward, terminated, torch.zeros(2, dtype=torch.bool), final_obs)

    def faults(self) -> list[Fault]:
        found, self.found = self.found, []
        return found

    def episode_metrics(self) -> dict[str, Tensor]:
        return {}

    def close(self) -> None:
        pass


def collect(fails: Sequence[int], rollouts: int = 1, **settings: Any) -> tuple[Rollout, Collector]:
    env = Fragile(fails)
    state = learner(env, **settings)  # type: ignore[arg-type]
    collector = Collector(env, state, LENGTH, EpisodeWindow())  # type: ignore[arg-type]
    for _ in range(rollouts):
        rollout = collector.collect()
    return rollout, collector


def test_the_lost_step_is_masked_and_its_episode_cut_before_it() -> None:
    rollout, collector = collect([3])
    assert rollout.valid[:, 0].all()
    assert rollout.valid[:, 1].tolist() == [True, True, True, False, True, True, True, True]
    assert rollout.truncated[:, 1].tolist() == [False, False, True, True, False, False, False, False]
    assert rollout.obs[:, 1, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert torch.equal(rollout.next_value[2, 1], rollout.value[3, 1]), "of what the lost step began with"
    assert collector.state.faults.counts == {RESTARTS: 1}


@pytest.mark.parametrize("estimate", [lambda r: gae(r, gamma=0.9, gae_lambda=0.8), lambda r: monte_carlo(r, gamma=0.9)])
def test_what_came_before_is_estimated_as_if_the_episode_had_been_truncated_there(estimate: Any) -> None:
    rollout, _ = collect([3])
    estimated = estimate(rollout)[:, 1]
    shorter = Rollout(**{name: getattr(rollout, name) for name in rollout.__dataclass_fields__})
    before = estimate(cut(shorter, 0, 3))[:, 1]
    after = estimate(cut(shorter, 4, 8))[:, 1]
    assert torch.equal(estimated[:3], before)
    assert torch.equal(estimated[4:], after)


def cut(rollout: Rollout, first: int, end: int) -> Rollout:
    """Rows of a rollout as one of their own."""
    tensors = {
        name: getattr(rollout, name)[first:end]
        for name in ("value", "next_value", "reward", "terminated", "truncated", "valid", "log_prob", "action", "obs")
    }
    return Rollout(**tensors, policy=rollout.policy)


def test_a_lost_episode_is_no_finished_episode_and_the_next_one_counts_from_its_start() -> None:
    _, collector = collect([3], rollouts=2)
    metrics = collector.episodes.metrics()
    assert metrics["charts/episodic_return"] == EPISODE
    assert metrics["charts/episodic_length"] == EPISODE
    assert metrics["charts/episodes"] == 3 + 2  # after 16 steps: at 5, 10 and 15; at 9 and 14


def test_a_loss_in_the_first_step_of_a_rollout_cuts_nothing_of_this_one() -> None:
    rollout, _ = collect([8], rollouts=2)
    assert rollout.valid[:, 1].tolist() == [False] + [True] * 7
    assert rollout.truncated[:, 1].tolist() == [True] + [False] * 7


def test_reward_scale_learns_nothing_from_a_lost_step_and_starts_anew_after_it() -> None:
    _, collector = collect([3], normalize_reward=True, gamma=1.0)
    moments = collector.state.reward_normalizer.moments
    sums = torch.tensor([1, 2, 3, 4, 5, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4], dtype=torch.float64)
    assert moments.count == 15
    torch.testing.assert_close(moments.mean, sums.mean())


def failing(what: str, **settings: Any) -> GymnasiumVecEnv:
    return GymnasiumVecEnv(3, register(), {"what": what} | settings.pop("kwargs", {}), "sync", **settings)


@pytest.mark.parametrize("what", ["nan reward", "nan observation"])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_an_environment_that_gives_nan_loses_its_step_and_begins_anew(what: str, autoreset: str) -> None:
    env = failing(what, autoreset=autoreset, skip_nonfinite=True)
    env.reset([20, VICTIM, 23])
    action = torch.zeros(3, dtype=torch.int64)
    for _ in range(3):
        env.step(action)
    assert env.faults() == []
    step = env.step(action)
    gift = what.split()[1]
    assert env.faults() == [
        Fault([1], "nonfinite", f"environment 1 gave {'an' if gift == 'observation' else 'a'} {gift} of nan")
    ]
    assert step.obs[:, 0].tolist() == step.final_obs[:, 0].tolist() == [4, 0, 4]
    assert step.reward.tolist() == [1, 0, 1]
    assert env.step(action).obs[:, 0].tolist() == [5, 1, 5]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_that_begins_with_nan_begins_again(vectorization: str) -> None:
    env = GymnasiumVecEnv(3, register(), {"what": "nan at reset"}, vectorization, num_workers=2, skip_nonfinite=True)
    try:
        assert env.reset([20, VICTIM, 23]).tolist() == [[0, 0]] * 3
        assert env.faults() == [Fault([1], "nonfinite", "environment 1 began with NaN or infinity")]
        assert env.step(torch.zeros(3, dtype=torch.int64)).obs[:, 0].tolist() == [1, 1, 1]
    finally:
        env.close()


def test_an_environment_that_always_begins_with_nan_is_left_to_who_looks_at_it() -> None:
    env = failing("always nan at reset", skip_nonfinite=True)
    assert env.reset([20, VICTIM, 23]).isnan().all(dim=1).tolist() == [True] * 3
    assert len(env.faults()) == 3 * MOST_STARTS
    env = failing("always nan at reset")
    assert env.reset([20, VICTIM, 23]).isnan().any()
    assert env.faults() == []


def assert_two_whole_episodes_and_one_fault(env: Fragile, state: TrainState) -> None:
    """An evaluation counts a whole episode of either environment, and hears once of the second one's fault."""
    heard: list[Fault] = []
    played = evaluate(
        state.actor_critic,
        state.obs_normalizer,
        env,
        [1, 2],
        mode="greedy",
        on_fault=heard.append,  # type: ignore[arg-type]
    )
    assert played.episode_length.tolist() == played.episode_return.tolist() == [EPISODE, EPISODE]
    assert [fault.envs for fault in heard] == [[1]]


def test_what_goes_wrong_while_episodes_begin_costs_no_step_and_no_figure_of_them() -> None:
    env = Fragile([])
    env.found = [Fault([1], "restart", "environment 1: lost while idle")]
    state = learner(env)  # type: ignore[arg-type]
    collector = Collector(env, state, LENGTH, EpisodeWindow())  # type: ignore[arg-type]
    assert collector.collect().valid.all()
    assert collector.episodes.metrics()["charts/episodic_return"] == EPISODE
    assert state.faults.counts == {RESTARTS: 1}
    env.found = [Fault([1], "restart", "environment 1: lost while idle")]
    assert_two_whole_episodes_and_one_fault(env, state)


def test_nan_on_which_an_episode_terminates_is_never_looked_at_but_a_truncated_one_needs_it() -> None:
    for truncates, expected in ((False, 0), (True, 1)):
        env = failing("nan observation", skip_nonfinite=True, kwargs={"at": 10, "truncates": truncates})
        env.reset([20, VICTIM, 23])
        for _ in range(10):
            env.step(torch.zeros(3, dtype=torch.int64))
        assert len(env.faults()) == expected


def test_faults_stop_at_the_limit_and_say_each_kind_once() -> None:
    said: list[str] = []
    faults = Faults(max_skipped=2, warn=said.append)
    assert faults.counts == {TRANSITIONS: 0, GRADIENT_STEPS: 0}
    for tag in (TRANSITIONS, GRADIENT_STEPS):
        faults.skip(tag, NonFiniteError("it is NaN"))
    with pytest.raises(NonFiniteError, match=r"^it is NaN \(max_skipped=2 were passed over before\)$"):
        faults.skip(TRANSITIONS, NonFiniteError("it is NaN"))
    assert said == [f"passed over, and {tag} counts how often: it is NaN" for tag in (TRANSITIONS, GRADIENT_STEPS)]
    with pytest.raises(NonFiniteError, match=r"^it is NaN$"):
        Faults().skip(TRANSITIONS, NonFiniteError("it is NaN"))


class Spiky(Fragile):
    """Pays so much once that the norm of the value's gradient is no float32 any more."""

    may_fail = False

    def __init__(self) -> None:
        super().__init__([])

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        if self.steps == 13:
            step.reward[1] = 1e30
        return step


@pytest.mark.parametrize("num_threads", [1, 2])
def test_both_paths_leave_out_the_same_gradient_steps_and_nothing_of_them_is_left(num_threads: int) -> None:
    settings: dict[str, Any] = {"num_minibatches": 16, "num_epochs": 2}
    eager = make_run("eager", Spiky(), **settings)  # type: ignore[arg-type]
    fused = make_run("fused", Spiky(), num_threads=num_threads, **settings)  # type: ignore[arg-type]
    for run in (eager, fused):
        run.state.faults = Faults(max_skipped=32)
    for update in range(3):
        ours, theirs = fused.learn(1)[1], eager.learn(1)[1]
        if update == 0:  # the variance of these targets is no float32 either
            del ours["losses/explained_variance"], theirs["losses/explained_variance"]
        assert_same_metrics(ours, theirs)
        assert math.isfinite(theirs["losses/value_loss"]) and math.isfinite(theirs["losses/grad_norm"])
        assert_same_learning(fused, eager)
        skipped = eager.state.faults.counts[GRADIENT_STEPS]
        assert 0 < skipped < 16, "some, and only in the first update"
        assert fused.state.faults.counts[GRADIENT_STEPS] == skipped
        assert theirs["charts/gradient_steps"] == (32 - skipped if update == 0 else 32)


@pytest.mark.parametrize("path", ["eager", "fused"])
def test_an_update_of_which_every_step_is_left_out_changes_nothing_and_has_no_figures(path: str) -> None:
    run = make_run(path, Spiky(), num_minibatches=1, num_epochs=3)  # type: ignore[arg-type]
    run.state.faults = Faults(max_skipped=3)
    before = run.weights
    _, metrics = run.learn(1)
    assert torch.equal(run.weights, before)
    assert math.isnan(metrics.get("losses/policy_loss", math.nan))
    assert metrics["charts/gradient_steps"] == 0
    assert run.state.faults.counts[GRADIENT_STEPS] == 3
    run.learn(1)
    assert not torch.equal(run.weights, before)


@pytest.mark.parametrize(("algorithm", "stays"), [(A2C(), True), (VPG(), True), (PPOKL(), False), (TRPO(), False)])
def test_every_algorithm_can_leave_out_a_step(algorithm: Algorithm, stays: bool) -> None:
    run = make_run("eager", Spiky(), algorithm=algorithm)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match="the step was not taken"):
        run.learn(1)
    run = make_run("eager", Spiky(), algorithm=algorithm)  # type: ignore[arg-type]
    run.state.faults = Faults(max_skipped=100)
    before = run.weights
    run.learn(1)
    assert run.state.faults.counts[GRADIENT_STEPS] > 0
    assert run.weights.isfinite().all()
    assert torch.equal(run.weights, before) or not stays
    run.learn(1)
    assert not torch.equal(run.weights, before)


def test_an_episode_that_is_lost_in_an_evaluation_is_played_anew() -> None:
    env = Fragile([3])
    assert_two_whole_episodes_and_one_fault(env, learner(env))  # type: ignore[arg-type]
    assert env.steps == 3 + EPISODE


class Relapsing(gym.Env[Any, Any]):
    """Observations are random numbers; every fifth reward of an episode is NaN."""

    observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.normal(size=1).astype(np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        obs = self.np_random.normal(size=1).astype(np.float32)
        return obs, 1.0 if self.count % 5 else np.nan, False, False, {}


def test_a_run_that_goes_on_begins_the_fresh_episodes_that_it_would_have_begun() -> None:
    gym.register("test/Relapsing-v0", entry_point=Relapsing, disable_env_checker=True)
    try:

        def relapsing() -> GymnasiumVecEnv:
            env = GymnasiumVecEnv(2, "test/Relapsing-v0", {}, "sync", skip_nonfinite=True)
            env.reset([7, 8])
            return env

        def play(env: GymnasiumVecEnv) -> list[float]:
            steps = [env.step(torch.zeros(2, dtype=torch.int64)) for _ in range(12)]
            return torch.stack([step.obs for step in steps]).flatten().tolist()  # type: ignore[arg-type]

        straight, resumed = relapsing(), relapsing()
        before = play(straight)
        resumed.load_state_dict(straight.state_dict())
        after = play(straight)
        assert play(resumed) == after
        assert not set(before) & set(after), "no episode is played twice"
    finally:
        del gym.registry["test/Relapsing-v0"]


def test_a_restarted_worker_and_a_bad_step_begin_different_episodes() -> None:
    after_nan, drawn = GymnasiumVecEnv(2, register(), {}, "sync", skip_nonfinite=True), []
    after_nan.reset([7, 8])
    after_nan._restarted(torch.tensor([True, False]))
    drawn += after_nan._seeds
    for restarts in range(1, 50):
        drawn += fresh_seeds([7, 8], restarts)
    assert len(set(drawn)) == len(drawn)
