"""Claim: a run on the fused kernels is the run that plain torch makes of the same seed."""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo import EARLY_STOP_FACTOR
from ppo_cli.algorithms.ppo_kl import PPOKL
from ppo_cli.algorithms.trpo import TRPO
from ppo_cli.algorithms.vpg import VPG
from ppo_cli.distributions import Categorical
from ppo_cli.envs.probes import DiscountProbe, TruncationProbe
from ppo_cli.faults import NonFiniteError
from ppo_cli.fused.mlp import MAX_SLICED, MAX_SLICES, PPOOnMLP, num_slices
from ppo_cli.fused.workers import PROBE_EVERY, PROBES, Workers, useful_threads
from ppo_cli.kernels.mlp import Network, tile_for
from ppo_cli.kernels.report import COUNT, K3
from tests.fused.helpers import ENVS, Run, assert_same_learning, assert_same_metrics, assert_same_rollout, make_run

CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{f"env {env}": (env, 4, {}) for env in ENVS},
    **{
        f"normalized {env}": (env, 4, {"normalize": True}) for env in ("cartpole", "gymnasium", "next_step", "pendulum")
    },
    "relu": ("cartpole", 4, {"network": {"activation": "relu"}}),
    "shared": ("cartpole", 4, {"network": {"shared": True}}),
    "shared relu": ("pendulum", 4, {"network": {"shared": True, "activation": "relu"}}),
    "one layer": ("gymnasium", 4, {"network": {"hidden": (64,)}}),
    "three odd layers": ("cartpole", 4, {"network": {"hidden": (33, 17, 5)}}),
    "widening layers": ("pendulum", 4, {"network": {"hidden": (3, 19)}}),
    "one env": ("cartpole", 1, {"normalize": True}),
    "seven envs": ("cartpole", 7, {}),
    "seven envs, gymnasium": ("gymnasium", 7, {"normalize": True}),
    "many envs": ("cartpole", 64, {}),
    "many envs, normalized": ("cartpole", 64, {"normalize": True}),
    "many envs, next_step": ("native", 64, {}),
    "clip_value": ("cartpole", 4, {"clip_value": 0.1}),
    "clip_value, gaussian": ("pendulum", 4, {"clip_value": 0.3, "normalize": True}),
    "narrow clip": ("cartpole", 4, {"clip": 0.02}),
    "narrow clip, gaussian": ("pendulum", 4, {"clip": 0.02}),
    "annealed": (
        "cartpole",
        4,
        {
            "clip_schedule": "linear",
            "entropy_schedule": "linear",
            "schedule": "linear",
            "entropy_coef": 0.1,
            "total_env_steps": 600,
        },
    ),
    "kl_adaptive": ("cartpole", 4, {"schedule": "kl_adaptive"}),
    "weight decay": ("cartpole", 4, {"optimizer": {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}}),
    "weight decay, gaussian": ("pendulum", 4, {"optimizer": {"weight_decay": 0.1}}),
    "not standardized": ("cartpole", 4, {"standardize_advantage": False}),
    "not standardized, dead rows": ("next_step", 4, {"standardize_advantage": False}),
    "tight gradient norm": ("cartpole", 4, {"max_grad_norm": 0.01}),
    "free gradient norm": ("pendulum", 4, {"max_grad_norm": 1e9}),
    "no bonus, no critic": ("cartpole", 4, {"entropy_coef": 0.0, "value_coef": 0.0}),
    "minibatches that do not divide": ("cartpole", 4, {"rollout_length": 33, "num_minibatches": 7}),
    "fewer minibatches than asked for": ("cartpole", 1, {"rollout_length": 9, "num_minibatches": 6}),
    "minibatches of two": ("next_step", 4, {"num_minibatches": 64, "num_epochs": 1}),
    "one minibatch": ("gymnasium", 7, {"num_minibatches": 1, "num_epochs": 10}),
    "several slices": ("cartpole", 64, {"num_minibatches": 2, "rollout_length": 17}),
    "a step a rollout": ("cartpole", 64, {"rollout_length": 1}),
    "lambda 0": ("cartpole", 4, {"gae_lambda": 0.0}),
}
"""Environment, number of environments, and what differs from the defaults."""


