from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli.algorithms.ppo import PPO
from ppo_cli.distributions import Categorical
from ppo_cli.envs.base import EVALUATION, Autoreset, env_seeds
from ppo_cli.envs.minesweeper.env import Backend, MinesweeperVecEnv
from ppo_cli.envs.probes import DiscountProbe, TruncationProbe
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.networks.board import Board
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from ppo_cli.types import Distribution, Obs, Rollout, Step
from tests.helpers import HostWaits, learner


class CountingEnv:
    """Observation = 100 n + steps so far in this episode; ends after ``length`` steps; reward = the step's number."""

    single_observation_space: spaces.Space[Any] = spaces.Box(0, 1e6, (1,))
    single_action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self, num_envs: int, *, length: int, autoreset: Autoreset, ends_by: str) -> None:
        self.num_envs = num_envs
        self.autoreset = autoreset
        self.length = length
        self.ends_by = ends_by
        self.age = torch.zeros(num_envs)
        self.restart = False

    def observe(self, age: Tensor) -> Tensor:
        return (100.0 * torch.arange(self.num_envs) + age)[:, None]

    def reset(self, seeds: Sequence[int]) -> Obs:
        self.age.zero_()
        return self.observe(self.age)

    def step(self, action: Tensor) -> Step:
        no = torch.zeros(self.num_envs, dtype=torch.bool)
        if self.restart:
            self.restart = False
            self.age = torch.zeros(self.num_envs)
            return Step(self.observe(self.age), torch.full((self.num_envs,), 1e9), no, no, self.observe(self.age))
        self.age = self.age + 1
        reward, done = self.age.clone(), self.age == self.length
        final_obs = self.observe(self.age)
        obs = final_obs
        if done.all():
            if self.autoreset == "same_step":
                self.age = torch.zeros(self.num_envs)
                obs = self.observe(self.age)
            else:
                self.restart = True
        terminated, truncated = (done, no) if self.ends_by == "termination" else (no, done)
        return Step(obs, reward, terminated, truncated, final_obs)

    def episode_metrics(self) -> dict[str, Tensor]:
        return {"task/age": self.age.clone()}

    def close(self) -> None:
        return None


class SeedKeeper(CountingEnv):
    """Remembers what it was seeded with."""

    def reset(self, seeds: Sequence[int]) -> Obs:
        self.seeds = list(seeds)
        return super().reset(seeds)


