"""Several jobs on one terminal, or in one pipe."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ppo_cli.processes import Ended, Job, Kind, Running
from ppo_cli.progress import Snapshot
from ppo_cli.progress_jobs import LiveJobs, PlainJobs, SilentJobs, ending
from ppo_cli.run_reader import JobProgress


def job(name: str, folder: Path) -> Job:
    return Job(name, folder / name, lambda: 0, 1000)


def ended(name: str, folder: Path, kind: Kind, text: str = "") -> Ended:
    return Ended(job(name, folder), 0, kind, text, 65.0)


def running(name: str, folder: Path, env_steps: int) -> Running:
    each = Running(job(name, folder), 1, JobProgress(folder, 1000))
    each.progress.snapshot = Snapshot(env_steps, 1000, 50.0, {"charts/episodic_return": 12.5} if env_steps else {})
    return each


def test_a_line_for_each_running_job_and_one_for_the_whole(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=110)
    clock = [0.0]
    display = LiveJobs(4, console, clock=lambda: clock[0])
    display.ended(ended("clip=0.1", tmp_path, "done"))
    display.ended(ended("clip=0.2", tmp_path, "failed", "killed by SIGKILL"))
    clock[0] = 30.0
    with console.capture() as capture:
        console.print(display.picture([running("clip=0.3", tmp_path, 500), running("clip=0.4", tmp_path, 0)]))
    _, first, second, whole = [line.split() for line in capture.get().splitlines()]
    assert [word for word in first if "━" not in word] == [
        "clip=0.3", "50", "%", "50", "steps/s", "return", "12.5", "0:10", "left",
    ]  # fmt: skip
    assert [word for word in second if "━" not in word] == ["clip=0.4", "0", "%", "starting"]
    assert [word for word in whole if "━" not in word and "╸" not in word and "╺" not in word] == [
        *(["2", "of", "4", "over", "62", "%"]), "1", "failed", "0:18", "left",
    ]  # fmt: skip


def test_the_end_of_a_job_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good/summary.json").write_text(json.dumps({"final": {"charts/episodic_return": 123.45}}))
    assert ending(ended("good", tmp_path, "done")) == "done      good   return 123.5   1:05"
    assert ending(ended("new", tmp_path, "done")) == "done      new   1:05", "no episode has ended"
    assert ending(ended("cut", tmp_path, "stopped", "interrupted")) == "stopped   cut   interrupted"
    killed = ending(ended("bad", tmp_path, "failed", "killed by SIGKILL"))
    assert killed == f"failed    bad   killed by SIGKILL   {tmp_path}/bad/output.log"


def test_a_pipe_gets_a_line_an_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainJobs(2)
    display.started(job("a", tmp_path))
    display.show([running("a", tmp_path, 500)])
    display.ended(ended("a", tmp_path, "done"))
    display.note("a word")
    display.close()
    assert capsys.readouterr().out.splitlines() == ["  started   a", "  done      a   1:05   (1 of 2)", "  a word"]


def test_quiet_tells_of_failures_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    display = SilentJobs()
    display.started(job("a", tmp_path))
    display.ended(ended("a", tmp_path, "done"))
    display.ended(ended("b", tmp_path, "failed", "exit code 1"))
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"warning: failed    b   exit code 1   {tmp_path}/b/output.log\n")
