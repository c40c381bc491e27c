from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ppo_cli.cli import build, run
from ppo_cli.cli.train import trainer_of
from tests.cli.helpers import Shell

MINESWEEPER = {"name": "minesweeper", "_target_": "ppo_cli.envs.minesweeper.env.MinesweeperVecEnv"}
CARTPOLE = {
    "name": "cartpole",
    "_target_": "ppo_cli.envs.gymnasium_adapter.GymnasiumVecEnv",
    "id": "CartPole-v1",
}


def first_obs(env: dict[str, Any]) -> Tensor:
    built = build.build_env({"env": env, "device": "cpu"}, 2)
    obs = built.reset([1, 2])
    return obs["board"] if isinstance(obs, dict) else obs


def test_an_environment_that_can_live_on_a_device_gets_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "chosen_device", lambda config: torch.device("meta"))
    assert first_obs(MINESWEEPER | {"backend": "torch"}).device.type == "meta"
    assert first_obs(MINESWEEPER | {"backend": "numba"}).device.type == "cpu"
    assert first_obs(CARTPOLE).device.type == "cpu"


@pytest.mark.parametrize(
    ("wish", "has_gpu", "chosen"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_is_a_gpu_where_there_is_one(
    wish: str, has_gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert build.chosen_device({"device": wish}).type == chosen


@pytest.mark.parametrize(
    ("wish", "hidden", "chosen"),
    [("auto", [64, 64], "cpu"), ("auto", [256, 256], "cpu"), ("auto", [512, 512], "cuda"), ("cuda", [64, 64], "cuda")],
)
def test_a_small_mlp_stays_where_its_environments_are(
    wish: str, hidden: list[int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = build.build_env({"env": CARTPOLE, "device": "cpu"}, 1)
    network = build.build_network({"network": {"hidden": hidden}}, env)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = {"device": wish, "precision": "auto", "accelerate": "auto", "algo": {"_target_": ""}}
    assert build.build_accelerator(config, network, 1).device.type == chosen
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build.chosen_device({"device": "auto"}, network).type == "cpu"


def test_the_start_of_a_run_says_that_a_gpu_is_spared_and_why(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["env=cartpole", "total_env_steps=64", "num_envs=2", "rollout_length=16", "num_minibatches=1"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert shell.train(*words) == 0
    assert "float32 (no GPU for so small a network)" in shell.out
    assert shell.train(*words, "device=cpu") == 0
    assert "GPU" not in shell.out
    assert shell.train(*words, "seeds=2") == 0
    assert "float32 (no GPU for so small a network)" in shell.out


def test_the_first_weights_do_not_depend_on_the_threads_that_drew_them() -> None:
    env = build.build_env({"env": CARTPOLE, "device": "cpu"}, 1)
    num_threads = torch.get_num_threads()
    drawn = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(2)
            network = build.build_network({"network": {"hidden": [256, 256]}}, env)
            assert torch.get_num_threads() == threads
            drawn.append(torch.cat([parameter.flatten() for parameter in network.parameters()]))
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("env", "eval_interval", "tags"),
    [
        (CARTPOLE, 0, ["charts/episodic_return"]),
        (CARTPOLE, 1000, ["charts/episodic_return", "eval/episodic_return"]),
        (MINESWEEPER, 0, ["charts/episodic_return", "minesweeper/win_rate"]),
    ],
)
def test_configurations_are_compared_by_what_the_run_measures(
    env: dict[str, Any], eval_interval: int, tags: list[str]
) -> None:
    built = build.build_env({"env": env, "device": "cpu"}, 2)
    assert run.headline_tags({"eval_interval": eval_interval}, built) == tags


@pytest.mark.parametrize("seed", [0, 1, 2, 2**32 - 1])
def test_weights_actions_and_minibatches_are_drawn_from_streams_of_their_own(tmp_path: Path, seed: int) -> None:
    state = trainer_of(["env=cartpole", f"seed={seed}", "quiet=true"], tmp_path / "run").state
    drawn = [torch.initial_seed(), state.action_generator.initial_seed(), state.minibatch_generator.initial_seed()]
    assert len(set(drawn)) == 3
