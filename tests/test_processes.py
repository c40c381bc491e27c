"""Jobs side by side: as many as there is room for, and none that outstays its welcome."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ppo_cli import processes
from ppo_cli.processes import Ended, Job, JobPool, Running
from ppo_cli.progress_jobs import SilentJobs
from ppo_cli.signals import StopRequest


def jobs(folder: Path, works: list[Callable[[], int]], cores: int = 1) -> list[Job]:
    return [Job(str(n), folder / str(n), work, 1, cores) for n, work in enumerate(works)]


def run(pool: JobPool, todo: Iterator[Job] | list[Job]) -> dict[str, Ended]:
    return {ended.job.name: ended for ended in pool.run(todo, StopRequest())}


def noted(folder: Path, seconds: float = 0.2) -> Callable[[], int]:
    """Work that notes in files of its own when it began and ended."""

    def work() -> int:
        stamp = folder / f"{os.getpid()}"
        begun = time.monotonic()
        time.sleep(seconds)
        stamp.write_text(f"{begun} {time.monotonic()}")
        return 0

    return work


def most_at_once(folder: Path) -> int:
    spans = [tuple(map(float, path.read_text().split())) for path in folder.glob("[0-9]*") if path.is_file()]
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


@pytest.mark.parametrize(
    ("options", "cores", "most"),
    [({"cores": 3}, 1, 3), ({"cores": 3}, 2, 1), ({"cores": 1}, 4, 1), ({"cores": 1, "at_once": 2}, 1, 2)],
)
def test_jobs_share_the_cores_unless_told_how_many_at_once(
    tmp_path: Path, options: dict[str, int], cores: int, most: int
) -> None:
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    ended = run(JobPool(SilentJobs(), **options), jobs(tmp_path, [noted(stamps)] * 5, cores))  # type: ignore[arg-type]
    assert [each.kind for each in ended.values()] == ["done"] * 5
    assert most_at_once(stamps) <= most
    if most > 1:
        assert most_at_once(stamps) > 1


def test_a_job_is_taken_when_there_is_room_for_it(tmp_path: Path) -> None:
    taken = over = 0

    def todo() -> Iterator[Job]:
        nonlocal taken
        for job in jobs(tmp_path, [lambda: 0] * 4):
            taken += 1
            assert taken == over + 1, "none is taken before the one before it is over"
            yield job

    for _ in JobPool(SilentJobs(), cores=1).run(todo(), StopRequest()):
        over += 1
    assert over == 4


def test_what_a_job_prints_and_how_it_dies_are_in_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def speak() -> int:
        print("hello")
        os.system("echo from below")
        return 0

    def die() -> int:
        print("goodbye", flush=True)
        os.kill(os.getpid(), signal.SIGUSR2)
        return 0

    def fall() -> int:
        raise RuntimeError("never mind")

    ended = run(JobPool(SilentJobs(), cores=2), jobs(tmp_path, [speak, die, fall]))
    logs = [(tmp_path / name / "output.log").read_text() for name in "012"]
    assert logs[0] == "hello\nfrom below\n"
    assert logs[1] == "goodbye\nkilled by SIGUSR2\n"
    assert logs[2].endswith("RuntimeError: never mind\n")
    assert [(ended[name].kind, ended[name].text) for name in "012"] == [
        ("done", ""),
        ("failed", "killed by SIGUSR2"),
        ("failed", "exit code 1"),
    ]
    assert "hello" not in capsys.readouterr().out


def deaf() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def test_a_job_without_a_sign_of_life_is_asked_to_leave_and_then_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)

    def alive() -> int:
        for _ in range(8):
            time.sleep(0.3)
            print("still here")
        return 0

    ended = run(JobPool(SilentJobs(), cores=2, timeout=1.0), jobs(tmp_path, [deaf, alive]))
    assert (ended["0"].kind, ended["0"].exit_code) == ("failed", -signal.SIGKILL)
    assert ended["0"].text == "stopped after 1 s without a sign of life"
    assert ended["1"].kind == "done"


def test_what_a_job_started_dies_with_it(tmp_path: Path) -> None:
    def leave_a_child() -> int:
        if not (child := os.fork()):
            time.sleep(600)
            os._exit(0)
        (tmp_path / "child").write_text(str(child))
        return 0

    run(JobPool(SilentJobs(), cores=1), jobs(tmp_path, [leave_a_child]))
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(child)


def is_alive(process: int) -> bool:
    """Whether the process exists, and is no zombie that waits for its parent to look."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_pool_that_is_left_leaves_nobody_behind(tmp_path: Path) -> None:
    pool = JobPool(SilentJobs(), cores=2)
    endings = pool.run(iter(jobs(tmp_path, [lambda: 0, deaf])), StopRequest())
    assert next(endings).job.name == "0"
    (other,) = pool.running
    endings.close()  # type: ignore[attr-defined]
    assert os.waitpid(other.process, 0)[1] == signal.SIGKILL


def test_whoever_looks_may_stop_a_job_and_it_has_not_failed(tmp_path: Path) -> None:
    def stop(running: Running) -> None:
        running.stop("stopped", "enough")

    def work() -> int:
        time.sleep(30)
        return 0

    ended = run(JobPool(SilentJobs(), cores=1, look=stop), jobs(tmp_path, [work]))
    assert (ended["0"].kind, ended["0"].text) == ("stopped", "enough")


def test_a_job_computes_on_several_cores_though_this_process_has_done_so_before(tmp_path: Path) -> None:
    def compute() -> int:
        torch.set_num_threads(2)
        return 0 if torch.ones(1_000_000).exp().sum() > 0 else 1

    before = torch.get_num_threads()
    try:
        assert compute() == 0  # OpenMP's threads are there now, and would not be in a fork
        (ended,) = run(JobPool(SilentJobs(), cores=2, timeout=20), jobs(tmp_path, [compute])).values()
        assert compute() == 0  # here too they come back
    finally:
        torch.set_num_threads(before)
    assert (ended.kind, ended.text) == ("done", "")