class EchoNetwork(nn.Module):
    """V(s) is the observation itself, so that every value says which state it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        assert isinstance(obs, Tensor)
        return Categorical.from_logits(obs.new_zeros(len(obs), 2) + self.weight), obs[:, 0]


def collected(autoreset: Autoreset, ends_by: str, num_steps: int = 7) -> tuple[Rollout, EpisodeWindow]:
    env = CountingEnv(2, length=3, autoreset=autoreset, ends_by=ends_by)
    episodes = EpisodeWindow()
    collector = Collector(env, learner(env, network=EchoNetwork()), num_steps, episodes)
    return collector.collect(), episodes


def test_truncation_bootstraps_from_the_true_successor_under_same_step() -> None:
    rollout, _ = collected("same_step", "truncation")
    assert rollout.value[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert rollout.next_value[:, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]  # 3 is the final observation, not the reset 0
    assert rollout.next_value[:, 1].tolist() == [101, 102, 103, 101, 102, 103, 101]
    assert rollout.valid.all()


def test_truncation_bootstraps_from_the_true_successor_under_next_step() -> None:
    rollout, _ = collected("next_step", "truncation", num_steps=8)
    assert rollout.value[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert rollout.next_value[:3, 0].tolist() == [1, 2, 3]
    assert rollout.valid[:, 0].tolist() == [True, True, True, False, True, True, True, False]
    assert rollout.truncated[:, 0].tolist() == [False, False, True, False, False, False, True, False]


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_a_terminated_state_has_no_successor(autoreset: Autoreset) -> None:
    rollout, _ = collected(autoreset, "termination")
    assert rollout.next_value[2].tolist() == [0, 0]


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_episode_figures_leave_dead_steps_out(autoreset: Autoreset) -> None:
    _, episodes = collected(autoreset, "truncation", num_steps=8)
    metrics = episodes.metrics()
    assert metrics["charts/episodes"] == 4
    assert metrics["charts/episodic_return"] == 1 + 2 + 3
    assert metrics["charts/episodic_length"] == 3


@pytest.mark.parametrize(("ends_by", "share"), [("truncation", 1.0), ("termination", 0.0)])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_the_share_of_episodes_that_a_time_limit_ended_is_told(
    autoreset: Autoreset, ends_by: str, share: float
) -> None:
    _, episodes = collected(autoreset, ends_by, num_steps=8)
    assert episodes.metrics()["charts/truncated_share"] == share


def test_an_episode_goes_on_across_rollouts() -> None:
    env = CountingEnv(2, length=5, autoreset="next_step", ends_by="truncation")
    episodes = EpisodeWindow()
    collector = Collector(env, learner(env, network=EchoNetwork()), 5, episodes)
    first = collector.collect()
    assert first.truncated[4].all()
    second = collector.collect()
    assert second.valid[:, 0].tolist() == [False, True, True, True, True]  # the dead step opens the second rollout
    assert second.next_value[-1, 0].item() == 4
    assert episodes.metrics()["charts/episodic_return"] == 15


def trained(*, poison: bool, env_class: type[DiscountProbe | TruncationProbe]) -> TrainState:
    env = env_class(8, autoreset="next_step", poison=poison)
    state = learner(env, normalize_obs=True, normalize_reward=True)
    collector = Collector(env, state, 16, EpisodeWindow())
    for _ in range(4):
        PPO().update(state, collector.collect())
    return state


@pytest.mark.parametrize("env_class", [DiscountProbe, TruncationProbe])
def test_poison_on_dead_steps_changes_no_bit_of_the_weights_or_the_statistics(
    env_class: type[DiscountProbe | TruncationProbe],
) -> None:
    clean, poisoned = trained(poison=False, env_class=env_class), trained(poison=True, env_class=env_class)
    assert clean.obs_normalizer.moments.count.item() > 0
    for ours, theirs in zip(clean.actor_critic.parameters(), poisoned.actor_critic.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in clean.obs_normalizer.moments.state_dict().items():
        assert torch.equal(value, poisoned.obs_normalizer.moments.state_dict()[name])
    assert torch.equal(clean.reward_normalizer.moments.mean, poisoned.reward_normalizer.moments.mean)


def test_the_stored_log_probability_is_that_of_the_stored_action_under_the_stored_policy() -> None:
    env = DiscountProbe(4)
    rollout = Collector(env, learner(env), 6, EpisodeWindow()).collect()
    assert_close(rollout.log_prob, rollout.policy.log_prob(rollout.action))


def test_two_collectors_with_one_seed_collect_the_same_and_with_two_seeds_do_not() -> None:
    def first_actions(seed: int) -> list[int]:
        env = DiscountProbe(4)
        return list(Collector(env, learner(env, seed=seed), 16, EpisodeWindow()).collect().action.flatten().tolist())

    assert first_actions(1) == first_actions(1)
    assert first_actions(1) != first_actions(2)


def minesweeper_collector(backend: Backend, rollout_length: int, device: str = "cpu") -> Collector:
    env = MinesweeperVecEnv(8, backend=backend, device=device)
    torch.manual_seed(1)
    network = Board(env.single_observation_space, env.single_action_space, channels=8, num_layers=2)
    return Collector(env, learner(env, network=network, device=device), rollout_length, EpisodeWindow())


def test_the_torch_backend_collects_the_rollouts_of_the_compiled_one() -> None:
    collectors = [minesweeper_collector(backend, 24) for backend in ("numba", "torch")]
    for _ in range(2):
        ours, theirs = (collector.collect() for collector in collectors)
        for name in ("action", "log_prob", "value", "next_value", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    left, right = (collector.episodes.metrics() for collector in collectors)
    assert left["charts/episodes"] > 10
    assert left == right


def test_the_steps_of_a_rollout_on_a_device_never_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, where there is no value to read. It has no generators: the noise is made up, once."""
    monkeypatch.setattr("ppo_cli.train_state.Generator", lambda device="cpu": torch.Generator())
    monkeypatch.setattr(
        Categorical, "noise", lambda self, length, generator: torch.ones(length, *self.log_probs.shape, device="meta")
    )
    collector = minesweeper_collector("torch", 5, device="meta")
    with HostWaits() as waits, torch.no_grad():
        for t in range(5):
            collector.record(t, collector.env.step(collector.act(t)))
    assert waits.found == []
    assert collector.storage is not None
    assert collector.storage.reward.device.type == "meta"


