"""Checkpoints know nothing of flat vectors: they go from one path to the other, and a run continues bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ppo_cli import checkpoint
from ppo_cli.accelerate import Execution
from ppo_cli.fused.mlp import PPOOnMLP
from ppo_cli.fused.weights import FlatMoments, MLPWeights
from ppo_cli.logger import RunLogger
from ppo_cli.trainer import CHECKPOINT_FOLDER, Intervals, Trainer, restore
from tests.fused.helpers import ENVS, Run, assert_same_learning, make_run

BATCH = 4 * 32


def trainer(
    run_dir: Path, path: str, updates: int, *, env: str = "cartpole", start: int = 0, **settings: Any
) -> Trainer:
    run = make_run(path, ENVS[env](4), total_env_steps=1000, **settings)
    run.state.total_env_steps = updates * BATCH
    logger = RunLogger(
        run_dir, total_env_steps=updates * BATCH, config={"seed": 1}, start_env_steps=start, display="silent"
    )
    execution = Execution(path, settings.get("num_threads", 1))  # type: ignore[arg-type]
    return Trainer(run.state, run.algorithm, run.collector, logger, run_dir, Intervals(), execution=execution)


def saved(run_dir: Path) -> dict[str, Any]:
    return checkpoint.load_newest(run_dir / CHECKPOINT_FOLDER)[0]


def resumed(run_dir: Path, path: str, updates: int, **settings: Any) -> tuple[Trainer, list[str]]:
    content = saved(run_dir)
    made = trainer(run_dir, path, updates, start=content["state"]["env_steps"], **settings)
    reasons = restore(content, made.state, made.collector, made.execution)
    made.take_up(content)
    return made, reasons


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two checkpoints differ in any bit."""
    if isinstance(ours, Tensor):
        return [] if torch.equal(ours, theirs) and ours.dtype == theirs.dtype else [where]
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        return [found for key in ours for found in differences(ours[key], theirs[key], f"{where}/{key}")]
    if isinstance(ours, list | tuple):
        return [
            found
            for n, pair in enumerate(zip(ours, theirs, strict=True))
            for found in differences(*pair, f"{where}/{n}")
        ]
    return [] if ours == theirs else [where]


@pytest.mark.parametrize(
    "settings",
    [{}, {"normalize": True, "schedule": "kl_adaptive"}, {"target_kl": 3e-4}, {"num_threads": 2}],
    ids=["plain", "normalized", "early stops", "two threads"],
)
def test_a_resumed_run_equals_the_uninterrupted_one_in_every_bit_it_saves(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer(tmp_path / "straight", "fused", 8, **settings).run()
    trainer(tmp_path / "resumed", "fused", 3, **settings).run()
    second, reasons = resumed(tmp_path / "resumed", "fused", 8, **settings)
    assert reasons == []
    second.run()
    assert second.state.updates == 8
    assert differences(saved(tmp_path / "resumed"), saved(tmp_path / "straight")) == ["/resumes"]


def test_another_number_of_threads_is_no_reason_and_changes_no_bit(tmp_path: Path) -> None:
    trainer(tmp_path / "straight", "fused", 4).run()
    trainer(tmp_path / "resumed", "fused", 2).run()
    second, reasons = resumed(tmp_path / "resumed", "fused", 4, num_threads=2)
    assert reasons == []
    second.run()
    assert differences(saved(tmp_path / "resumed"), saved(tmp_path / "straight")) == ["/resumes", "/num_threads"]


@pytest.mark.parametrize(("first", "second"), [("fused", "eager"), ("eager", "fused")])
@pytest.mark.parametrize("settings", [{}, {"env": "pendulum"}, {"normalize": True, "target_kl": 3e-4}])
def test_a_run_goes_on_upon_the_other_path_which_it_calls_approximate(
    tmp_path: Path, first: str, second: str, settings: dict[str, Any]
) -> None:
    trainer(tmp_path / "reference", "eager", 2, **settings).run()
    reference, _ = resumed(tmp_path / "reference", "eager", 4, **settings)
    reference.run()
    trainer(tmp_path / "run", first, 2, **settings).run()
    other, reasons = resumed(tmp_path / "run", second, 4, **settings)
    assert reasons[-1] == f"it ran with accelerate={first}, this runs with {second}"
    other.run()
    runs = [Run(each.state, each.collector, each.algorithm) for each in (other, reference)]
    assert_same_learning(*runs)


def test_the_optimizers_state_is_what_plain_torch_would_have() -> None:
    ours, reference = (make_run(path, ENVS["pendulum"](4)) for path in ("fused", "eager"))
    for run in (ours, reference):
        run.learn(2)
    mine, theirs = ours.state.optimizer.state_dict(), reference.state.optimizer.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()
    for number, expected in theirs["state"].items():
        assert mine["state"][number].keys() == expected.keys()
        assert mine["state"][number]["step"] == expected["step"] == 2 * 4 * 4
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(mine["state"][number][name], expected[name], rtol=1e-2, atol=1e-5)
            assert mine["state"][number][name].shape == expected[name].shape


def test_loading_keeps_weights_and_moments_in_the_flat_vectors() -> None:
    source, target = make_run("fused", ENVS["cartpole"](4)), make_run("fused", ENVS["cartpole"](4), seed=2)
    source.learn(2)
    target.learn(1)
    target.state.load_state_dict(source.state.state_dict())
    assert isinstance(source.algorithm, PPOOnMLP) and isinstance(target.algorithm, PPOOnMLP)
    for ours, theirs in (
        (target.algorithm.network.parameters, source.algorithm.network.parameters),
        (target.algorithm.moments.first, source.algorithm.moments.first),
        (target.algorithm.moments.second, source.algorithm.moments.second),
    ):
        assert (ours == theirs).all() and ours.any()
    assert target.algorithm.moments.steps_taken == 32
    parameter = next(iter(target.state.actor_critic.parameters()))
    target.algorithm.network.parameters.fill(7.0)
    target.algorithm.moments.first.fill(8.0)
    assert (parameter == 7.0).all()
    assert (target.state.optimizer.state[parameter]["exp_avg"] == 8.0).all()
    assert not (source.weights == 7.0).any()


def test_moments_of_an_optimizer_that_has_stepped_are_taken_over() -> None:
    run = make_run("eager", ENVS["cartpole"](4))
    run.learn(2)
    optimizer = run.state.optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    before = [{name: value.clone() for name, value in optimizer.state[p].items()} for p in optimizer.state]
    weights = run.weights
    moments = FlatMoments(MLPWeights(run.state.actor_critic), optimizer)  # type: ignore[arg-type]
    assert moments.steps_taken == 32
    assert torch.equal(run.weights, weights)
    for old, parameter in zip(before, list(optimizer.state), strict=True):
        assert all(torch.equal(optimizer.state[parameter][name], value) for name, value in old.items())
    moments.steps_taken = 40
    assert all(state["step"] == 40 for state in optimizer.state_dict()["state"].values())
