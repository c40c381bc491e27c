"""A run that is cut and goes on equals the one that was left alone: checkpoint, metrics, TensorBoard, tolerance 0."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from ppo_cli import checkpoint
from tests.cli.conftest import shell  # noqa: F401 (a fixture)
from tests.cli.helpers import Shell
from tests.runs import assert_same, final_checkpoint, metrics, scalars

SHORT = ["num_envs=4", "rollout_length=32", "total_env_steps=512", "checkpoint_interval=128", "keep_checkpoints=9"]
"""Four updates with a checkpoint after each."""
GYM = ["env=gymnasium", "env.vectorization=sync"]
CARTPOLE = [*GYM, "env.id=CartPole-v1", "network=mlp", "network.hidden=[16]"]
BOARD = ["env=minesweeper", "env.height=4", "env.width=4", "env.mines=3", "network=board", "network.channels=8"]


def cut(run: Path, env_steps: int) -> Path:
    """The folder as a process leaves it that is killed before it saves again after ``env_steps``; logs run ahead."""
    copy = run.with_name("cut")
    shutil.copytree(run, copy)
    for path in checkpoint.list_checkpoints(copy / "checkpoints"):
        if checkpoint.env_steps_of(path) > env_steps:
            path.unlink()
    return copy


def assert_goes_on_exactly(shell: Shell, words: list[str], env_steps: int = 256) -> None:  # noqa: F811
    assert shell.train(*words, *SHORT, "quiet=true", "run_name=straight") == 0, shell.err
    (straight,) = shell.runs
    resumed = cut(straight, env_steps)
    assert shell.train(f"resume={resumed}") == 0, shell.err
    assert "approximate" not in shell.err + shell.out
    assert_same(final_checkpoint(resumed), final_checkpoint(straight))
    assert metrics(resumed) == metrics(straight)
    assert scalars(resumed) == scalars(straight)
    assert [row["env_steps"] for row in metrics(resumed)] == [128, 256, 384, 512]


@pytest.mark.parametrize("algo", ["vpg", "a2c", "trpo", "ppo", "ppo_kl"])
def test_every_algorithm_goes_on_exactly(shell: Shell, algo: str) -> None:  # noqa: F811
    assert_goes_on_exactly(shell, [*CARTPOLE, f"algo={algo}", "num_threads=1", "accelerate=eager"])


@pytest.mark.parametrize(
    "words",
    [
        ["env.id=CartPole-v1", "env.vectorization=native"],
        ["env.id=CartPole-v1", "env.autoreset=next_step"],
        ["env.id=Pendulum-v1", "+env.kwargs={max_episode_steps: 20}"],
        ["env.id=FrozenLake-v1"],
        ["env.id=Blackjack-v1"],
        ["env.id=MountainCarContinuous-v0", "env.wrappers=[{RescaleAction: {min_action: -2, max_action: 2}}]"],
    ],
    ids=lambda words: "_".join(words[:2]).replace("env.", ""),
)
def test_gymnasium_environments_go_on_exactly(shell: Shell, words: list[str]) -> None:  # noqa: F811
    words = [word.replace("+env", "env") for word in words]
    assert_goes_on_exactly(
        shell, [*GYM, *words, "num_threads=1", "accelerate=eager", "network=mlp", "network.hidden=[16]"]
    )


@pytest.mark.parametrize(
    "words",
    [
        ["normalize_obs=true", "normalize_reward=true"],
        ["learning_rate_schedule=linear", "clip_schedule=linear", "entropy_schedule=linear"],
        ["learning_rate_schedule=cosine", "optimizer=rmsprop"],
        ["learning_rate_schedule=kl_adaptive"],
        ["eval_interval=128", "eval_episodes=2"],
    ],
    ids=lambda words: words[0],
)
def test_normalization_schedules_and_evaluations_go_on_exactly(shell: Shell, words: list[str]) -> None:  # noqa: F811
    assert_goes_on_exactly(shell, [*CARTPOLE, *words, "num_threads=1", "accelerate=eager"])


@pytest.mark.parametrize("env_steps", [128, 384])
def test_minesweeper_goes_on_exactly_from_any_checkpoint(shell: Shell, env_steps: int) -> None:  # noqa: F811
    assert_goes_on_exactly(shell, [*BOARD, "num_threads=1"], env_steps)


@pytest.mark.slow  # half a minute where other programs use the cores
def test_minesweeper_on_two_threads_goes_on_exactly(shell: Shell) -> None:  # noqa: F811
    assert_goes_on_exactly(shell, [*BOARD, "num_threads=2"])


def test_two_threads_go_on_exactly(shell: Shell) -> None:  # noqa: F811
    words = [*CARTPOLE, "num_threads=2", "accelerate=eager", "normalize_obs=true"]
    assert_goes_on_exactly(shell, words)


def test_a_finished_run_that_is_given_more_steps_equals_the_longer_run(shell: Shell) -> None:  # noqa: F811
    words = [*CARTPOLE, *SHORT, "num_threads=1", "accelerate=eager", "quiet=true"]
    assert shell.train(*words, "run_name=long") == 0
    assert shell.train(*words, "run_name=short", "total_env_steps=256") == 0
    long, short = shell.runs
    assert shell.train(f"resume={short}", "total_env_steps=512", "quiet=false") == 0
    assert "changed: total_env_steps 256 -> 512" in shell.out
    assert_same(final_checkpoint(short), final_checkpoint(long))
    assert (metrics(short), scalars(short)) == (metrics(long), scalars(long))


def test_a_finished_run_that_has_nothing_left_to_do_says_so_and_stays_as_it_is(shell: Shell) -> None:  # noqa: F811
    words = [*CARTPOLE, *SHORT, "num_threads=1", "accelerate=eager", "quiet=true", "eval_interval=256"]
    assert shell.train(*words, "eval_episodes=2") == 0
    (run,) = shell.runs
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert shell.train(f"resume={run}", "clip=0.4", "learning_rate=1e-5", "quiet=false") == 0
    assert "nothing is left to do: 512 of 512 env steps are done; total_env_steps=... sets a later end" in shell.out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_after_it_had_saved_its_end_is_completed_with_its_figures(shell: Shell) -> None:  # noqa: F811
    words = [*CARTPOLE, *SHORT, "num_threads=1", "accelerate=eager", "quiet=true", "eval_interval=256"]
    assert shell.train(*words, "eval_episodes=2") == 0
    (run,) = shell.runs
    before = json.loads((run / "summary.json").read_text())
    assert "eval/episodic_return" in before["final"]
    killed = before | {"status": "running", "exit_code": None, "final": {}, "updates": 0}
    (run / "summary.json").write_text(json.dumps(killed))
    assert shell.train(f"resume={run}", "quiet=false") == 0
    assert "nothing is left to do: 512 of 512 env steps are done; total_env_steps=... sets a later end" in shell.out
    after = json.loads((run / "summary.json").read_text())
    for key in ("status", "exit_code", "env_steps", "updates", "final", "checkpoint", "best_checkpoint"):
        assert after[key] == before[key], key


def test_a_finished_run_whose_last_checkpoint_is_damaged_trains_the_rest_again(shell: Shell) -> None:  # noqa: F811
    assert shell.train(*CARTPOLE, *SHORT, "num_threads=1", "accelerate=eager", "quiet=true") == 0
    (run,) = shell.runs
    before = final_checkpoint(run)
    checkpoint.list_checkpoints(run / "checkpoints")[-1].write_bytes(b"nothing")
    assert shell.train(f"resume={run}") == 0
    assert_same(final_checkpoint(run), before)


def test_what_changed_on_the_way_is_shown_and_recorded(shell: Shell) -> None:  # noqa: F811
    assert shell.train(*CARTPOLE, *SHORT, "num_threads=1", "accelerate=eager", "quiet=true", "clip=0.2") == 0
    (run,) = shell.runs
    assert shell.train("resume=latest", "clip=0.1", "total_env_steps=640", "adam_eps=1e-4", "quiet=false") == 0
    assert "changed: clip 0.2 -> 0.1" in shell.out
    (first,) = yaml.safe_load((run / "resumes.yaml").read_text())
    assert first["env_steps"] == 512
    assert first["changed"] == {"total_env_steps": "512 -> 640", "adam_eps": "1e-05 -> 0.0001", "clip": "0.2 -> 0.1"}
    assert first["approximate_because"] == []
    assert "clip=0.2" in yaml.safe_load((run / "overrides.yaml").read_text())
    assert final_checkpoint(run)["state"]["optimizer"]["param_groups"][0]["eps"] == 1e-4
    assert shell.train("resume=latest", "total_env_steps=768") == 0
    assert [entry["env_steps"] for entry in yaml.safe_load((run / "resumes.yaml").read_text())] == [512, 640]


def test_another_environment_or_thread_count_is_called_approximate_with_the_reason(shell: Shell) -> None:  # noqa: F811
    words = [
        "env=minesweeper",
        "env.height=4",
        "env.width=4",
        "env.mines=3",
        "network=board",
        "network.channels=8",
        "num_threads=1",
    ]
    assert shell.train(*words, *SHORT, "quiet=true") == 0
    assert shell.train("resume=latest", "total_env_steps=640", "num_threads=2", "env.mines=2") == 0
    assert "approximate: fresh episodes start: env.mines 3 -> 2" in shell.err
    assert "approximate: it ran on 1 threads, this runs on 2" in shell.err
