"""Many short commands, each in a process of its own that something happens to, for the price of one start.

``python -m tests.cli.forked`` reads cases as JSON from standard input and prints how each ended. It has one thread when
it forks, and what it forks is what a user would run, but for the hook that makes something happen at a known moment.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

ROOT = Path(__file__).parents[2]


class Case(TypedDict, total=False):
    folder: str  # where the command runs
    words: list[str]  # of ppo-train
    phase: str  # when the signal comes
    signal: int
    times: int  # how many signals
    largest_file: int  # bytes


class Ended(TypedDict):
    code: int  # exit code, or -n where signal n killed it
    out: str
    err: str


def run_cases(cases: Sequence[Case]) -> list[Ended]:
    """Each case in its order; the folders are made."""
    command = [sys.executable, "-m", "tests.cli.forked"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, input=json.dumps(cases), capture_output=True, text=True, env=environment, cwd=ROOT, timeout=250
    )
    assert finished.returncode == 0, finished.stderr
    codes = json.loads(finished.stdout)
    return [
        Ended(code=code, out=(Path(case["folder"]) / "out").read_text(), err=(Path(case["folder"]) / "err").read_text())
        for case, code in zip(cases, codes, strict=True)
    ]


def main() -> None:
    import torch

    from ppo_cli.cli import build, train  # noqa: F401 (what is imported here, a case need not import)

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first optimizer imports half of torch
    codes = []
    for case in json.load(sys.stdin):
        Path(case["folder"]).mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if not child:
            run_case(case)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))


def run_case(case: Case) -> None:
    """In the child: the command, and out."""
    os.chdir(case["folder"])
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    from ppo_cli.cli.train import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    if "phase" in case:
        happen(case["phase"], case["signal"], case.get("times", 1))
    if "largest_file" in case:
        resource.setrlimit(resource.RLIMIT_FSIZE, (case["largest_file"],) * 2)
    code = 99
    try:
        code = main(case["words"])
    finally:
        sys.stdout.flush()
        os._exit(code)


def happen(phase: str, number: int, times: int) -> None:
    """Let the signal come in the middle of a phase, for the first time or, in a rollout, at its fortieth step."""
    from ppo_cli import checkpoint
    from ppo_cli.cli import build
    from ppo_cli.rollout import Collector
    from ppo_cli.train_state import TrainState

    owner, name, call = {
        "start": (build, "build_state", 1),
        "evaluator": (build, "build_evaluation_env", 1),
        "greeting": (build, "facts", 1),
        "rollout": (Collector, "collect_step", 40),
        "update": (TrainState, "descend", 20),
        "evaluation": (build, "evaluate", 1),
        "save": (checkpoint, "write_atomically", 2),
    }[phase]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def interrupted(*args: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if call <= calls < call + times:
            os.kill(os.getpid(), number)
        return original(*args, **keywords)

    setattr(owner, name, interrupted)


if __name__ == "__main__":
    main()
