"""What may go wrong around a run: numbers that are none, a disk that is full, damaged checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from ppo_cli.envs.base import env_seeds
from tests.cli.forked import Case, run_cases
from tests.cli.helpers import Shell
from tests.envs.faulty import register

FAULTY_STEP = 41
"""Of the second environment: the ninth step of the third rollout."""


class Faulty(gym.Env[Any, Any]):
    """Gives what is no number at one step of its second environment."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    made = 0

    def __init__(self, what: str = "observation", value: float = np.nan) -> None:
        self.what, self.value = what, value
        self.number = Faulty.made % 2
        Faulty.made += 1
        self.count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        obs, reward = np.full(2, 0.5, np.float32), 1.0
        if self.number == 1 and self.count == FAULTY_STEP:
            if self.what == "reward":
                reward = self.value
            else:
                obs[1] = self.value
        return obs, reward, self.count % 10 == 0, False, {}


gym.register("test/Faulty-v0", Faulty)
WORDS = [
    "env=gymnasium", "env.id=test/Faulty-v0", "env.vectorization=sync", "network=mlp", "network.hidden=[8]",
    "num_envs=2", "rollout_length=16", "total_env_steps=128", "checkpoint_interval=32", "num_threads=1",
    "quiet=true", "run_name=run",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*The obs returned by:UserWarning", "ignore:.*The reward is:UserWarning")
@pytest.mark.parametrize("path", ["eager", "fused"])
@pytest.mark.parametrize("normalize", ["true", "false"])
@pytest.mark.parametrize(("what", "value"), [("observation", "nan"), ("observation", "inf"), ("reward", "nan")])
def test_a_number_that_is_none_ends_the_run_before_anything_is_learnt_from_it(
    shell: Shell, path: str, normalize: str, what: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "made", 0)
    monkeypatch.setattr(Faulty.__init__, "__defaults__", (what, float(value)))
    words = [f"normalize_obs={normalize}", f"normalize_reward={normalize}", f"accelerate={path}"]
    assert shell.train(*WORDS, *words) == 1
    fault, remedy = shell.errors
    step = 10 if what == "observation" else 9  # the observation after a step is the next one to act on
    shown = "nan" if normalize == "true" else value
    assert f"environment 1 gave {'an' if what == 'observation' else 'a'} {what} of {shown}" in fault
    assert f"in step {step} of the rollout of update 3, after {64 + 2 * (step - 1)} env steps" in fault
    assert "the last good checkpoint is" in remedy
    assert "step_000000000064.pt" in remedy
    (run,) = shell.runs
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert summary["checkpoint"] == "checkpoints/step_000000000064.pt"
    assert summary["error"] == f"NonFiniteError: {fault}"
    assert not (run / "error.txt").exists()


def failing(what: str, *words: str) -> list[str]:
    """Words of a run whose second environment does ``what`` in its fourth step, the second one of update 2."""
    kwargs = f"{{what:{what},victim:{env_seeds(1, 2)[1]}}}"
    return [
        "env=gymnasium", f"env.id={register()}", f"env.kwargs={kwargs}", "network=mlp", "network.hidden=[8]",
        "num_envs=2", "rollout_length=2", "num_minibatches=1", "total_env_steps=40", "checkpoint_interval=4",
        "num_threads=1", "accelerate=eager", "run_name=run", "quiet=true", *words,
    ]  # fmt: skip


def test_a_killed_worker_costs_its_episode_and_is_counted_and_said_once(shell: Shell) -> None:
    assert shell.train(*failing("kill", "env.vectorization=async", "env.num_workers=2")) == 0
    (said,) = shell.err.splitlines()
    assert said == (
        "warning: environment 1: its worker process was killed by SIGKILL; the worker was replaced, fresh episodes "
        "begin in environment 1"
    )
    (run,) = shell.runs
    assert json.loads((run / "summary.json").read_text())["faults"] == {"faults/worker_restarts": 1}
    counts = [json.loads(line)["faults/worker_restarts"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert counts == [0] + [1] * 9
    assert shell.train("resume=run".replace("run", str(run)), "total_env_steps=44") == 0
    assert json.loads((run / "summary.json").read_text())["faults"] == {"faults/worker_restarts": 1}


def test_an_environment_that_raises_in_a_worker_ends_the_run_with_its_own_traceback(shell: Shell) -> None:
    assert shell.train(*failing("raise", "env.vectorization=async", "env.num_workers=2")) == 1
    assert shell.err.count("Traceback (most recent call last)") == 1
    assert "gymnasium" not in shell.err
    *_, raised, _, fault, remedy = shell.errors
    assert raised == "ZeroDivisionError: the pole has no length"
    assert fault == "environment 1: raised ZeroDivisionError: the pole has no length"
    assert "the last good checkpoint is" in remedy
    assert "step_000000000004.pt" in remedy
    (run,) = shell.runs
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert summary["error"] == f"EnvError: {fault}"


def test_an_environment_that_raises_in_this_process_shows_its_traceback_and_then_what_is_left(shell: Shell) -> None:
    assert shell.train(*failing("raise", "env.vectorization=sync")) == 1
    assert shell.err.count("Traceback (most recent call last)") == 1
    raised, remedy = shell.err.splitlines()[-2:]
    assert raised == "ZeroDivisionError: the pole has no length"
    (run,) = shell.runs
    assert remedy == (
        f"the last good checkpoint is {run.relative_to(shell.folder)}/checkpoints/step_000000000004.pt; "
        f"ppo-train resume={run.relative_to(shell.folder)}"
    )
    assert (run / "error.txt").read_text().splitlines()[-2:] == [raised, remedy]
    assert json.loads((run / "summary.json").read_text())["error"] == raised


@pytest.mark.parametrize("limit", [0, 3])
def test_nan_in_first_observations_is_passed_over_as_often_as_is_allowed(shell: Shell, limit: int) -> None:
    words = failing("nan at reset", "env.vectorization=sync", "on_nonfinite=" + ("skip" if limit else "stop"))
    assert shell.train(*words, f"max_skipped={limit or 1}") == (0 if limit else 1)
    assert ("environment 1 began with NaN or infinity" if limit else "an observation of nan in step 1") in shell.err
    words = failing("always nan at reset", "env.vectorization=sync", "on_nonfinite=skip", "run_name=always")
    assert shell.train(*words, f"max_skipped={limit or 1}") == 1
    assert "were passed over before" in shell.err


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_nan_of_one_environment_can_be_passed_over_as_often_as_is_allowed(shell: Shell, vectorization: str) -> None:
    words = failing("nan reward", f"env.vectorization={vectorization}", "env.num_workers=1", "on_nonfinite=skip")
    assert shell.train(*words, "max_skipped=1") == 0
    assert shell.err == (
        "warning: passed over, and faults/skipped_transitions counts how often: environment 1 gave a reward of nan\n"
    )
    (run,) = shell.runs
    faults = json.loads((run / "summary.json").read_text())["faults"]
    assert faults["faults/skipped_transitions"] == 1
    assert faults["faults/skipped_gradient_steps"] == 0


CARTPOLE = [
    "env=gymnasium", "env.id=CartPole-v1", "env.vectorization=sync", "network=mlp", "network.hidden=[16]", "num_envs=2",
    "rollout_length=16", "total_env_steps=640", "checkpoint_interval=64", "num_threads=1", "accelerate=eager",
    "run_name=run",
]  # fmt: skip


def test_a_full_disk_costs_logs_and_checkpoints_but_not_the_run(tmp_path: Path) -> None:
    """A file may not grow beyond 12 kB: more than config and summary, less than the log and than a checkpoint."""
    (ended,) = run_cases([Case(folder=str(tmp_path), words=CARTPOLE, largest_file=12_000)])
    run = tmp_path / "outputs/CartPole-v1/ppo/run"
    assert ended["code"] == 3
    said = ended["out"] + ended["err"]
    assert "training goes on, its log has a gap" in said
    refused = "the checkpoint after 64 env steps was not written (File too large); there is no older one"
    assert refused in said
    assert "error: the last checkpoint could not be written: there is no checkpoint to go on from" in said
    assert "Traceback" not in said
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"], summary["env_steps"]) == ("completed", 3, 640)
    assert summary["dropped_records"] > 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == [32 * n for n in range(1, len(rows) + 1)], "whole records only"
    assert not list((run / "checkpoints").iterdir()), "nothing half-written is left"


def test_a_disk_that_is_full_at_the_start_costs_one_line_and_leaves_no_run(tmp_path: Path) -> None:
    """A file may not grow beyond 700 bytes: less than the config."""
    words, run = [*CARTPOLE, "quiet=true"], tmp_path / "outputs/CartPole-v1/ppo/run"
    (refused,) = run_cases([Case(folder=str(tmp_path), words=words, largest_file=700)])
    assert refused["code"] == 1
    assert refused["err"].splitlines()[-1] == f"error: {run}/config.yaml: cannot be written (File too large)"
    assert not (tmp_path / "outputs").exists()
    (refused,) = run_cases([Case(folder=str(tmp_path), words=[*words, "seeds=2"], largest_file=700)])
    assert refused["code"] == 1
    assert refused["err"].splitlines() == [f"error: {run}/seed=1/config.yaml: cannot be written (File too large)"]
    assert not (tmp_path / "outputs").exists()
    more = ["resume=latest", "total_env_steps=672"]
    first, refused = run_cases(
        [Case(folder=str(tmp_path), words=words), Case(folder=str(tmp_path), words=more, largest_file=700)]
    )
    assert (first["code"], refused["code"]) == (0, 1)
    assert refused["err"].splitlines() == [
        "error: outputs/CartPole-v1/ppo/run/config.yaml: cannot be written (File too large)"
    ]
    (resumed,) = run_cases([Case(folder=str(tmp_path), words=more)])
    assert resumed["code"] == 0, resumed["err"]


def test_a_run_folder_that_may_only_be_read_cannot_go_on_and_says_so(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.train(*CARTPOLE, "quiet=true") == 0
    (run,) = shell.runs
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("ppo_cli.cli.run_folder.tempfile.TemporaryDirectory", refuse)
    assert shell.train(f"resume={run}", "total_env_steps=672") == 2
    shown = run.relative_to(shell.folder)
    assert shell.errors == [
        f"resume={shown}: cannot write in {run} (Read-only file system); put a copy elsewhere to go on"
    ]
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_disk_that_fills_up_later_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    words = [*CARTPOLE, "quiet=true"]
    first, second = run_cases(
        [
            Case(folder=str(tmp_path), words=words),
            Case(folder=str(tmp_path), words=["resume=latest", "total_env_steps=960"], largest_file=12_000),
        ]
    )
    assert (first["code"], second["code"]) == (0, 3)
    (last,) = second["err"].splitlines()[-1:]
    assert "the last good checkpoint is outputs/CartPole-v1/ppo/run/checkpoints/step_000000000640.pt" in last


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning_and_all_damaged_is_an_error(shell: Shell) -> None:
    assert shell.train(*CARTPOLE, "quiet=true") == 0
    (run,) = shell.runs
    newest = sorted((run / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    for command, words in (
        (shell.eval, ["latest", "episodes=2"]),
        (shell.play, ["latest", "episodes=1"]),
        (shell.export, ["latest"]),
        (shell.train, ["resume=latest", "total_env_steps=672"]),
    ):
        assert command(*words) == 0, shell.err
        assert shell.err.count("warning: ") == 1
        assert f"warning: {newest.relative_to(shell.folder)} is damaged" in shell.err
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    before = (run / "metrics.jsonl").read_bytes()
    assert shell.train("resume=latest", "total_env_steps=704") == 2
    assert shell.err.count("is damaged") >= 2
    assert (run / "metrics.jsonl").read_bytes() == before