def test_a_whole_rollout_waits_as_often_however_long_it_is() -> None:
    waits_of = {}
    for rollout_length in (4, 16):
        collector = minesweeper_collector("torch", rollout_length)
        with HostWaits() as waits:
            collector.collect()
        waits_of[rollout_length] = waits.found
    assert waits_of[4] == waits_of[16]
    assert 0 < len(waits_of[4]) <= 5  # return, length, two figures of the episodes that ended; is all of it finite?


def test_an_environment_that_may_truncate_is_watched_at_every_step() -> None:
    env = CountingEnv(2, length=3, autoreset="same_step", ends_by="truncation")
    collector = Collector(env, learner(env, network=EchoNetwork()), 6, EpisodeWindow())
    with HostWaits() as waits:
        collector.collect()
    assert sum("_local_scalar_dense" in wait for wait in waits.found) >= 6


def test_episodes_are_reported_in_the_order_they_ended_each_with_its_own_figures() -> None:
    class TwoClocks(CountingEnv):
        """The second environment's episodes last two steps, the first one's three."""

        def step(self, action: Tensor) -> Step:
            self.age = self.age + 1
            ended_with, done = self.age.clone(), self.age == torch.tensor([3.0, 2.0])
            self.ended_with = ended_with
            self.age = torch.where(done, 0.0, self.age)
            return Step(self.observe(self.age), ended_with, done, torch.zeros_like(done), self.observe(ended_with))

        def episode_metrics(self) -> dict[str, Tensor]:
            return {"task/age": self.ended_with}

    env = TwoClocks(2, length=0, autoreset="same_step", ends_by="termination")
    episodes = EpisodeWindow()
    Collector(env, learner(env, network=EchoNetwork()), 6, episodes).collect()
    values = episodes.state_dict()["values"]
    assert values["charts/episodic_length"].tolist() == [2, 3, 2, 3, 2]
    assert values["charts/episodic_return"].tolist() == [3, 6, 3, 6, 3]
    assert values["task/age"].tolist() == [2, 3, 2, 3, 2]


def test_episodes_of_training_of_evaluation_and_of_each_resume_have_seeds_of_their_own() -> None:
    env = SeedKeeper(3, length=5, autoreset="same_step", ends_by="termination")
    state = learner(env)
    collector = Collector(env, state, 4, EpisodeWindow())
    drawn = [*env.seeds, *env_seeds(state.seed, 1000, EVALUATION)]
    saved = collector.state_dict()
    for resumes in range(1, 6):
        assert collector.load_state_dict(saved, resumes=resumes) is not None, "fresh episodes start"
        drawn += env.seeds
    assert len(set(drawn)) == len(drawn)


def test_fresh_episodes_have_been_paid_nothing() -> None:
    env = CountingEnv(2, length=5, autoreset="same_step", ends_by="termination")
    state = learner(env, normalize_reward=True)
    collector = Collector(env, state, 3, EpisodeWindow())
    collector.collect()
    saved, normalizer = collector.state_dict(), state.reward_normalizer.state_dict()
    assert (state.reward_normalizer.discounted_return > 0).all()
    state.reward_normalizer.load_state_dict(normalizer)
    collector.load_state_dict(saved, resumes=1)
    assert (state.reward_normalizer.discounted_return == 0).all()
