"""The same run on both paths: plain torch, and the fused kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from ppo_cli.accelerate import Accelerator
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.distributions import Categorical
from ppo_cli.envs.base import VecEnv
from ppo_cli.envs.cartpole import CartPole
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.envs.probes import ActionObservationProbe, ActionProbe, ContinuousActionProbe, TruncationProbe
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.fused.collector import FusedCollector
from ppo_cli.fused.mlp import PPOOnMLP
from ppo_cli.fused.weights import MLPWeights
from ppo_cli.fused.workers import Workers
from ppo_cli.networks.mlp import MLP
from ppo_cli.normalize import ObsNormalizer, RewardNormalizer
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from ppo_cli.types import Rollout

GAMMA = 0.98
SHORT = {"max_episode_steps": 30}
"""So that episodes of a beginner are truncated as well as terminated."""

ENVS: dict[str, Callable[[int], VecEnv]] = {
    "cartpole": lambda n: CartPole(n, max_steps=30),
    "gymnasium": lambda n: GymnasiumVecEnv(n, "CartPole-v1", SHORT, vectorization="sync", autoreset="same_step"),
    "next_step": lambda n: GymnasiumVecEnv(n, "CartPole-v1", SHORT, vectorization="sync", autoreset="next_step"),
    "native": lambda n: GymnasiumVecEnv(n, "CartPole-v1", vectorization="native"),
    "pendulum": lambda n: GymnasiumVecEnv(n, "Pendulum-v1", SHORT, vectorization="sync"),
    "action": ActionProbe,
    "observation": ActionObservationProbe,
    "truncation": TruncationProbe,
    "truncation, next_step": lambda n: TruncationProbe(n, autoreset="next_step"),
    "continuous": ContinuousActionProbe,
    "continuous, next_step": lambda n: ContinuousActionProbe(n, autoreset="next_step"),
}


@dataclass
class Run:
    """What learns, without a folder."""

    state: TrainState
    collector: Collector
    algorithm: Algorithm

    def learn(self, updates: int) -> tuple[Rollout, Mapping[str, Tensor | float]]:
        """The rollout and the metrics of the last of so many updates."""
        for _ in range(updates):
            self.state.begin_update()
            rollout = self.collector.collect()
            metrics = self.algorithm.update(self.state, rollout)
            self.state.end_update(rollout.reward.numel(), metrics.get("losses/kl"))
        return rollout, metrics

    @property
    def weights(self) -> Tensor:
        """A copy of all of them, [P]."""
        return torch.cat([parameter.detach().flatten() for parameter in self.state.actor_critic.parameters()])


def make_run(
    path: str,
    env: VecEnv,
    *,
    rollout_length: int = 32,
    network: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
    algorithm: Algorithm | None = None,
    normalize: bool = False,
    num_threads: int = 1,
    seed: int = 1,
    schedule: str = "constant",
    total_env_steps: int = 10_000,
    **ppo: Any,
) -> Run:
    """A run on the path ``eager`` or ``fused``; ``ppo`` are PPO's settings."""
    torch.manual_seed(seed)
    module = MLP(env.single_observation_space, env.single_action_space, **{"hidden": (32, 32)} | (network or {}))
    options: dict[str, Any] = {"lr": 1e-3, "eps": 1e-5, "weight_decay": 0.0} | (optimizer or {})
    adam = torch.optim.AdamW(module.parameters(), **options, fused=True)
    state = TrainState(
        actor_critic=module,
        optimizer=adam,
        accelerator=Accelerator(torch.device("cpu")),
        obs_normalizer=ObsNormalizer(tuple(env.single_observation_space.shape or ()), enabled=normalize),
        reward_normalizer=RewardNormalizer(env.num_envs, gamma=GAMMA, enabled=normalize),
        total_env_steps=total_env_steps,
        learning_rate=options["lr"],
        learning_rate_schedule=schedule,  # type: ignore[arg-type]
        kl_adaptive_target=0.01,
        seed=seed,
    )
    algorithm = algorithm or PPO(**{"gamma": GAMMA} | ppo)
    if path == "eager":
        return Run(state, Collector(env, state, rollout_length, EpisodeWindow()), algorithm)
    weights, workers = MLPWeights(module), Workers(num_threads)
    collector = FusedCollector(env, state, rollout_length, EpisodeWindow(), weights, workers)
    if isinstance(algorithm, PPO):
        return Run(state, collector, PPOOnMLP(algorithm, weights, adam, workers))
    return Run(state, collector, algorithm)


def assert_same_rollout(ours: Rollout, reference: Rollout, *, tolerance: float, exact: bool) -> None:
    """Flags and discrete actions always agree; where ``exact``, so does all that the environment made of them."""
    names = ["terminated", "truncated", "valid"]
    names += ["action"] if isinstance(reference.policy, Categorical) else []
    names += ["obs", "reward"] if exact else []
    for name in names:
        assert_close(getattr(ours, name), getattr(reference, name), rtol=0, atol=0)
    near = {"rtol": tolerance, "atol": tolerance}
    for name in ("obs", "action", "reward", "log_prob", "value", "next_value"):
        assert_close(getattr(ours, name), getattr(reference, name), **near)
    assert type(ours.policy) is type(reference.policy)
    for name in ("log_probs", "mean", "log_std"):
        if hasattr(reference.policy, name):
            assert_close(getattr(ours.policy, name), getattr(reference.policy, name), **near)


def assert_same_metrics(ours: Mapping[str, Tensor | float], reference: Mapping[str, Tensor]) -> None:
    """The same tags in the same order, the same figures as far as float32 can tell."""
    assert list(ours) == list(reference)
    for tag, value in reference.items():
        assert isinstance(ours[tag], float), tag
        found = torch.tensor(ours[tag])
        assert_close(found, value, rtol=5e-4, atol=1e-6, equal_nan=True, msg=lambda text, tag=tag: f"{tag}: {text}")


def assert_same_learning(ours: Run, reference: Run, *, atol: float = 2e-5) -> None:
    """Weights, moments and episodes. Four updates at a learning rate of 1e-3 move weights by up to 0.06."""
    assert_close(ours.weights, reference.weights, rtol=0, atol=atol)
    for name, value in reference.state.obs_normalizer.moments.state_dict().items():
        assert_close(ours.state.obs_normalizer.moments.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    for name, value in reference.state.reward_normalizer.state_dict().items():
        assert_close(ours.state.reward_normalizer.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    episodes, expected = ours.collector.episodes.state_dict(), reference.collector.episodes.state_dict()
    assert episodes["count"] == expected["count"]
    assert list(episodes["values"]) == list(expected["values"])
    for tag, value in expected["values"].items():
        assert_close(episodes["values"][tag], value, rtol=1e-4, atol=1e-5)
