from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.algorithms.ppo_kl import PPOKL
from ppo_cli.algorithms.trpo import TRPO
from ppo_cli.algorithms.vpg import VPG
from ppo_cli.envs import probes
from ppo_cli.envs.base import Autoreset
from ppo_cli.envs.probes import Probe
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from tests.helpers import learner

GAMMA = 0.8


PROXIMAL = PPO(gamma=GAMMA, gae_lambda=0.9, num_epochs=4, num_minibatches=4, entropy_coef=0.0)
PENALIZED = PPOKL(gamma=GAMMA, gae_lambda=0.9, num_epochs=4, num_minibatches=4, entropy_coef=0.0)

TRUSTED = TRPO(gamma=GAMMA, gae_lambda=0.9, max_kl=0.03, critic_epochs=4)


def trained(
    env: Probe, num_updates: int, *, learning_rate: float = 3e-3, algorithm: Algorithm = PROXIMAL
) -> TrainState:
    state = learner(env, learning_rate=learning_rate, gamma=GAMMA)
    collector = Collector(env, state, 16, EpisodeWindow())
    state.learning_rate_schedule, state.total_env_steps = "linear", num_updates * 16 * env.num_envs
    for _ in range(num_updates):
        state.begin_update()
        metrics = algorithm.update(state, collector.collect())
        state.end_update(16 * env.num_envs, metrics["losses/kl"])
    return state


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize(
    ("name", "num_updates"),
    [
        ("ConstantValueProbe", 20),
        ("ObservationValueProbe", 30),
        ("DiscountProbe", 40),
        ("TruncationProbe", 120),
        ("ActionProbe", 40),
        ("ActionObservationProbe", 40),
        ("IllegalActionProbe", 40),
        ("SeveralChoicesProbe", 40),
    ],
)
def test_the_known_values_and_actions_of_a_probe_are_learned(name: str, num_updates: int, autoreset: Autoreset) -> None:
    env: Probe = getattr(probes, name)(16, autoreset=autoreset, poison=True)
    state = trained(env, num_updates)
    obs, expected = env.known_values(GAMMA)
    with torch.no_grad():
        value = state.actor_critic(obs)[1]
    assert_close(value, expected, atol=0.15, rtol=0.05)
    if name.startswith(("Action", "Illegal", "Several")):
        obs, action = env.known_actions()
        assert torch.equal(state.actor_critic(obs)[0].mode(), action)


def test_a_continuous_action_moves_to_its_target() -> None:
    env = probes.ContinuousActionProbe(16)
    state = trained(env, 150, learning_rate=1e-2)
    obs, action = env.known_actions()
    with torch.no_grad():
        policy, _ = state.actor_critic(obs)
    assert_close(policy.mode(), action.unsqueeze(-1) if action.dim() == 1 else action, atol=0.1, rtol=0)
    assert policy.log_std.max().item() < -0.3


@pytest.mark.parametrize(
    ("algorithm", "num_updates", "learning_rate"),
    [
        (VPG(gamma=GAMMA), 150, 1e-2),
        (VPG(gamma=GAMMA, baseline="none"), 150, 1e-2),
        (A2C(gamma=GAMMA, entropy_coef=0.0), 150, 1e-2),
        (A2C(gamma=GAMMA, gae_lambda=1.0, entropy_coef=0.0), 150, 1e-2),
        (TRUSTED, 50, 1e-2),
        (PENALIZED, 40, 5e-3),
    ],
    ids=["vpg", "vpg without baseline", "a2c", "a2c with n-step returns", "trpo", "ppo_kl"],
)
@pytest.mark.parametrize(
    "name",
    ["DiscountProbe", "TruncationProbe", "ActionObservationProbe", "IllegalActionProbe", "SeveralChoicesProbe"],
)
def test_every_rung_of_the_ladder_learns_the_known_values_and_actions(
    algorithm: Algorithm, num_updates: int, learning_rate: float, name: str
) -> None:
    env: Probe = getattr(probes, name)(16, autoreset="next_step", poison=True)
    state = trained(env, num_updates, learning_rate=learning_rate, algorithm=algorithm)
    obs, expected = env.known_values(GAMMA)
    with torch.no_grad():
        value = state.actor_critic(obs)[1]
    assert_close(value, expected, atol=0.15, rtol=0.05)
    if name.startswith(("Action", "Illegal", "Several")):
        obs, action = env.known_actions()
        assert torch.equal(state.actor_critic(obs)[0].mode(), action)


def test_a_trust_region_finds_a_continuous_action() -> None:
    env = probes.ContinuousActionProbe(16)
    state = trained(env, 80, learning_rate=1e-2, algorithm=TRUSTED)
    obs, action = env.known_actions()
    with torch.no_grad():
        policy, _ = state.actor_critic(obs)
    assert_close(policy.mode(), action, atol=0.15, rtol=0)
