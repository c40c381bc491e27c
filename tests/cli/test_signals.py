"""Every signal in every phase: what was learnt is saved, the exit code tells, and the run goes on as if left alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ppo_cli import checkpoint
from tests.cli.forked import Case, run_cases
from tests.runs import metrics

PHASES = ["rollout", "update", "evaluation", "save"]
WORDS = [
    "env=gymnasium", "env.id=CartPole-v1", "env.vectorization=sync", "network=mlp", "network.hidden=[16]", "num_envs=2",
    "rollout_length=32", "total_env_steps=384", "checkpoint_interval=128", "eval_interval=128", "eval_episodes=2",
    "num_threads=1", "accelerate=eager", "quiet=true", "run_name=run",
]  # fmt: skip
RUN = "outputs/CartPole-v1/ppo/run"


def of_all(*, slow_but: signal.Signals) -> list[Any]:
    """Every signal; one of them in the quick suite, since each takes ten processes."""
    return [
        number if number == slow_but else pytest.param(number, marks=pytest.mark.slow)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    ]


@pytest.mark.parametrize("number", of_all(slow_but=signal.SIGTERM))
def test_a_signal_in_any_phase_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    cases = [Case(folder=str(tmp_path / "alone"), words=WORDS)]
    for phase in PHASES:
        cases.append(Case(folder=str(tmp_path / phase), words=WORDS, phase=phase, signal=number))
        cases.append(Case(folder=str(tmp_path / phase), words=["resume=latest"]))
    alone, *ended = run_cases(cases)
    assert alone["code"] == 0, alone["err"]
    for phase, stopped, resumed in zip(PHASES, ended[::2], ended[1::2], strict=True):
        assert (stopped["code"], stopped["err"]) == (128 + number, ""), phase
        assert (resumed["code"], resumed["err"]) == (0, ""), phase
        run = tmp_path / phase / RUN
        assert metrics(run) == metrics(tmp_path / "alone" / RUN), phase
        checkpoint.load_newest(run / "checkpoints")
        assert not list(run.rglob("*.tmp")), phase


@pytest.mark.parametrize("number", of_all(slow_but=signal.SIGHUP))
def test_a_signal_before_the_run_has_begun_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    phases = ("start", "evaluator")
    cases = [Case(folder=str(tmp_path / phase), words=WORDS, phase=phase, signal=number) for phase in phases]
    for phase, ended in zip(phases, run_cases(cases), strict=True):
        assert (ended["code"], ended["err"].strip()) == (128 + number, "stopped")
        assert {path.name for path in (tmp_path / phase).iterdir()} == {"out", "err"}


@pytest.mark.parametrize("number", of_all(slow_but=signal.SIGTERM))
def test_a_signal_between_the_folder_and_the_first_update_is_in_the_summary(
    tmp_path: Path, number: signal.Signals
) -> None:
    (ended,) = run_cases([Case(folder=str(tmp_path), words=WORDS, phase="greeting", signal=number)])
    assert (ended["code"], ended["err"].strip()) == (128 + number, "stopped")
    summary = json.loads((tmp_path / RUN / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"], summary["error"]) == ("interrupted", 128 + number, None)


@pytest.mark.parametrize("number", of_all(slow_but=signal.SIGINT))
def test_a_second_signal_leaves_at_once(tmp_path: Path, number: signal.Signals) -> None:
    (ended,) = run_cases([Case(folder=str(tmp_path), words=WORDS, phase="rollout", signal=number, times=2)])
    assert ended["code"] == (130 if number == signal.SIGINT else -number)
    run = tmp_path / RUN
    assert [row["env_steps"] for row in metrics(run)] == [64], "the second rollout was not finished"
    assert not list((run / "checkpoints").glob("*.pt"))