@pytest.mark.parametrize("case", CASES)
def test_rollouts_metrics_weights_and_episodes_are_those_of_plain_torch(case: str) -> None:
    env, num_envs, settings = CASES[case]
    reference, ours = (make_run(path, ENVS[env](num_envs), **settings) for path in ("eager", "fused"))
    for update in range(4):
        expected, expected_metrics = reference.learn(1)
        rollout, metrics = ours.learn(1)
        exact = isinstance(expected.policy, Categorical) and not settings.get("normalize")
        assert_same_rollout(rollout, expected, tolerance=1e-6 if update == 0 else 3e-4, exact=exact)
        assert_same_metrics(metrics, expected_metrics)
        assert ours.state.current_learning_rate == reference.state.current_learning_rate
    assert_same_learning(ours, reference)
    assert (ours.weights - make_run("eager", ENVS[env](num_envs), **settings).weights).abs().max() > 1e-3


def test_the_cases_contain_what_they_are_for() -> None:
    """Dead rows, truncations and terminations, clipped ratios: an equality says nothing about what never happens."""
    rollout, _ = make_run("eager", ENVS["next_step"](4)).learn(1)
    assert not rollout.valid.all()
    assert rollout.terminated.any()
    assert make_run("eager", ENVS["cartpole"](4), clip=0.02).learn(1)[1]["losses/clipfrac"] > 0.1
    assert make_run("eager", ENVS["cartpole"](64)).learn(2)[0].truncated.any()
    assert make_run("eager", ENVS["pendulum"](4)).learn(1)[0].truncated.any()


class Recorded(PPOOnMLP):
    """Keeps the KL (k3) of each minibatch that was looked at."""

    kl: np.ndarray

    def metrics(self, report: np.ndarray, *rest: Any) -> dict[str, Tensor]:
        seen = report[~np.isnan(report[:, COUNT])]
        self.kl = seen[:, K3] / seen[:, COUNT]
        return super().metrics(report, *rest)


@pytest.mark.parametrize(
    ("env", "target_kl"),
    [
        ("cartpole", 1e-5),
        ("cartpole", 3e-4),
        ("cartpole", 1e-2),
        ("pendulum", 1e-5),
        ("pendulum", 3e-4),
        ("next_step", 1e-5),
        ("next_step", 3e-5),
    ],
)
def test_an_update_stops_at_the_same_minibatch(env: str, target_kl: float) -> None:
    reference, ours = (make_run(path, ENVS[env](4), target_kl=target_kl) for path in ("eager", "fused"))
    assert isinstance(ours.algorithm, PPOOnMLP)
    ours.algorithm.__class__ = Recorded
    stopped = 0
    for _ in range(4):
        _, expected = reference.learn(1)
        _, metrics = ours.learn(1)
        margin = np.abs(ours.algorithm.kl / (EARLY_STOP_FACTOR * target_kl) - 1).min()  # type: ignore[attr-defined]
        assert margin > 1e-2, "a comparison on the edge of rounding proves nothing: choose another target_kl"
        assert_same_metrics(metrics, expected)
        stopped += metrics["charts/gradient_steps"] < 16
    assert (stopped > 0) == (target_kl < 1e-2)
    assert_same_learning(ours, reference)


def test_an_update_that_stops_before_its_first_step_has_no_gradient_norm() -> None:
    reference, ours = (make_run(path, ENVS["cartpole"](4), target_kl=1e-4) for path in ("eager", "fused"))
    before = ours.weights
    for run in (reference, ours):
        rollout = run.collector.collect()
        rollout.log_prob.sub_(1.0)  # the policy that acted was another one
        metrics = run.algorithm.update(run.state, rollout)
        assert metrics["charts/gradient_steps"] == 0
        assert math.isnan(metrics["losses/grad_norm"])
    assert torch.equal(ours.weights, before)


ALGORITHMS: dict[str, Algorithm] = {
    "a2c": A2C(),
    "vpg": VPG(),
    "trpo": TRPO(),
    "ppo_kl": PPOKL(),
}


