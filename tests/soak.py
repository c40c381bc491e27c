"""Long runs that must not grow: ``scripts/soak [MINUTES [SEED]]``.

Three runs go side by side, with checkpoints and evaluations at short intervals: compiled CartPole, Gymnasium's CartPole
in worker processes of which one is killed now and then, and a small Minesweeper. Once each has compiled its kernels,
evaluated and saved, memory, open files and threads are sampled. After a warm-up of a quarter
of the time, a run is flat if a line through its memory grows by no more than 2 % or 8 MB, whichever is more, and its
open files and threads are as many in the last quarter as in the one after the warm-up (medians). At the end each run is
asked to stop, must have saved, and must leave no process behind.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ppo_cli.envs.worker import die_with_parent

SHARED = ["total_env_steps=1e9", "keep_checkpoints=2", "eval_episodes=4", "num_threads=1", "log_interval=10"]
KINDS = {
    "cartpole": ["env=cartpole", "num_envs=8", "accelerate=fused", "checkpoint_interval=200000",
                 "eval_interval=200000"],
    "workers": ["env=gymnasium", "env.id=CartPole-v1", "env.vectorization=async", "env.num_workers=2", "num_envs=4",
                "env.max_restarts=100000", "network=mlp", "checkpoint_interval=20000", "eval_interval=20000"],
    "minesweeper": ["env=minesweeper", "env.height=4", "env.width=4", "env.mines=3", "num_envs=64", "network=board",
                    "network.channels=16", "checkpoint_interval=20480", "eval_interval=20480"],
}  # fmt: skip
SAMPLE_EVERY = 5.0  # seconds
KILL_EVERY = 20.0  # seconds, on average
GRACE = 10.0
"""Seconds in which the processes of a run that has ended may follow it."""
IDLE_WORKERS = 4
"""Of evaluation: one that is killed is replaced when the next evaluation begins."""
MOST_GROWTH = 0.02, 8.0  # of the memory, or MB


class Sample(NamedTuple):
    """Of one process at one moment."""

    seconds: float
    memory: float  # MB, resident
    files: int
    threads: int


@dataclass
class Run:
    """One training run, watched from outside."""

    kind: str
    folder: Path
    process: subprocess.Popen[bytes]
    samples: list[Sample] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)  # processes that it started
    kills: int = 0

    def require_running(self) -> None:
        """Show its last words if it has ended."""
        assert self.process.poll() is None, f"{self.kind} has ended: {(self.folder / 'log').read_text()[-2000:]}"

    def sample(self, seconds: float) -> None:
        """Look at it once."""
        proc = Path("/proc") / str(self.process.pid)
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        memory = int(status["VmRSS"].split()[0]) / 1024
        self.samples.append(Sample(seconds, memory, len(os.listdir(proc / "fd")), int(status["Threads"])))
        self.seen |= descendants(self.process.pid)

    def kill_a_worker(self, rng: random.Random) -> None:
        """One that steps environments: a grandchild, of the process that forks them."""
        workers = descendants(self.process.pid) - set(children(self.process.pid))
        if workers:
            os.kill(rng.choice(sorted(workers)), signal.SIGKILL)
            self.kills += 1


def children(pid: int) -> list[int]:
    try:
        tasks = list((Path("/proc") / str(pid) / "task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []


def descendants(pid: int) -> set[int]:
    found = set(children(pid))
    return found.union(*map(descendants, found))


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(kind: str, root: Path) -> Run:
    folder = root / kind
    folder.mkdir()
    command = [sys.executable, "-m", "ppo_cli", "train", *KINDS[kind], *SHARED, "hydra.run.dir=run"]
    log = (folder / "log").open("wb")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, preexec_fn=die_with_parent)
    log.close()
    return Run(kind, folder, process)


def wait_for_first_saves(runs: list[Run]) -> None:
    """Until every run has a checkpoint."""
    while not all(any((run.folder / "run/checkpoints").glob("*.pt")) for run in runs):
        time.sleep(1.0)
        for run in runs:
            run.require_running()


def watch(runs: list[Run], seconds: float, rng: random.Random) -> None:
    """Sample all runs, and kill a worker now and then, for this long."""
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        time.sleep(SAMPLE_EVERY)
        for run in runs:
            run.require_running()
            run.sample(passed)
            if rng.random() < SAMPLE_EVERY / KILL_EVERY:
                run.kill_a_worker(rng)


def stop(run: Run) -> list[str]:
    """Ask it to end; what is wrong with how it did."""
    run.process.terminate()
    code = run.process.wait(timeout=600)  # it may be compiling
    summary = json.loads((run.folder / "run/summary.json").read_text())
    deadline = time.monotonic() + GRACE
    while (left := [pid for pid in run.seen if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    warnings = [line for line in (run.folder / "log").read_text().splitlines() if line.startswith("warning: ")]
    others = [line for line in warnings if "was killed by SIGKILL" not in line]
    restarts = summary["faults"].get("faults/worker_restarts", 0)
    checks = {
        f"exit code {code}": code == 128 + signal.SIGTERM,
        f"status {summary['status']}": summary["status"] == "interrupted" and summary["checkpoint"] is not None,
        f"processes left: {left}": not left,
        f"warnings: {others}": not others,
        f"{run.kills} workers killed, {restarts} replaced": run.kills - IDLE_WORKERS <= restarts <= run.kills,
    }
    return [what for what, is_right in checks.items() if not is_right]


def judge(run: Run) -> tuple[str, list[str]]:
    """A row of the table, and what grew."""
    steady = run.samples[len(run.samples) // 4 :]
    seconds, memory = [s.seconds for s in steady], [s.memory for s in steady]
    slope = statistics.linear_regression(seconds, memory).slope
    growth = slope * (seconds[-1] - seconds[0])
    third = max(1, len(steady) // 3)
    problems = []
    if growth > max(MOST_GROWTH[0] * memory[0], MOST_GROWTH[1]):
        problems.append(f"memory grew by {growth:.1f} MB")
    counts = []
    for name in ("files", "threads"):
        before, after = (
            statistics.median(getattr(s, name) for s in part) for part in (steady[:third], steady[-third:])
        )
        counts.append(f"{before:g} -> {after:g}")
        if before != after:
            problems.append(f"{name}: {counts[-1]}")
    columns = [
        run.kind, f"{len(run.samples)}", f"{min(memory):.0f} to {max(memory):.0f}", f"{3600 * slope:+.1f}", *counts,
        f"{run.kills}",
    ]  # fmt: skip
    return "  ".join(f"{column:<14}" for column in columns), problems


def main(minutes: float = 30.0, seed: int = 1) -> int:
    """Print the table and the verdict. Returns the exit code."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        runs = [start(kind, Path(root)) for kind in KINDS]
        try:
            wait_for_first_saves(runs)
            watch(runs, 60 * minutes, rng)
            rows = {run.kind: judge(run) for run in runs}
            problems = {run.kind: rows[run.kind][1] + stop(run) for run in runs}
        finally:
            for run in runs:
                run.process.kill()
                run.process.wait()
        heads = ("run", "samples", "memory, MB", "MB an hour", "files", "threads", "workers killed")
        print("  ".join(f"{head:<14}" for head in heads))
        for row, _ in rows.values():
            print(row)
    grown = {kind: found for kind, found in problems.items() if found}
    print(f"after {minutes:g} minutes: " + ("; ".join(f"{k}: {', '.join(p)}" for k, p in grown.items()) or "flat"))
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
