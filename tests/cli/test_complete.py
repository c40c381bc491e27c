from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.helpers import Shell


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ppo-train clip_s", ["clip_schedule="]),
        ("ppo-train clip_schedule=l", ["clip_schedule=linear"]),
        ("ppo-train clip=", ["clip=0.2"]),
        ("ppo-train env=cart", ["env=cartpole"]),
        ("ppo-train -m env=cartpole,pend", ["env=cartpole,pendulum"]),
        ("ppo-train network=mlp network.act", ["network.activation="]),
        ("ppo-train env=gymnasium env.id=Acro", ["env.id=Acrobot-v1"]),
        ("ppo-train --cfg j", ["job"]),
        ("ppo-train --config-d", ["--config-dir"]),
        ("ppo-train resume=", ["resume=latest"]),
        ("ppo-train nonsense", []),
        ("ppo-train clip=-1 nonsense=1 clip_s", ["clip_schedule="]),
    ],
)
def test_words_of_train(shell: Shell, line: str, words: list[str]) -> None:
    assert shell.train("-sc", f"query={line}") == 0
    assert (shell.out.split(), shell.err) == (words, "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ppo-eval l", ["latest"]),
        ("ppo-eval latest mod", ["mode="]),
        ("ppo-eval latest mode=", ["mode=both", "mode=greedy", "mode=sampled"]),
    ],
)
def test_words_of_eval(shell: Shell, line: str, words: list[str]) -> None:
    assert shell.eval("-sc", f"query={line}") == 0
    assert shell.out.split() == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ppo-play l", ["latest"]),
        ("ppo-play latest l", ["latest"]),
        ("ppo-play latest sample=", ["sample=true", "sample=false"]),
        ("ppo-play latest out", ["output="]),
    ],
)
def test_words_of_play(shell: Shell, line: str, words: list[str]) -> None:
    assert shell.play("-sc", f"query={line}") == 0
    assert shell.out.split() == words


def test_run_folders_are_offered_newest_first(shell: Shell) -> None:
    for age, name in enumerate(("new", "old")):
        run = shell.folder / "outputs/cartpole/ppo" / name
        (run / "checkpoints").mkdir(parents=True)
        for file in ("config.yaml", "checkpoints/step_000000000064.pt"):
            (run / file).touch()
            os.utime(run / file, (1e9 - age, 1e9 - age))
    assert shell.eval("-sc", "query=ppo-eval outputs") == 0
    assert shell.out.split() == ["outputs/cartpole/ppo/new", "outputs/cartpole/ppo/old"]


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_the_installed_script_is_valid(shell: Shell, shell_name: str) -> None:
    assert shell.train("-sc", f"install={shell_name}") == 0
    assert "ppo-train -sc query=" in shell.out or shell_name == "bash"
    if program := shutil.which(shell_name):
        subprocess.run([program, "-n"], input=shell.out, text=True, check=True)


def test_bash_replaces_what_follows_the_equals_sign(shell: Shell, tmp_path: Path) -> None:
    shell.train("-sc", "install=bash")
    fake = tmp_path / "ppo-train"
    fake.write_text("#!/bin/sh\nprintf 'env=minesweeper\\nenv=mountain_car\\n'\n")
    fake.chmod(0o755)
    script = f"{shell.out}\nPATH={tmp_path}:$PATH COMP_LINE='ppo-train env=mi' COMP_POINT=16 COMP_WORDS=(ppo-train)\n"
    script += "_ppo_train; echo ${COMPREPLY[@]}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "minesweeper mountain_car\n"


def test_an_unknown_shell_is_told(shell: Shell) -> None:
    assert shell.train("-sc", "install=tcsh") == 2
    assert shell.errors == ["-sc install=tcsh: expected install= or uninstall= and one of bash, zsh, fish"]
