"""Jobs in processes of their own: as many at once as the cores carry, none able to harm another.

Each job is forked from this process, which has imported what they need and computes nothing meanwhile, and leads a
process group of its own. It dies with this process, whatever ends that; what it leaves behind is killed when it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, Protocol

from ppo_cli.run_reader import JobProgress
from ppo_cli.signals import STOP_SIGNALS, StopRequest

LOG_FILE = "output.log"
"""What a job prints, in its folder."""

POLL_SECONDS = 0.02
LOOK_SECONDS = 0.25
"""Between two looks at how far the jobs are."""

LONGEST_LOOK = 1.0
"""Seconds that a look counts at most: a computer that slept or a halted process says nothing about a job."""

GRACE_SECONDS = 10.0
"""For a job that was stopped because it hangs to save and leave, before it is killed."""

PR_SET_PDEATHSIG = 1
OMP_PAUSE_HARD = 2


Kind = Literal["done", "failed", "stopped"]
"""Of an end: stopped is what the user or whoever runs the jobs wanted so."""


@dataclass(frozen=True)
class Job:
    """One thing to do, and where its run lies."""

    name: str
    folder: Path
    work: Callable[[], int]  # in the process of the job; its exit code
    total_env_steps: int
    cores: int = 1


@dataclass
class Running:
    """A job under way."""

    job: Job
    process: int
    progress: JobProgress
    started: float = field(default_factory=time.monotonic)
    life: tuple[int, int] = (0, 0)  # grows while the job does something
    silent: float = 0.0  # seconds since it last did
    stopped: tuple[Kind, str] | None = None  # that and why it was told to leave
    killed_at: float = math.inf  # when it is killed if it has not left

    def stop(self, kind: Kind, why: str, number: int = signal.SIGTERM, grace: float = math.inf) -> None:
        """Ask the job to save and leave, once: a second signal would end it at once."""
        if self.stopped:
            return
        self.stopped, self.killed_at = (kind, why), time.monotonic() + grace
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, number)

    def kill(self) -> None:
        """End the job and whatever it started."""
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(self.process, signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    job: Job
    exit_code: int  # -n where signal n killed it
    kind: Kind
    text: str  # why, where it is not done
    seconds: float


class JobsDisplay(Protocol):
    """Shows several jobs side by side."""

    def started(self, job: Job) -> None:
        """A job begins."""
        ...

    def ended(self, ended: Ended) -> None:
        """A job is over."""
        ...

    def note(self, text: str) -> None:
        """Print a line that stays."""
        ...

    def show(self, running: Iterable[Running]) -> None:
        """How far the jobs are now."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found."""
        ...


class JobPool:
    """Runs jobs side by side.

    Args:
        display: Shows them.
        cores: What the jobs share.
        at_once: Most jobs at a time; 0 is as many as the cores carry.
        timeout: Seconds without a sign of life after which a job is stopped; 0 never.
        look: Called with each running job now and then; may stop it.
    """

    def __init__(
        self,
        display: JobsDisplay,
        *,
        cores: int,
        at_once: int = 0,
        timeout: float = 0.0,
        look: Callable[[Running], None] = lambda _: None,
    ) -> None:
        self.display = display
        self.cores = cores
        self.at_once = at_once
        self.timeout = timeout
        self.look = look
        self.running: list[Running] = []
        self._looked_at = 0.0

    def run(self, jobs: Iterable[Job], stop: StopRequest) -> Iterator[Ended]:
        """Do all jobs, or stop them all when asked; how each ended, as it ends. A job is taken when there is room."""
        waiting = iter(jobs)
        upcoming: Job | None = None
        self._looked_at = time.monotonic()
        try:
            while True:
                while not stop and self.has_room_for(upcoming):
                    upcoming = upcoming or next(waiting, None)
                    if upcoming is None or not self.has_room_for(upcoming):
                        break
                    self.start(upcoming)
                    upcoming = None
                if stop:
                    for each in self.running:
                        each.stop("stopped", "interrupted", stop.signal_number)
                if not self.running:
                    return
                yield from self.reap()
                self.watch()
                time.sleep(POLL_SECONDS)
        finally:
            for each in self.running:
                each.kill()
            self.display.close()

    def has_room_for(self, job: Job | None) -> bool:
        """Whether the job, or any at all, can start now."""
        if not self.running:
            return True
        if self.at_once:
            return len(self.running) < self.at_once
        return sum(each.job.cores for each in self.running) + (job.cores if job else 1) <= self.cores

    def start(self, job: Job) -> None:
        """Fork the process of a job."""
        job.folder.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        end_openmp_threads()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the child no longer has this process's handlers
        try:
            if not (process := os.fork()):
                do(job, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self.running.append(Running(job, process, JobProgress(job.folder, job.total_env_steps)))
        self.display.started(job)

    def reap(self) -> Iterator[Ended]:
        """The jobs that are over."""
        for each in list(self.running):
            if os.waitid(os.P_PID, each.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            each.kill()  # while the process is not reaped its number cannot mean another one
            exit_code = os.waitstatus_to_exitcode(os.waitpid(each.process, 0)[1])
            self.running.remove(each)
            kind, text = each.stopped or ("failed", how_it_failed(exit_code))
            if exit_code == 0:
                kind, text = "done", ""
            if kind == "failed" and (each.stopped or exit_code < 0):  # the job itself could not say so
                with contextlib.suppress(OSError), (each.job.folder / LOG_FILE).open("a", encoding="utf-8") as log:
                    log.write(f"{text}\n")
            ended = Ended(each.job, exit_code, kind, text, time.monotonic() - each.started)
            self.display.ended(ended)
            yield ended

    def watch(self) -> None:
        """See how far the jobs are; stop those that show no sign of life, kill those that do not leave."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        watched = min(now - self._looked_at, LONGEST_LOOK)
        self._looked_at = now
        for each in self.running:
            life = (each.progress.read().env_steps, log_size(each.job.folder))
            each.silent = each.silent + watched if life == each.life else 0.0
            each.life = life
            if now >= each.killed_at:
                each.kill()
            elif self.timeout and each.silent >= self.timeout:
                why = f"stopped after {self.timeout:g} s without a sign of life"
                each.stop("failed", why, grace=GRACE_SECONDS)
                each.killed_at = min(each.killed_at, now + GRACE_SECONDS)  # where it was asked to leave before
            elif not each.stopped:
                self.look(each)
        self.display.show(self.running)


def how_it_failed(exit_code: int) -> str:
    """In a few words."""
    return f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"


def do(job: Job, parent: int) -> NoReturn:
    """The process of a job: its work with what it prints in a file, and out."""
    exit_code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C reaches the parent, which passes it on
        die_with(parent)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        log = os.open(job.folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for descriptor, file in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
            os.dup2(file, descriptor)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
        exit_code = job.work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(exit_code)


def end_openmp_threads() -> None:
    """End the threads that GNU's OpenMP keeps where this process has computed something; they come back when needed.

    A fork does not copy them, and the child would wait for them for ever at its first operation on several cores.
    """
    with contextlib.suppress(OSError, AttributeError):  # another system, or a library older than OpenMP 5.0
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        for library in {line.split(maxsplit=5)[5] for line in mapped if "/libgomp" in line}:
            ctypes.CDLL(library).omp_pause_resource_all(OMP_PAUSE_HARD)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died meanwhile
        os._exit(1)


def log_size(folder: Path) -> int:
    """Bytes that a job has printed."""
    try:
        return (folder / LOG_FILE).stat().st_size
    except OSError:
        return 0
