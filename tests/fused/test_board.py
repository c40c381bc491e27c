"""Claim: PPO on a board network in kernels is the PPO that autograd does with the same convolutions.

The reference is `ppo_cli.algorithms.ppo` on a network whose heads stay in float32: the features of both are the same
bits, so that what is left are other orders of sums.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ppo_cli.accelerate import Accelerator
from ppo_cli.advantages import gae
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.faults import GRADIENT_STEPS, Faults, NonFiniteError
from ppo_cli.fused.board import SLICE, PPOOnBoards
from ppo_cli.fused.board_collector import BoardCollector
from ppo_cli.fused.board_weights import BoardWeights, Room
from ppo_cli.networks.board import Board
from ppo_cli.normalize import ObsNormalizer, RewardNormalizer
from ppo_cli.parallel import Threads
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from ppo_cli.types import Distribution, Obs, training_batch
from tests.fused.helpers import Run, assert_same_rollout

NETWORKS: dict[str, dict[str, Any]] = {
    "symmetric": {},
    "plain": {"symmetric": False},
    "one layer": {"num_layers": 1},
    "residual": {"residual": True, "num_layers": 5},
    "maxima": {"pooling": "mean_max"},
    "maxima, plain": {"pooling": "mean_max", "symmetric": False},
    "channels that fill no vector": {"channels": 40},
    "more of them, plain": {"channels": 50, "symmetric": False, "pooling": "mean_max"},
}


class ExactHeads(Board):
    """Convolutions in bfloat16 by the kernels, all else in float32."""

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        with torch.autocast("cpu", enabled=False):
            return super().forward(obs)

    def read(self, board: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            scores, total, cells = super().read(board, weight)
        return scores, total, cells.float()


def made(
    path: str,
    *,
    network: dict[str, Any] | None = None,
    size: tuple[int, int] = (5, 7),
    num_envs: int = 12,
    rollout_length: int = 9,
    num_threads: int = 1,
    faults: Faults | None = None,
    optimizer: dict[str, Any] | None = None,
    **ppo: Any,
) -> Run:
    """A run whose weights have moved away from the ones it began with; its path is ``eager`` or ``fused``."""
    torch.manual_seed(1)
    env = MinesweeperVecEnv(num_envs, height=size[0], width=size[1], mines=5)
    kind = ExactHeads if path == "eager" else Board
    settings = {"channels": 32, "num_layers": 3} | (network or {})
    module = kind(env.single_observation_space, env.single_action_space, **settings)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    options = {"lr": 1e-3, "eps": 1e-5, "weight_decay": 0.0} | (optimizer or {})
    adam = torch.optim.AdamW(module.parameters(), **options, fused=True)
    threads = Threads(num_threads)
    state = TrainState(
        actor_critic=module,
        optimizer=adam,
        accelerator=Accelerator(torch.device("cpu"), "bfloat16", threads=threads),
        obs_normalizer=ObsNormalizer((), enabled=False),
        reward_normalizer=RewardNormalizer(num_envs, gamma=1.0, enabled=False),
        total_env_steps=10_000,
        learning_rate=options["lr"],
        learning_rate_schedule="constant",
        kl_adaptive_target=0.01,
        seed=1,
        faults=faults or Faults(),
    )
    algorithm = PPO(**{"gamma": 0.9, "num_minibatches": 2, "num_epochs": 2} | ppo)
    if path == "eager":
        return Run(state, Collector(env, state, rollout_length, EpisodeWindow()), algorithm)
    weights = BoardWeights(module)
    rooms = [Room(weights, size) for _ in range(num_threads)]
    collector = BoardCollector(env, state, rollout_length, EpisodeWindow(), weights, rooms)
    return Run(state, collector, PPOOnBoards(algorithm, weights, adam, threads, rooms))


def learner_of(run: Run) -> PPOOnBoards:
    assert isinstance(run.algorithm, PPOOnBoards)
    return run.algorithm


@pytest.mark.parametrize("network", NETWORKS)
def test_a_rollout_is_the_librarys(network: str) -> None:
    reference, ours = (made(path, network=NETWORKS[network]) for path in ("eager", "fused"))
    for _ in range(2):
        assert_same_rollout(ours.collector.collect(), reference.collector.collect(), tolerance=2e-5, exact=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_gradient_is_autograds(network: str) -> None:
    """Of a whole batch, after the weights were moved: ratios are not 1, and some are clipped."""
    settings = {"num_epochs": 1, "num_minibatches": 1, "clip": 0.002, "clip_value": 0.1, "entropy_coef": 0.1}
    ours, reference = (made(path, network=NETWORKS[network], **settings) for path in ("fused", "eager"))
    rollouts = [run.collector.collect() for run in (ours, reference)]
    for run in (ours, reference):
        torch.manual_seed(2)
        with torch.no_grad():
            for parameter in run.state.actor_critic.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    ppo = reference.algorithm
    assert isinstance(ppo, PPO)
    batch = training_batch(rollouts[1], gae(rollouts[1], gamma=ppo.gamma, gae_lambda=ppo.gae_lambda))
    state, learner = reference.state, learner_of(ours)
    loss, expected = state.evaluate(ppo.loss, batch, state.scalar(ppo.clip), state.scalar(ppo.entropy_coef))
    gradients = torch.autograd.grad(loss, list(state.actor_critic.parameters()))
    metrics = learner.update(ours.state, rollouts[0])
    assert 0.1 < expected["losses/clipfrac"] < 0.99
    for tag, value in expected.items():
        assert metrics[tag] == pytest.approx(value.item(), rel=2e-4, abs=1e-6), tag
    scale = max(gradient.abs().max().item() for gradient in gradients)
    found = [learner.weights.view(learner.gradient[0], p) for p in ours.state.actor_critic.parameters()]
    for gradient, reference_gradient in zip(found, gradients, strict=True):
        assert_close(gradient, reference_gradient, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": {"symmetric": False, "pooling": "mean_max"}},
        {"clip_value": 0.1, "entropy_coef": 0.1, "max_grad_norm": 0.05},
        {"standardize_advantage": False, "value_coef": 0.1},
        {"num_minibatches": 5, "num_epochs": 1},
        {"num_envs": 40, "rollout_length": 7, "num_minibatches": 1},
        {"optimizer": {"weight_decay": 0.1, "betas": (0.8, 0.95)}},
    ],
    ids=str,
)
def test_updates_are_the_reference_ones(settings: dict[str, Any]) -> None:
    """Rounding turns a last bit of a weight into one of a feature now and then, and Adam enlarges small gradients."""
    reference, ours = (made(path, **settings) for path in ("eager", "fused"))
    before = ours.weights
    (_, expected), (_, metrics) = reference.learn(2), ours.learn(2)
    assert list(metrics) == list(expected)
    for tag, value in expected.items():
        assert metrics[tag] == pytest.approx(float(value), rel=0.02, abs=1e-4, nan_ok=True), tag
    moved, apart = ours.weights - before, ours.weights - reference.weights
    assert apart.norm() < 0.1 * moved.norm()
    assert ours.state.minibatch_generator.get_state().equal(reference.state.minibatch_generator.get_state())


def test_the_number_of_threads_changes_nothing() -> None:
    runs = [made("fused", num_threads=threads, num_envs=64, num_minibatches=2) for threads in (1, 2, 3)]
    assert 64 * 9 // 2 // SLICE > 2, "several slices of each minibatch"
    for run in runs:
        run.learn(2)
    assert torch.equal(runs[0].weights, runs[1].weights)
    assert torch.equal(runs[0].weights, runs[2].weights)


def test_an_update_that_goes_too_far_stops_before_its_step() -> None:
    first = made("fused", num_epochs=1)
    _, metrics = first.learn(1)
    assert metrics["charts/gradient_steps"] == 2
    stopped = made("fused", num_epochs=1, target_kl=1e-9)
    rollout, metrics = stopped.learn(1)
    assert metrics["charts/gradient_steps"] == 1, "the first minibatch finds the policy that acted"
    assert metrics["losses/approx_kl"] > 0
    assert rollout.valid.all()


@pytest.mark.parametrize("max_skipped", [0, 1])
def test_a_gradient_that_is_not_a_number_is_refused_or_left_out(max_skipped: int) -> None:
    run = made("fused", faults=Faults(max_skipped), num_epochs=1)
    before, rollout = run.weights, run.collector.collect()
    rollout.value[0, 2] = math.nan  # and with it one advantage, in one of the two minibatches
    if max_skipped:
        assert run.algorithm.update(run.state, rollout)["charts/gradient_steps"] == 1
        assert run.state.faults.counts[GRADIENT_STEPS] == 1
        assert not torch.equal(run.weights, before)
    else:
        with pytest.raises(NonFiniteError, match=r"gradient step [12] of update 1"):
            run.algorithm.update(run.state, rollout)
    assert run.weights.isfinite().all()


def test_a_run_goes_on_from_the_state_of_another() -> None:
    first = made("fused")
    first.learn(1)
    saved, collector = copy.deepcopy(first.state.state_dict()), copy.deepcopy(first.collector.state_dict())
    assert {int(entry["step"]) for entry in saved["optimizer"]["state"].values()} == {4}
    second = made("fused")
    second.state.load_state_dict(saved)
    assert second.collector.load_state_dict(collector, resumes=1) is None
    for run in (first, second):
        run.learn(1)
    assert torch.equal(first.weights, second.weights)


def test_large_batches_of_values_are_cut_into_groups() -> None:
    run = made("fused", num_threads=2)
    collector = run.collector
    assert isinstance(collector, BoardCollector)
    rollout = collector.collect()
    obs = {key: value.flatten(0, 1) for key, value in rollout.obs.items()}  # type: ignore[union-attr]
    assert torch.equal(collector.value_of(obs), rollout.value.flatten())
