"""Real runs, as short as they can be: folders, sweeps, exit codes, signals, evaluation, going on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ppo_cli.closing_words import closing_words
from ppo_cli.run_files import Summary
from tests.cli.helpers import SHORT_RUN, Shell


def config_of(run: Path) -> dict[str, object]:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert isinstance(config, dict)
    return config


def summary_of(run: Path) -> dict[str, object]:
    summary = json.loads((run / "summary.json").read_text())
    assert isinstance(summary, dict)
    return summary


def test_a_run_leaves_its_folder_and_says_where(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "total_env_steps=6.4e1") == 0
    (run,) = shell.runs
    relative = run.relative_to(shell.folder)
    assert re.fullmatch(r"outputs/cartpole/ppo/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_seed1_[0-9a-f]{4}", str(relative))
    assert f"ppo-eval {relative}" in shell.out
    assert {path.name for path in run.iterdir()} >= {"checkpoints", "config.yaml", "metrics.jsonl", "summary.json"}
    assert not (run / ".hydra").exists()
    assert config_of(run)["total_env_steps"] == 64
    assert summary_of(run)["status"] == "completed"
    assert [path.name for path in (run / "checkpoints").glob("*.pt")] == ["step_000000000064.pt"]


def test_two_runs_of_the_same_second_have_folders_of_their_own(shell: Shell) -> None:
    for _ in range(2):
        assert shell.train(*SHORT_RUN, "total_env_steps=32", "quiet=true") == 0
    assert len(shell.runs) == 2


def test_hydra_run_dir_is_honoured_and_never_shared(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "quiet=true", "hydra.run.dir=here/it is") == 0
    assert shell.runs == [shell.folder / "here/it is"]
    before = (shell.runs[0] / "metrics.jsonl").read_bytes()
    assert shell.train(*SHORT_RUN, "hydra.run.dir=here/it is") == 2
    assert shell.errors == [
        "hydra.run.dir=here/it is: here/it is already holds a run; choose another name, or go on with it: "
        "resume='here/it is'"
    ]
    assert (shell.runs[0] / "metrics.jsonl").read_bytes() == before


def test_a_named_run_has_that_name(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "quiet=true", "run_name=first", "output_dir=mine") == 0
    assert shell.runs == [shell.folder / "mine/cartpole/ppo/first"]


def test_a_gymnasium_run_lies_under_its_id(shell: Shell) -> None:
    words = ["env=gymnasium", "env.id=MountainCarContinuous-v0", *SHORT_RUN[1:], "quiet=true"]
    assert shell.train(*words) == 0
    assert shell.runs[0].parent == shell.folder / "outputs/MountainCarContinuous-v0/ppo"


def test_a_sweep_names_its_runs_by_what_differs(shell: Shell) -> None:
    words = ["-m", *SHORT_RUN, "total_env_steps=32", "quiet=true", "clip=0.1,0.2", "env.max_steps=200,500"]
    assert shell.train(*words) == 0
    (sweep,) = (shell.folder / "outputs/cartpole/ppo").iterdir()
    assert re.fullmatch(r"sweep_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{4}", sweep.name)
    assert [run.name for run in shell.runs] == [
        f"clip={clip},env.max_steps={steps}" for clip in (0.1, 0.2) for steps in (200, 500)
    ]
    assert [config_of(run)["clip"] for run in shell.runs] == [0.1, 0.1, 0.2, 0.2]


def test_a_sweep_over_environments_lies_apart(shell: Shell) -> None:
    assert shell.train("-m", "env=cartpole,acrobot", *SHORT_RUN[1:], "num_minibatches=2", "quiet=true") == 0
    assert [run.name for run in shell.runs] == ["env=acrobot", "env=cartpole"]
    assert shell.runs[0].parent.parent == shell.folder / "outputs/sweeps"


def test_an_experiment_may_sweep_without_a_flag(shell: Shell) -> None:
    experiment = shell.folder / "configs/experiment/two_seeds.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {seed: '1,2'}\n")
    words = ["--config-dir", "configs", "experiment=two_seeds", *SHORT_RUN, "total_env_steps=32", "quiet=true"]
    assert shell.train(*words) == 0
    assert [config_of(run)["seed"] for run in shell.runs] == [1, 2]
    assert [run.name for run in shell.runs] == ["seed=1", "seed=2"]


def test_a_run_goes_on_in_its_folder(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "quiet=true", "clip=0.123") == 0
    assert shell.train("resume=latest", "total_env_steps=128", "quiet=true") == 0
    (run,) = shell.runs
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [32, 64, 96, 128]
    assert (config_of(run)["clip"], config_of(run)["total_env_steps"]) == (0.123, 128)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["env=acrobot"], "env=acrobot: a run that goes on keeps its env"),
        (["network.hidden=[8]"], "network.hidden=[8]: a run that goes on keeps its network.hidden"),
        (["clipp=1"], "clipp=1: there is no setting clipp. Did you mean clip=1?"),
        (["clip=-1"], "clip=-1: expected a number above 0"),
        (["-m", "clip=1,2"], "resume= goes on with one run: leave out -m"),
    ],
)
def test_what_cannot_change_when_a_run_goes_on(shell: Shell, words: list[str], error: str) -> None:
    run = shell.folder / "outputs/cartpole/ppo/old"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/step_000000000064.pt").touch()
    shell.train("env=cartpole", "--cfg", "job", "--resolve")
    (run / "config.yaml").write_text(shell.out)
    assert shell.train("resume=latest", *words) == 2
    assert shell.errors == [error]


@pytest.mark.parametrize("name", ["clip=0.1,seed=1", "it's a [run]", "a\\'b", "1e3", "x=y\\"])
def test_the_commands_that_a_run_prints_work_whatever_its_folder_is_called(shell: Shell, name: str) -> None:
    assert shell.train(*SHORT_RUN, "hydra.run.dir=run") == 0
    folder = (shell.folder / "run").rename(name)
    summary = Summary(**summary_of(folder) | {"status": "interrupted"})
    printed = re.findall(r" (ppo-\S+) (.*)", closing_words(summary, {}, folder, 1.0))
    assert [command for command, _ in printed] == ["ppo-eval", "ppo-eval", "ppo-train"]
    for command, rest in printed:
        more = ["episodes=2", "num_threads=1"] if command == "ppo-eval" else ["total_env_steps=128", "quiet=true"]
        run = {"ppo-eval": shell.eval, "ppo-train": shell.train}[command]
        assert run(*shlex.split(rest), *more) == 0, shell.err
    assert summary_of(folder)["env_steps"] == 128
    assert shell.train(f"resume={name}", "env=acrobot") == 2
    assert shell.errors == ["env=acrobot: a run that goes on keeps its env"]


def test_a_run_of_a_sweep_goes_on_also_between_quotes_and_a_wrong_path_is_told(shell: Shell) -> None:
    assert shell.train("-m", *SHORT_RUN, "clip=0.1,0.2", "quiet=true", "run_name=both") == 0
    run = "outputs/cartpole/ppo/both/clip=0.1"
    for word in (f"resume='{run}'", f'resume="{run}"', f"resume={run}"):
        assert shell.train(word, "quiet=true") == 0, shell.err
    assert shell.train(f"resume={run}5") == 2
    assert shell.errors == [f"{run}5: there is no such run folder"]


def test_the_latest_run_is_looked_for_where_output_dir_says(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "quiet=true", "output_dir=mine") == 0
    (run,) = shell.runs
    assert shell.train("resume=latest", "total_env_steps=96") == 2
    assert shell.errors == ["latest: there is no run with a checkpoint in outputs/"]
    assert shell.train("resume=latest", "output_dir=mine", "total_env_steps=96") == 0, shell.err
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 96
    assert shell.train(f"resume={run}", "output_dir=yours") == 2
    assert "a run that goes on keeps its output_dir" in shell.err


def test_a_run_without_checkpoints_cannot_go_on(shell: Shell) -> None:
    (shell.folder / "run").mkdir()
    (shell.folder / "run/config.yaml").write_text("clip: 1\n")
    assert shell.train("resume=run") == 2
    assert shell.errors == ["run: this run has no checkpoint to start from"]


def test_eval_plays_each_seed_once_and_shows_both_ways_to_act(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "quiet=true") == 0
    assert shell.eval("latest", "episodes=20", "num_envs=8", "num_threads=1") == 0
    first = shell.out
    assert re.search(r"return +[\d.]+ ± [\d.]+ std +[\d.]+ ± [\d.]+ std", first)
    assert "episodes   20 fresh ones, from seed 1" in first
    assert shell.eval(str(shell.runs[0]), "episodes=20", "num_envs=8", "num_threads=1") == 0
    assert shell.out.split("\n", 2)[2] == first.split("\n", 2)[2], "the same seeds give the same figures"


def test_a_win_rate_comes_with_its_interval(shell: Shell) -> None:
    words = [
        "env=minesweeper",
        "env.height=3",
        "env.width=3",
        "env.mines=2",
        *SHORT_RUN[1:],
        "num_minibatches=4",
        "quiet=true",
    ]
    assert shell.train(*words) == 0
    assert shell.eval("latest", "episodes=50", "mode=greedy", "num_threads=1") == 0
    assert re.search(r"win rate +[\d.]+ %  \([\d.]+ to [\d.]+\)$", shell.out, re.MULTILINE)


def test_a_crash_is_shown_once_and_kept(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: object) -> None:
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("ppo_cli.trainer.Trainer.train_once", crash)
    assert shell.train(*SHORT_RUN, "quiet=true") == 1
    assert shell.err.count("RuntimeError: the sky fell") == 1
    (run,) = shell.runs
    assert "RuntimeError: the sky fell" in (run / "error.txt").read_text()
    assert summary_of(run)["status"] == "failed"


def test_a_failed_job_does_not_stop_the_sweep(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from ppo_cli.trainer import Trainer

    train_once = Trainer.train_once

    def crash_on_seed_1(self: Trainer) -> object:
        if self.state.seed == 1:
            raise RuntimeError("seed 1")
        return train_once(self)

    monkeypatch.setattr("ppo_cli.trainer.Trainer.train_once", crash_on_seed_1)
    assert shell.train("-m", *SHORT_RUN, "quiet=true", "seed=1,2") == 1
    assert [summary_of(run)["status"] for run in shell.runs] == ["failed", "completed"]


def test_what_only_the_objects_can_tell_leaves_no_folder(shell: Shell) -> None:
    assert shell.train(*SHORT_RUN, "network=conv") == 2
    assert len(shell.errors) == 1
    assert list(shell.folder.rglob("*")) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_run_and_ends_it_without_a_traceback(tmp_path: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "ppo_cli", "train", *SHORT_RUN, "total_env_steps=1e9"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = None
    for _ in range(600):
        metrics = next(tmp_path.glob("outputs/**/metrics.jsonl"), None)
        if metrics is not None and metrics.stat().st_size:
            break
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert metrics is not None
    assert (process.returncode, "Traceback" in errors) == (code, False)
    summary = summary_of(metrics.parent)
    assert (summary["status"], summary["exit_code"]) == ("interrupted", code)
    assert len(list((metrics.parent / "checkpoints").glob("*.pt"))) == 1
