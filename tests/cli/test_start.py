"""What must be quick: help, the printed settings, tab completion and mistakes never import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ppo_cli.__main__ import COMMANDS

PROBE = """
import json, sys, time
from ppo_cli.cli.{command} import main
started = time.process_time()
code = main({words!r})
heavy = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps({{"code": code, "heavy": heavy}}), file=sys.stderr)
"""

HEAVY = ("torch", "numpy", "gymnasium", "tensorboard", "numba", "matplotlib", "optuna")


def probe(folder: Path, command: str, words: list[str]) -> dict[str, object]:
    script = PROBE.format(command=command, words=words, heavy=HEAVY)
    result = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    answer: dict[str, object] = json.loads(result.stderr.splitlines()[-1])
    return answer


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        ("train", ["--help"], 0),
        ("train", ["env=cartpole", "network=mlp", "--help"], 0),
        ("train", ["--version"], 0),
        ("train", ["-sc", "install=bash"], 0),
        ("train", ["-sc", "query=ppo-train env=cartpole clip"], 0),
        ("train", ["--info", "searchpath"], 0),
        ("train", ["clip=-1"], 2),
        ("train", ["env.mines=81"], 2),
        ("train", ["env=minesweeper", "--cfg", "job"], 0),
        ("eval", ["--help"], 0),
        ("eval", ["-sc", "query=ppo-eval mode="], 0),
        ("eval", ["nowhere"], 2),
        ("play", ["--help"], 0),
        ("play", ["-sc", "query=ppo-play latest sample="], 0),
        ("play", ["nowhere", "output=x.avi"], 2),
        ("report", ["--help"], 0),
        ("report", ["-sc", "query=ppo-report latest format="], 0),
        ("search", ["--help"], 0),
        ("search", ["-sc", "query=ppo-search sampler="], 0),
        ("export", ["--help"], 0),
        ("export", ["-sc", "query=ppo-export latest format="], 0),
    ],
)
def test_nothing_heavy_is_imported(tmp_path: Path, command: str, words: list[str], code: int) -> None:
    assert probe(tmp_path, command, words) == {"code": code, "heavy": []}


def test_a_gymnasium_id_is_checked_without_torch(tmp_path: Path) -> None:
    assert probe(tmp_path, "train", ["env=acrobot", "--cfg", "job"]) == {"code": 0, "heavy": ["numpy", "gymnasium"]}


def test_python_m_ppo_cli_is_the_same_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ppo_cli", "train", "clip=-1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "error: clip=-1: expected a number above 0\n")


def test_python_m_ppo_cli_names_its_commands(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ppo_cli", "trian"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (
        2,
        f"error: python -m ppo_cli expects a command: {', '.join(COMMANDS)}\n",
    )


def test_a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    line = f"{sys.executable} -m ppo_cli train --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


FIRST_UPDATE = """
import json, sys
from pathlib import Path
from ppo_cli.cli.train import trainer_of
sizes = ["num_envs=16", "rollout_length=2", "num_minibatches=1", "num_epochs=1", "num_threads=2"]
trainer_of(["env=minesweeper", *sizes, "quiet=true"], Path("run")).train_once()
print(json.dumps(sorted(name for name in {dear!r} if name in sys.modules)))
"""

DEAR = (
    "torch._dynamo", "torch._inductor", "torch.utils.tensorboard", "tensorboard.program", "tensorflow", "sympy",
    "tensorboard.compat.tensorflow_stub", "scipy.linalg", "scipy.sparse", "pandas", "matplotlib", "stable_baselines3",
)  # fmt: skip
"""Each takes a tenth of a second or some megabytes to import, and a run of Minesweeper needs none of them."""


def test_the_first_update_is_reached_without_dear_imports(tmp_path: Path) -> None:
    script = FIRST_UPDATE.format(dear=DEAR)
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []


WHOLE_RUN = """
import atexit, gc
from ppo_cli.cli.train import main
atexit.register(lambda: print(len(gc.get_objects())))  # run after what `main` registers
words = ["env=cartpole", "num_envs=2", "rollout_length=16", "num_minibatches=1", "total_env_steps=32", "quiet=true"]
main(words)
print(gc.get_freeze_count(), gc.isenabled())
"""


def test_the_garbage_collector_passes_over_what_is_imported_and_over_everything_at_the_end(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", WHOLE_RUN], cwd=tmp_path, capture_output=True, text=True, check=True)
    *_, after_run, at_exit = run.stdout.splitlines()
    frozen, is_enabled = after_run.split()
    assert int(frozen) > 100_000
    assert is_enabled == "True"
    assert int(at_exit) < 1_000
