"""An update on a GPU waits for no value; tried on the CPU, where the same operations run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ppo_cli.accelerate import send
from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.algorithms.ppo_kl import PPOKL
from ppo_cli.algorithms.vpg import VPG
from ppo_cli.distributions import Categorical
from ppo_cli.faults import GRADIENT_STEPS, Faults, NonFiniteError
from ppo_cli.train_state import TrainState
from tests.fused.helpers import ENVS, Run, make_run
from tests.helpers import HostWaits
from tests.test_faults import Spiky
from tests.test_rollout import minesweeper_collector

ALGORITHMS: list[Algorithm] = [PPO(num_minibatches=3), PPOKL(kl_coef_schedule="fixed"), A2C(), VPG()]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps are taken as on a GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "looks_later", True)
        yield


def minesweeper(algorithm: Algorithm) -> Run:
    collector = minesweeper_collector("torch", 16)
    state = collector.state
    state.optimizer = torch.optim.AdamW(state.actor_critic.parameters(), lr=1e-3, fused=True)
    return Run(state, collector, algorithm)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
@pytest.mark.parametrize("env", ["cartpole", "pendulum", "minesweeper"])
def test_an_update_waits_for_no_value_before_its_end(env: str, algorithm: Algorithm) -> None:
    run = minesweeper(algorithm) if env == "minesweeper" else make_run("eager", ENVS[env](4), algorithm=algorithm)
    rollout = run.collector.collect()
    before = run.weights
    run.state.begin_update()
    with HostWaits() as waits:
        metrics = algorithm.update(run.state, rollout)
    assert waits.found == []
    assert len(run.state.unread) == run.state.gradient_steps > 0
    run.state.end_update(rollout.reward.numel(), metrics.get("losses/kl"))
    assert run.state.unread == []
    assert not torch.equal(run.weights, before)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_all_of_an_update_happens_on_the_device(algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, where there is no value to read, and nothing mixes with tensors from elsewhere."""
    monkeypatch.setattr("ppo_cli.train_state.Generator", lambda device="cpu": torch.Generator())
    monkeypatch.setattr(
        Categorical, "noise", lambda self, length, generator: torch.ones(length, *self.log_probs.shape, device="meta")
    )
    collector = minesweeper_collector("torch", 5, device="meta")
    with torch.no_grad():
        for t in range(5):
            collector.record(t, collector.env.step(collector.act(t)))
    rollout, state = collector.storage, collector.state
    assert rollout is not None
    state.optimizer = torch.optim.SGD(state.actor_critic.parameters(), lr=1e-3)
    monkeypatch.setattr(TrainState, "step_unless", lambda self, is_bad: self.optimizer.step())  # Adam's is not for meta
    with HostWaits() as waits:
        metrics = algorithm.update(state, rollout)
    assert waits.found == []
    assert {figure.device.type for figure in metrics.values()} == {"meta"}
    assert {outcome.device.type for outcome in state.unread} == {"meta"}


def test_an_early_stop_looks_at_each_minibatch() -> None:
    run = minesweeper(PPO(num_minibatches=3, target_kl=0.01))
    rollout = run.collector.collect()
    with HostWaits() as waits:
        run.algorithm.update(run.state, rollout)
    assert waits.found


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_the_steps_and_what_is_left_out_of_them_are_the_same(algorithm: Algorithm, gpu: None) -> None:
    later = make_run("eager", Spiky(), algorithm=algorithm)
    later.state.faults = Faults(max_skipped=100)
    later.learn(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "looks_later", False)
        at_once = make_run("eager", Spiky(), algorithm=algorithm)
        at_once.state.faults = Faults(max_skipped=100)
        at_once.learn(3)
    assert at_once.state.faults.counts[GRADIENT_STEPS] > 0
    assert later.state.faults.counts == at_once.state.faults.counts
    assert torch.equal(later.weights, at_once.weights)
    moments = [run.state.optimizer.state_dict()["state"] for run in (later, at_once)]
    for ours, theirs in zip(*(state.values() for state in moments), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.usefixtures("gpu")
def test_a_bad_gradient_ends_the_run_at_the_end_of_the_update_by_the_same_words() -> None:
    run = make_run("eager", Spiky(), algorithm=PPO(num_minibatches=16, num_epochs=2))
    with pytest.raises(NonFiniteError, match=r"norm is \S+ in gradient step \d+ of update 1, .*the step was not taken"):
        run.learn(1)
    assert run.state.updates == 0
    assert run.state.unread == []
    assert run.weights.isfinite().all()


def test_what_is_sent_to_a_device_is_not_waited_for() -> None:
    with HostWaits() as waits:
        assert send(torch.arange(3), torch.device("meta")).device.type == "meta"
        torch.arange(3).to("meta")
    assert len(waits.found) == 1, "the second, which was not sent"


def test_a_gpu_whose_optimizer_cannot_leave_out_a_step_is_waited_for() -> None:
    run = make_run("eager", Spiky())
    assert not run.state.looks_later, "on a CPU"
    for optimizer, later in ((torch.optim.AdamW, True), (torch.optim.RMSprop, False)):
        state = make_run("eager", Spiky()).state
        options = {"fused": True} if later else {}
        state.optimizer = optimizer(state.actor_critic.parameters(), **options)
        object.__setattr__(state.accelerator, "device", torch.device("cuda"))
        assert state.looks_later is later
