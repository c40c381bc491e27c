"""``ppo-search``: what is tried, what is stopped early, what survives a kill, what comes out."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("optuna")

from ppo_cli.cli import search as search_command
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.compose import Composer
from ppo_cli.cli.search_space import Dimension, dimension, spelled_out
from ppo_cli.cli.study import FIRST_RUNG, RUNGS, SearchTrial, Study, mend, score
from tests.cli.helpers import Shell
from tests.cli.test_sweep import processes_in, summary_of, wait_until
from tests.runs import metrics

LEVEL = '''
import time
from typing import Annotated

import torch

from ppo_cli.envs.probes import ConstantValueProbe
from ppo_cli.settings import Range


class Level(ConstantValueProbe):
    """Every episode is one step and pays ``level``: the return is known, whatever is learnt. Low ones are slow."""

    def __init__(
        self,
        num_envs: int,
        level: float = 0.0,
        pause: Annotated[float, Range(at_least=0)] = 0.0,
        breaks_at: float = 99.0,
    ) -> None:
        """A level of ``breaks_at`` or more raises."""
        super().__init__(num_envs)
        self.level, self.pause, self.breaks_at = level, pause, breaks_at

    def step(self, action):
        time.sleep(self.pause * (1 - self.level))
        if self.level >= self.breaks_at:
            raise RuntimeError("too high")
        step = super().step(action)
        return step._replace(reward=torch.full_like(step.reward, self.level))
'''
CONFIG = """
# @package _global_
env: {name: level, _target_: level.Level, level: 0.0, pause: 0.0, breaks_at: 99.0}
"""
WORDS = (
    "--config-dir", "configs", "trust=level", "env=level", "network=mlp", "network.hidden=[8]", "num_envs=2",
    "rollout_length=16", "num_minibatches=2", "num_epochs=1", "total_env_steps=864", "accelerate=eager", "space=levels",
)  # fmt: skip


class SearchShell(Shell):
    def search(self, *words: str) -> int:
        return self._ran(search_command.main(list(words)))

    @property
    def folder_of_search(self) -> Path:
        (folder,) = (path.parent for path in self.folder.glob("outputs/*/*/*/search.yaml"))
        return folder

    def states(self) -> list[str]:
        study = Study(self.folder_of_search, SETTINGS, [], [1]).study
        return [trial.state.name for trial in study.get_trials()]


SETTINGS = {
    "trials": 9, "sampler": "random", "pruner": "none", "startup_trials": 2, "warmup": 0.2, "seeds": 1, "score": "mean",
}  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> SearchShell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PPO_CLI_TRUST", raising=False)
    (tmp_path / "level.py").write_text(LEVEL)
    for group, name, content in (("env", "level", CONFIG), ("space", "levels", "env.level: interval(0.0,1.0)\n")):
        (tmp_path / "configs" / group).mkdir(parents=True)
        (tmp_path / "configs" / group / f"{name}.yaml").write_text(content)
    return SearchShell(tmp_path, capsys)


def parsed(word: str) -> Dimension:
    (override,) = Composer().parse([spelled_out(word)])
    return dimension(override, word.partition("=")[2])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("clip=0.1,0.2", {"choices": ("0.1", "0.2")}),
        ("clip=choice(0.1,0.2)", {"choices": ("0.1", "0.2")}),
        ("network.hidden=[8],[16,16]", {"choices": ("[8]", "[16,16]")}),
        ("clip=range(0.1,0.4,0.1)", {"choices": ("0.1", "0.2", "0.3")}),
        ("num_epochs=range(1,10)", {"low": 1, "high": 9}),
        ("num_epochs=range(0,100,50)", {"choices": ("0", "50")}),
        ("clip=interval(0.1,0.4)", {"low": 0.1, "high": 0.4}),
        ("rollout_length=interval(8,64)", {"low": 8, "high": 64}),
        ("learning_rate=log(1e-5,1e-2)", {"low": 1e-5, "high": 1e-2, "is_log": True}),
        ("learning_rate=tag(log,interval(1e-5,1e-2))", {"low": 1e-5, "high": 1e-2, "is_log": True}),
    ],
)
def test_values_are_spelled_as_in_hydra(word: str, expected: dict[str, object]) -> None:
    found = parsed(word)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.name == word.partition("=")[0]
    assert found.is_whole == (isinstance(expected.get("low"), int))


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("output_dir=/proc/below", r"output_dir=/proc/below: cannot write in /proc \(.*\); choose another output_dir"),
        ("output_dir=", "output_dir=: expected a folder; .*"),
        ("output_dir=level.py", r"output_dir=level.py: .*/level.py is a file, not a folder"),
        ("clip=range(0.3,0.1)", r"clip=range\(0.3,0.1\): there is no value in this range; .*"),
    ],
)
def test_a_search_that_cannot_begin_says_so_in_a_line(lab: SearchShell, word: str, error: str) -> None:
    before = sorted(lab.folder.rglob("*"))
    assert lab.search(*WORDS, word, "trials=1") == 2
    (told,) = lab.errors
    assert re.fullmatch(error, told)
    assert sorted(lab.folder.rglob("*")) == before


@pytest.mark.parametrize("word", ["clip=interval(0.4,0.1)", "clip=log(0,1)", "clip=choice(0.1)"])
def test_nothing_to_choose_from_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="expected"):
        parsed(word)


def test_what_is_printed_of_a_number_is_what_is_run() -> None:
    assert parsed("learning_rate=log(1e-5,1e-2)").word(0.00012345678) == "learning_rate=0.0001235"
    assert parsed("num_epochs=range(1,10)").word(7) == "num_epochs=7"
    assert parsed("network.hidden=[8],[16,16]").word("[16,16]") == "network.hidden=[16,16]"


@pytest.mark.parametrize("count", range(1, 12))
def test_the_score_of_several_seeds_is_scipys_trimmed_mean(count: int) -> None:
    values = list(np.random.default_rng(count).normal(size=count))
    assert score(values, "iqm") == pytest.approx(stats.trim_mean(values, 0.25))
    assert score(values, "mean") == pytest.approx(np.mean(values))


def study_in(folder: Path, **settings: object) -> Study:
    return Study(folder, SETTINGS | settings, [Dimension("level", "", low=0.0, high=1.0)], [1])


def run_through(trial: SearchTrial, value: float) -> int:
    """Feed a flat curve to a trial. Returns the rung at which it is stopped, or the last one."""
    for rung in range(1, RUNGS + 1):
        trial.see(1, rung / RUNGS, value)
        if trial.should_stop():
            return rung
    return RUNGS


def test_the_median_stops_the_lower_half_after_the_warmup_and_never_the_first_trials(tmp_path: Path) -> None:
    study = study_in(tmp_path, pruner="median", startup_trials=3, warmup=0.5)
    trials = study.trials()
    for value in (3.0, 1.0, 2.0):
        trial = next(trials)
        assert run_through(trial, value) == RUNGS
        trial.returns[1] = value
        study.complete(trial)
    assert run_through(next(trials), 1.9) == math.ceil(RUNGS * 0.5), "below the median of 2"
    assert run_through(next(trials), 2.1) == RUNGS


def test_asha_keeps_the_best_third_at_each_of_its_rungs(tmp_path: Path) -> None:
    study = study_in(tmp_path, pruner="asha")
    stopped = [
        run_through(trial, value) for trial, value in zip(study.trials(), (9, 1, 2, 8, 10, 3, 4, 11, 0), strict=True)
    ]
    assert stopped[0] == RUNGS, "the first has nobody to be compared with"
    assert [stopped[n] for n in (1, 2, 5, 6, 8)] == [FIRST_RUNG] * 5
    assert stopped[4] == stopped[7] == RUNGS


def test_a_trial_of_several_seeds_is_compared_by_their_mean_where_all_have_come(tmp_path: Path) -> None:
    trial = next(study_in(tmp_path).trials())
    trial.see(1, 0.5, 4.0)
    trial.see(2, 0.25, 2.0)
    assert not trial.should_stop()
    reported = trial.trial.study.get_trials()[0].intermediate_values
    assert reported == {rung: 3.0 for rung in range(1, int(RUNGS * 0.25) + 1)}


def test_half_a_line_and_a_lock_that_a_kill_leaves_are_taken_away(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    next(study.trials())
    journal = tmp_path / "study.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    (tmp_path / "study.log.lock").symlink_to(journal)
    mend(journal)
    assert journal.read_bytes() == whole
    assert not (tmp_path / "study.log.lock").is_symlink()
    assert len(study_in(tmp_path).study.get_trials()) == 1


def test_the_best_of_a_known_slope_is_named_with_its_command(lab: SearchShell) -> None:
    assert lab.search(*WORDS, "trials=6", "pruner=none", "sampler=random") == 0, lab.err
    scores = {
        float(level): float(value) for value, level in re.findall(r"score +([\d.]+) .*env\.level=([\d.]+)", lab.out)
    }
    assert all(value == pytest.approx(level, abs=0.006) for level, value in scores.items())
    best = re.search(r"^  best +(.*)$", lab.out, re.MULTILINE)
    assert best
    assert best[1].endswith(f"env.level={max(scores):g}")
    assert best[1].startswith("ppo-train --config-dir configs trust=level env=level")
    assert "6 complete" in lab.out
    assert len(lab.runs) == 6


def test_the_command_of_the_best_repeats_each_of_its_runs(lab: SearchShell) -> None:
    assert lab.search(*WORDS, "trials=2", "pruner=none", "seed=4", "seeds=2", "learning_rate=1e-2,1e-3") == 0, lab.err
    number = re.search(r"^  1\. .* trial (\d+)", lab.out, re.MULTILINE)
    best = re.search(r"^  best +ppo-train (.*)$", lab.out, re.MULTILINE)
    assert number
    assert best
    trial = lab.folder_of_search / f"trial={number[1]}"
    assert lab.train(*shlex.split(best[1]), "run_name=again", "quiet=true") == 0, lab.err
    for seed in (4, 5):
        assert metrics(trial / f"seed={seed}") == metrics(lab.folder / f"outputs/level/ppo/again/seed={seed}")


def test_more_trials_go_on_with_the_same_search(lab: SearchShell) -> None:
    assert lab.search(*WORDS, "trials=2", "pruner=none") == 0
    assert lab.search(*WORDS, "trials=4", "pruner=none") == 0
    assert "4 trials, 2 of them done" in lab.out
    assert lab.states() == ["COMPLETE"] * 4
    drawn = {json.dumps(trial.params) for trial in Study(lab.folder_of_search, SETTINGS, [], [1]).study.get_trials()}
    assert len(drawn) == 4, "none is drawn twice"


def test_a_bad_trial_is_stopped_early_and_its_run_says_where(lab: SearchShell) -> None:
    words = (*WORDS, "env.level=1.0,0.0", "env.pause=0.02", "startup_trials=2", "sampler=random", "jobs=1")
    assert lab.search(*words, "trials=5", "seed=4") == 0, lab.err  # draws 1, 1, 1, 1, 0
    assert re.search(r"^  stopped +trial=4,seed=4 +pruned after \d\d % ", lab.out, re.MULTILINE)
    assert lab.states() == [*["COMPLETE"] * 4, "PRUNED"]
    run = lab.folder_of_search / "trial=4/seed=4"
    assert "env.level=0.0" in (run / "overrides.yaml").read_text()
    summary = summary_of(run)
    assert summary["status"] == "interrupted"
    assert 0 < int(str(summary["env_steps"])) < 864


def test_a_failed_trial_is_recorded_and_the_others_go_on(lab: SearchShell) -> None:
    assert lab.search(*WORDS, "env.level=0.5,2.0", "env.breaks_at=1", "trials=6", "sampler=random", "seeds=2") == 0
    states = lab.states()
    assert set(states) == {"COMPLETE", "FAIL"}
    assert lab.out.count(" score ") >= states.count("COMPLETE")
    assert "failed: exit code 1" in lab.out
    assert "env.level=2.0" not in lab.out.split("best")[-1]


def test_a_search_in_which_nothing_comes_out_fails(lab: SearchShell) -> None:
    assert lab.search(*WORDS, "env.breaks_at=-1", "trials=2") == 1
    assert lab.states() == ["FAIL", "FAIL"]


def test_a_killed_search_goes_on_where_it_was(lab: SearchShell) -> None:
    slow = ("env.level=0.0", "env.pause=0.01", "learning_rate=log(1e-4,1e-3)")
    words = (*WORDS, *slow, "trials=4", "pruner=none", "checkpoint_interval=32", "jobs=2", "run_name=search")
    process = subprocess.Popen(
        [sys.executable, "-m", "ppo_cli", "search", *words],
        cwd=lab.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: len(list(lab.folder.glob("outputs/**/trial=2/seed=1/checkpoints/*.pt"))) >= 1)
    assert lab.search(*words) == 2
    assert lab.errors == ["outputs/level/ppo/search: another process is at work in it; again=true begins another"]
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: processes_in(lab.folder) == [os.getpid()])
    before = {trial.number: trial.params for trial in Study(lab.folder_of_search, SETTINGS, [], [1]).study.get_trials()}
    assert "RUNNING" in lab.states()

    assert lab.search(*words) == 0, lab.err
    trials = Study(lab.folder_of_search, SETTINGS, [], [1]).study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert {number: trials[number].params for number in before} == before
    resumed = [run for run in lab.runs if summary_of(run)["start_env_steps"]]
    assert resumed, "what was cut off went on from its checkpoint"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["trails=3"], "trails=3: there is no setting trails. Did you mean"),
        (["sampler=tpee"], "sampler=tpee: expected one of tpe, random; did you mean tpe?"),
        (["space=none_such"], "space=none_such: there is no such file in space/. Choose from: a2c, levels, ppo"),
        (["env=level,cartpole"], "env=level,cartpole: a search is about one env; ppo-train -m compares several"),
        (
            ["env=gymnasium", "env.id=CartPole-v1,Acrobot-v1"],
            "env.id=CartPole-v1,Acrobot-v1: a search is about one env; ppo-train -m compares several",
        ),
        (["clip=interval(-1,0.3)"], "clip=-1: expected a number above 0"),
        (["env.level=0.5"], "ppo-search: nothing to try; give a setting several values, as in clip=interval(0.1,0.4)"),
        (["-m"], "--multirun: ppo-search has no such flag"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(lab: SearchShell, words: list[str], error: str) -> None:
    assert lab.search(*WORDS, *words) == 2
    assert lab.errors[-1].startswith(error)
    assert not (lab.folder / "outputs").exists()


def test_without_optuna_it_says_what_to_install(lab: SearchShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_command, "is_installed", lambda package: False)
    assert lab.search(*WORDS) == 2
    assert lab.errors == ["ppo-search: needs optuna, which is not installed: pip install 'ppo-cli[search]'"]


@pytest.mark.parametrize("algo", ["ppo", "a2c", "vpg", "trpo", "ppo_kl"])
def test_every_algorithms_space_fits_its_settings(lab: SearchShell, algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_command, "is_installed", lambda package: False)
    assert lab.search("env=cartpole", f"algo={algo}") == 2
    assert lab.errors == ["ppo-search: needs optuna, which is not installed: pip install 'ppo-cli[search]'"]