@pytest.mark.parametrize("env", ["cartpole", "pendulum", "next_step"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_from_the_fused_collector_as_from_the_other(name: str, env: str) -> None:
    reference, ours = (make_run(path, ENVS[env](4), algorithm=ALGORITHMS[name]) for path in ("eager", "fused"))
    for _ in range(3):
        expected, expected_metrics = reference.learn(1)
        rollout, metrics = ours.learn(1)
        assert_same_rollout(rollout, expected, tolerance=3e-4, exact=isinstance(expected.policy, Categorical))
        assert list(metrics) == list(expected_metrics)
    assert_same_learning(ours, reference, atol=1e-4)


def made_network() -> Network:
    """The one of the runs below."""
    algorithm = make_run("fused", ENVS["cartpole"](1)).algorithm
    assert isinstance(algorithm, PPOOnMLP)
    return algorithm.network


def without_probing(run: Run) -> Run:
    """Always on all its threads."""
    for part in (run.collector, run.algorithm):
        part.workers.run_timed = part.workers.run  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize(
    ("env", "num_envs", "normalize"),
    [("cartpole", 64, False), ("cartpole", 64, True), ("cartpole", 9, False), ("native", 64, False)],
)
def test_the_number_of_threads_changes_no_bit(env: str, num_envs: int, normalize: bool) -> None:
    settings = {"rollout_length": 64, "normalize": normalize, "target_kl": 1.0, "num_minibatches": 3}
    runs = [
        without_probing(make_run("fused", ENVS[env](num_envs), num_threads=threads, **settings))
        for threads in (1, 2, 3)
    ]
    results = [run.learn(3) for run in runs]
    for run, (rollout, metrics) in zip(runs[1:], results[1:], strict=True):
        assert torch.equal(run.weights, runs[0].weights)
        assert torch.equal(rollout.value, results[0][0].value)
        assert torch.equal(rollout.next_value, results[0][0].next_value)
        assert torch.equal(rollout.action, results[0][0].action)
        assert metrics == results[0][1]


def test_a_minibatch_of_the_test_above_is_cut_into_slices() -> None:
    network = made_network()
    assert network.tile == 256
    assert num_slices(network, 64 * 64 // 3) == 2  # of the actor's samples, and of the critic's
    assert num_slices(network._replace(is_shared=True), 64 * 64 // 3) == 5
    assert num_slices(network._replace(is_shared=True), 255) == 1
    assert num_slices(network, 10**6) == MAX_SLICES
    assert num_slices(network._replace(parameters=np.zeros(MAX_SLICED // 3, np.float32)), 10**6) == 3


def test_wide_layers_take_fewer_samples_at_a_time() -> None:
    assert [tile_for(width) for width in (1, 64, 65, 128, 256, 1024)] == [256, 256, 128, 128, 64, 64]


def test_the_number_of_threads_follows_the_clock_and_changes_no_bit() -> None:
    one, two = (make_run("fused", ENVS["cartpole"](16), num_threads=threads) for threads in (1, 2))
    workers = two.algorithm.workers  # type: ignore[attr-defined]
    used = []
    for _ in range(2 * PROBES + 1):
        one.learn(1)
        two.learn(1)
        used.append(workers.active)
    assert used[:PROBES] == [2] * PROBES and set(used) <= {1, 2}
    assert torch.equal(one.weights, two.weights)


def test_workers_keep_the_faster_number_of_threads_until_the_next_look() -> None:
    workers = Workers(2)
    slow, waits = 2, threading.Event()

    def work(thread: int, num_threads: int) -> int:
        waits.wait(0.02 if num_threads == slow else 0.0)
        return num_threads

    workers.run_timed(work)
    used = [workers.run_timed(work) for _ in range(2 * PROBES + 2)]
    assert used == [2] * PROBES + [1] * PROBES + [1, 1]
    while workers.calls:
        assert workers.run_timed(work) == 1
    slow = 1
    workers.seconds = {1: [], 2: []}
    # a single thread that takes so much longer is not asked a second time
    assert [workers.run_timed(work) for _ in range(PROBES + 3)] == [2] * PROBES + [1, 2, 2]


def test_a_second_thread_that_is_late_now_and_then_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], itertools.count()
    monkeypatch.setattr("ppo_cli.fused.workers.time.perf_counter", lambda: now[0])
    workers = Workers(2)

    def work(thread: int, num_threads: int) -> int:
        if thread == 0:
            now[0] += 1.8 if num_threads == 1 else 8.0 if next(calls) % 10 == 9 else 1.2  # at best, far faster
        return num_threads

    for _ in range(2):
        workers.run_timed(work)
    while workers.calls:
        workers.run_timed(work)
    used = [workers.run_timed(work) for _ in range(PROBE_EVERY)]
    assert used == [2] * PROBES + [1] * (PROBE_EVERY - PROBES)


def test_threads_that_gain_little_by_each_other_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ppo_cli.fused.workers.time.perf_counter", lambda: now[0])
    workers = Workers(2)

    def work(thread: int, num_threads: int) -> int:
        now[0] += (1.0 if num_threads == 1 else 0.95) if thread == 0 else 0.0
        return num_threads

    workers.run_timed(work)
    used = [workers.run_timed(work) for _ in range(2 * PROBES + 2)]
    assert used == [2] * PROBES + [1] * PROBES + [1, 1]


def test_an_error_in_any_thread_reaches_the_caller() -> None:
    def work(thread: int, num_threads: int) -> None:
        if thread == num_threads - 1:
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        Workers(3).run(work)


def test_threads_are_as_many_as_the_work_is_worth_and_there_are() -> None:
    assert useful_threads(1_000, 64, 8) == 1
    assert useful_threads(10_000, 128, 8) == 5
    assert useful_threads(10_000, 4096, 8) == 8
    assert useful_threads(10, 1, 0) == 1


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"standardize_advantage": False}, {"value_coef": 0.0}, {"clip_value": 0.1}])
@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_stops_both_paths_with_good_weights(
    reward: float, settings: dict[str, Any], num_threads: int
) -> None:
    messages = []
    for path in ("eager", "fused"):
        run = make_run(path, ENVS["cartpole"](64), num_threads=num_threads, num_minibatches=2, **settings)
        rollout = run.collector.collect()
        rollout.reward[3, 1] = reward
        with pytest.raises(NonFiniteError) as caught:
            run.algorithm.update(run.state, rollout)
        messages.append(str(caught.value))
        assert run.weights.isfinite().all()
        run.learn(1)
        assert run.weights.isfinite().all()
    assert [message.partition("norm is ")[0] for message in messages] == ["the gradient's "] * 2
    assert "in gradient step 1 of update 1, the loss" in messages[1]
    assert "normalize_reward=true" in messages[1]
    if math.isnan(reward):
        assert messages[0] == messages[1]


@pytest.mark.parametrize("normalize", [False, True])
def test_an_observation_that_is_not_finite_stops_both_paths(normalize: bool) -> None:
    for path in ("eager", "fused"):
        run = make_run(path, ENVS["continuous"](4), normalize=normalize)
        run.learn(1)
        assert isinstance(run.collector.raw_obs, Tensor)
        run.collector.raw_obs[2] = math.nan
        with pytest.raises(NonFiniteError):
            run.learn(1)
        assert run.weights.isfinite().all()


@pytest.mark.parametrize("env_class", [DiscountProbe, TruncationProbe])
def test_poison_on_dead_steps_changes_no_bit_of_the_weights_or_the_statistics(
    env_class: type[DiscountProbe | TruncationProbe],
) -> None:
    clean, poisoned = (
        make_run("fused", env_class(8, autoreset="next_step", poison=poison), normalize=True)
        for poison in (False, True)
    )
    assert not clean.learn(4)[0].valid.all()
    poisoned.learn(4)
    assert torch.equal(clean.weights, poisoned.weights)
    for name, value in clean.state.obs_normalizer.moments.state_dict().items():
        assert torch.equal(value, poisoned.state.obs_normalizer.moments.state_dict()[name])
    assert torch.equal(clean.state.reward_normalizer.moments.mean, poisoned.state.reward_normalizer.moments.mean)


def test_a_fused_run_repeats_itself_bit_for_bit_and_follows_its_seed() -> None:
    def weights(seed: int) -> Tensor:
        run = make_run("fused", ENVS["cartpole"](4), normalize=True, seed=seed)
        run.learn(3)
        return run.weights

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_module_reads_the_weights_that_the_kernels_move() -> None:
    run = make_run("fused", ENVS["cartpole"](4))
    run.learn(2)
    assert isinstance(run.algorithm, PPOOnMLP)
    flat = torch.from_numpy(run.algorithm.network.parameters)  # the critic's last, the module's in another order
    assert torch.equal(run.weights.sort().values, flat.sort().values)
