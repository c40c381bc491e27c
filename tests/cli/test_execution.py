"""Which path a run takes, why, and that it says so."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from ppo_cli import checkpoint
from ppo_cli.accelerate import Accelerator, Execution
from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.cli.run import facts
from ppo_cli.cli.train import trainer_of
from ppo_cli.envs.cartpole import CartPole
from ppo_cli.envs.probes import ConstantValueProbe, IllegalActionProbe, SeveralChoicesProbe
from ppo_cli.fused import domain
from ppo_cli.fused.board_collector import BoardCollector
from ppo_cli.fused.collector import FusedCollector
from ppo_cli.fused.domain import is_ready
from ppo_cli.fused.ppo import FusedPPO
from ppo_cli.kernels.compiled import sources, sources_stamp
from ppo_cli.networks.mlp import MLP
from ppo_cli.rollout import Collector
from ppo_cli.trainer import CHECKPOINT_FOLDER, Trainer
from tests.cli.helpers import SHORT_RUN, Shell

LONG = ["env=cartpole", "quiet=true"]
"""As its configuration says: 500,000 steps, four epochs."""


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "is_ready", lambda *_: True)


def execution(folder: Path, *words: str) -> Execution:
    made = trainer_of([*words, "quiet=true"], folder)
    assert isinstance(made.collector, FusedCollector | BoardCollector) is (made.execution.path == "fused")
    return made.execution


@pytest.mark.parametrize(
    ("words", "path", "reason"),
    [
        (["env=cartpole"], "fused", "rollout and update"),
        (["env=cartpole", "algo=a2c", "total_env_steps=1e6"], "fused", "the rollout; the update is plain torch"),
        (["env=cartpole", "optimizer=rmsprop"], "fused", "the rollout; the update is plain torch"),
        (["env=gymnasium", "env.id=Pendulum-v1", "total_env_steps=1e6"], "fused", "rollout and update"),
        (["env=cartpole", "accelerate=eager"], "eager", "asked for"),
        (
            ["env=cartpole", "precision=bfloat16"],
            "eager",
            "the fused kernels do not cover it: the run is on cpu in bfloat16",
        ),
        (
            ["env=minesweeper", "precision=float32"],
            "eager",
            "the fused kernels do not cover it: the run is on cpu in float32",
        ),
        (["env=minesweeper", "precision=bfloat16"], "fused", "rollout and update"),
        (["env=minesweeper", "precision=bfloat16", "algo=trpo"], "eager", "and kernels for its convolutions"),
        (["env=minesweeper", "precision=bfloat16", "optimizer=rmsprop"], "eager", "and kernels for its convolutions"),
        (
            ["env=minesweeper", "precision=bfloat16", "network=board", "network.channels=24"],
            "eager",
            "the fused kernels do not cover it: the network has 24 channels",
        ),
        (
            ["env=minesweeper", "precision=bfloat16", "total_env_steps=9_000"],
            "eager",
            "too short a run to compile the board's kernels for",
        ),
        (["env=minesweeper", "precision=bfloat16", "accelerate=eager"], "eager", "asked for"),
        (SHORT_RUN, "eager", "too short a run to compile the fused kernels for"),
        ([*SHORT_RUN, "accelerate=fused"], "fused", "rollout and update"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_path_follows_from_the_settings_and_says_why(
    tmp_path: Path, words: list[str], path: str, reason: str
) -> None:
    chosen = execution(tmp_path / "run", *words)
    assert (chosen.path, chosen.reason) == (path, reason)


@pytest.mark.usefixtures("compiled")
def test_a_short_run_takes_kernels_that_are_compiled_already(tmp_path: Path) -> None:
    assert execution(tmp_path / "run", *SHORT_RUN, "accelerate=auto").path == "fused"


@pytest.mark.parametrize(("steps", "path"), [(124_999, "eager"), (125_000, "fused")])
def test_a_run_is_long_enough_by_the_samples_of_all_its_epochs(tmp_path: Path, steps: int, path: str) -> None:
    words = ["env=cartpole", "num_epochs=4", f"total_env_steps={steps}"]
    assert execution(tmp_path / "run", *words).path == path


def test_an_action_mask_is_not_for_the_kernels() -> None:
    env = IllegalActionProbe(2)
    network = MLP(env.single_observation_space, env.single_action_space)
    against = domain.reason_against(network, env, Accelerator(torch.device("cpu")))
    assert against == "the observations carry an action mask"


def test_several_choices_are_not_for_the_kernels() -> None:
    env = SeveralChoicesProbe(2)
    network = MLP(env.single_observation_space, env.single_action_space)
    assert domain.reason_against(network, env, Accelerator(torch.device("cpu"))) == "an action is several choices"


def test_threads_are_those_that_are_useful_and_no_more_than_asked_for(tmp_path: Path) -> None:
    words = ["env=cartpole", "accelerate=fused", "num_minibatches=1"]
    large, small = ["num_envs=512", "network.hidden=[256,256]", "network=mlp"], ["num_envs=1"]
    assert execution(tmp_path / "one", *words, *large, "num_threads=3").num_threads == 3
    assert execution(tmp_path / "two", *words, *large, "num_threads=1").num_threads == 1
    assert execution(tmp_path / "three", *words, *small, "network=mlp", "network.hidden=[8]").num_threads == 1


def test_the_parts_of_a_run_are_those_of_its_path(tmp_path: Path) -> None:
    fused = trainer_of([*LONG, "accelerate=fused"], tmp_path / "fused")
    assert isinstance(fused.collector, FusedCollector) and isinstance(fused.algorithm, FusedPPO)
    eager = trainer_of([*LONG, "accelerate=eager"], tmp_path / "eager")
    assert type(eager.collector) is Collector and isinstance(eager.algorithm, PPO)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["env=minesweeper", "precision=float32"], "the run is on cpu in float32: use auto"),
        (["env=minesweeper", "precision=bfloat16", "algo=vpg"], "the update is VPG's with AdamW: use auto"),
        (["env=cartpole", "precision=bfloat16"], "the run is on cpu in bfloat16: use auto"),
    ],
)
def test_kernels_that_do_not_cover_the_run_are_refused_in_one_line(shell: Shell, words: list[str], error: str) -> None:
    assert shell.train(*words, "accelerate=fused") == 2
    assert shell.errors == [
        "accelerate=fused is for MLPs on vectors, in float32, and for PPO on boards, in bfloat16 and from 32 channels, "
        f"on a CPU, and {error}"
    ]
    assert list(shell.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "line"), [("eager", r"torch \(asked for\)"), ("fused", r"fused kernels \(rollout and update\)")]
)
def test_a_run_says_what_computes_it_and_keeps_that(shell: Shell, path: str, line: str) -> None:
    assert shell.train(*SHORT_RUN, f"accelerate={path}") == 0
    assert re.search(rf"^ *computed by +{line}$", shell.out, re.MULTILINE)
    content, _ = checkpoint.load_newest(shell.runs[0] / CHECKPOINT_FOLDER)
    assert (content["path"], content["num_threads"]) == (path, 1)


@pytest.mark.parametrize(("first", "ready"), [("eager", True), ("fused", False)])
def test_auto_goes_on_upon_the_path_of_the_run(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, first: str, ready: bool
) -> None:
    monkeypatch.setattr(domain, "is_ready", lambda *_: ready)
    started: list[Trainer] = []
    monkeypatch.setattr(
        "ppo_cli.cli.run.facts", lambda config, trainer: started.append(trainer) or facts(config, trainer)
    )
    assert shell.train(*SHORT_RUN, f"accelerate={first}") == 0
    assert shell.train("resume=latest", "accelerate=auto", "total_env_steps=128") == 0
    assert [trainer.execution.path for trainer in started] == [first, first]
    assert "approximate" not in shell.out + shell.err


def test_another_path_than_before_is_called_approximate(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "accelerate=fused") == 0
    assert shell.train("resume=latest", "accelerate=eager", "total_env_steps=128") == 0
    assert "it ran with accelerate=fused, this runs with eager" in shell.out + shell.err


def test_a_fused_run_leaves_word_that_its_kernels_are_compiled(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "cache_folder", lambda: shell.folder)
    env = CartPole(1)
    assert shell.train(*SHORT_RUN, "accelerate=eager") == 0
    assert not is_ready(env, PPO())
    assert "compiles" not in shell.out
    assert shell.train(*SHORT_RUN, "accelerate=fused") == 0
    assert "compiles      the kernels first, once on this machine: half a minute" in shell.out
    assert is_ready(env, PPO())
    assert not is_ready(env, A2C()), "whose update is not a kernel"
    assert not is_ready(ConstantValueProbe(1), PPO()), "which is stepped from outside"
    monkeypatch.setattr(domain, "cache_folder", lambda: shell.folder / "of/other/sources")
    assert not is_ready(env, PPO())


def test_kernels_of_sources_that_were_written_anew_are_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "cache_folder", lambda: tmp_path)
    domain.note_ready(CartPole(1), PPO())
    assert is_ready(CartPole(1), PPO())
    before = sources_stamp()
    sources_stamp.cache_clear()
    assert sources_stamp() == before
    copies = [tmp_path / path.name for path in sources()]
    for path, copy in zip(sources(), copies, strict=True):
        shutil.copy2(path, copy)
    monkeypatch.setattr("ppo_cli.kernels.compiled.sources", lambda: copies)
    for change in (lambda: None, lambda: os.utime(copies[0], (1, 1))):
        change()
        sources_stamp.cache_clear()
        assert not is_ready(CartPole(1), PPO())
        domain.note_ready(CartPole(1), PPO())
        assert is_ready(CartPole(1), PPO())
    sources_stamp.cache_clear()


def test_no_word_is_left_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(domain, "cache_folder", lambda: tmp_path / "file/kernels")
    monkeypatch.setattr(domain, "is_kept", lambda: False)
    domain.note_ready(CartPole(1), PPO())
    assert not is_ready(CartPole(1), PPO())


@pytest.mark.parametrize("path", ["eager", "fused"])
def test_a_run_goes_on_as_if_it_had_never_stopped(shell: Shell, path: str) -> None:
    words = [*SHORT_RUN, f"accelerate={path}", "learning_rate_schedule=constant", "quiet=true"]
    assert shell.train(*words, "total_env_steps=128", "run_name=straight") == 0
    assert shell.train(*words, "total_env_steps=64", "run_name=resumed") == 0
    run = shell.folder / "outputs/cartpole/ppo/resumed"
    assert shell.train(f"resume={run}", "total_env_steps=128", "quiet=true") == 0
    weights = [
        checkpoint.load_newest(shell.folder / f"outputs/cartpole/ppo/{name}" / CHECKPOINT_FOLDER)[0]["state"][
            "actor_critic"
        ]
        for name in ("straight", "resumed")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_board_goes_on_in_kernels_as_if_it_had_never_stopped_on_any_threads(shell: Shell) -> None:
    size = ["env.height=4", "env.width=3", "env.mines=2", "num_envs=40", "rollout_length=8"]
    words = ["env=minesweeper", *size, "precision=bfloat16", "accelerate=fused", "learning_rate_schedule=constant"]
    folder = shell.folder / "outputs/minesweeper/ppo"
    assert shell.train(*words, "total_env_steps=640", "run_name=straight", "num_threads=1") == 0
    assert shell.train(*words, "total_env_steps=320", "run_name=resumed", "num_threads=1") == 0
    assert shell.train(f"resume={folder / 'resumed'}", "total_env_steps=640", "num_threads=2") == 0
    assert "approximate" not in shell.out + shell.err
    straight, resumed = (
        checkpoint.load_newest(folder / name / CHECKPOINT_FOLDER)[0]["state"]["actor_critic"]
        for name in ("straight", "resumed")
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize(
    ("words", "has_board_kernels"),
    [(["total_env_steps=99_999"], False), (["total_env_steps=100_000"], True), (["accelerate=eager"], False)],
)
def test_only_a_run_that_wins_it_back_and_may_compiles_its_boards_kernels(
    tmp_path: Path, words: list[str], has_board_kernels: bool
) -> None:
    made = trainer_of(["env=minesweeper", "num_epochs=4", *words, "quiet=true"], tmp_path)
    assert made.state.actor_critic.may_use_kernels is has_board_kernels
    assert made.execution.has_board_kernels is has_board_kernels


def test_a_longer_run_that_goes_on_keeps_its_convolutions(shell: Shell) -> None:
    words = ["env=minesweeper", "env.height=3", "env.width=3", "env.mines=2", "num_envs=8", "rollout_length=8"]
    assert shell.train(*words, "total_env_steps=64", "run_name=short") == 0
    folder = shell.folder / "outputs/minesweeper/ppo/short"
    assert shell.train(f"resume={folder}", "total_env_steps=128") == 0
    content, _ = checkpoint.load_newest(folder / CHECKPOINT_FOLDER)
    assert content is not None
    assert content["state"]["env_steps"] == 128
    assert content["has_board_kernels"] is False


def test_to_go_on_with_other_convolutions_is_said_not_to_be_exact(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppo_cli.cli.hardware.BOARD_KERNELS_PAY", 0)
    size = ["env.height=3", "env.width=3", "env.mines=2", "num_envs=8", "rollout_length=8", "num_threads=1"]
    words = ["env=minesweeper", *size, "precision=bfloat16", "total_env_steps=64", "run_name=quick"]
    assert shell.train(*words) == 0
    folder = shell.folder / "outputs/minesweeper/ppo/quick"
    assert shell.train(f"resume={folder}", "total_env_steps=128") == 0
    assert "kernels for its boards' convolutions" not in (folder / "resumes.yaml").read_text()
    assert shell.train(f"resume={folder}", "total_env_steps=192", "accelerate=eager") == 0
    assert "it ran with kernels for its boards' convolutions" in (folder / "resumes.yaml").read_text()
