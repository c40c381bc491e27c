from __future__ import annotations

import json
import os
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from ppo_cli.policy import load_policy
from tests.cli.helpers import SHORT_RUN, Shell

PENDULUM = ["env=pendulum", *SHORT_RUN[1:], "num_minibatches=2", "normalize_obs=true", "run_name=it"]


def trained(shell: Shell, *words: str) -> Path:
    assert shell.train(*words, "quiet=true") == 0, shell.err
    return shell.runs[0]


def test_an_exported_policy_plays_as_the_run_does_and_in_five_lines(shell: Shell) -> None:
    run = trained(shell, *PENDULUM)
    assert shell.export("latest") == 0, shell.err
    assert "policy.safetensors" in shell.out and f"ppo-eval outputs/pendulum/ppo/{run.name}/export" in shell.out
    for folder in (run, run / "export"):
        assert shell.eval(str(folder), "episodes=3", "num_threads=1") == 0, shell.err
    evaluations = [json.loads((folder / "evaluation.json").read_text()) for folder in (run, run / "export")]
    assert evaluations[0] == evaluations[1]

    policy = load_policy(run / "export")
    env = gymnasium.make("Pendulum-v1")
    obs, _ = env.reset(seed=1)
    for _ in range(5):
        action = policy.act(obs)
        assert env.action_space.contains(action)
        obs, *_ = env.step(action)


@pytest.mark.parametrize("vectorization", ["auto", "async"])
@pytest.mark.parametrize("id", ["FrozenLake-v1", "Blackjack-v1"])
def test_an_exported_policy_takes_what_gymnasium_gives_though_it_is_no_array(
    shell: Shell, id: str, vectorization: str
) -> None:
    run = trained(shell, "env=gymnasium", f"env.id={id}", f"env.vectorization={vectorization}", *SHORT_RUN[1:])
    assert shell.export("latest") == 0, shell.err
    policy = load_policy(run / "export")
    env = gymnasium.make(id)
    obs, _ = env.reset(seed=1)
    assert not isinstance(obs, np.ndarray)
    assert env.action_space.contains(policy.act(obs))


def test_what_is_shared_has_no_path_and_no_name_of_this_machine(shell: Shell) -> None:
    output_dir = shell.folder / "private place"
    trained(shell, *PENDULUM, f"output_dir={output_dir}", "env.kwargs.g=9.0", "+trust=my_lab")
    assert shell.export(str(shell.runs[0]), "format=torchscript", "output=share/it") == 0, shell.err
    for path in (shell.folder / "share/it").iterdir():
        content = path.read_bytes()
        for private in (str(shell.folder), str(Path.home()), "private place", "my_lab", os.uname().nodename):
            assert private.encode() not in content, path
    described = json.loads((shell.folder / "share/it/policy.json").read_text())
    assert described["env"]["kwargs"] == {"g": 9.0}
    assert described["training"]["env_steps"] == 64
    assert described["training"]["settings"]["seed"] == 1


def test_one_checkpoint_of_a_run_is_exported(shell: Shell) -> None:
    run = trained(shell, *PENDULUM, "checkpoint_interval=32")
    assert shell.export(str(run / "checkpoints/step_000000000032.pt"), "output=early") == 0, shell.err
    assert json.loads((shell.folder / "early/policy.json").read_text())["training"]["env_steps"] == 32


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "which run? ppo-export <run folder>, or ppo-export latest"),
        ("latest", "latest: there is no run with a checkpoint in outputs/"),
        ("x format=onyx", "format=onyx: expected one of safetensors, onnx, torchscript, all; did you mean onnx?"),
        ("x formt=onnx", "formt=onnx: there is no setting formt. Did you mean format=onnx?"),
        ("x --format onnx", "--format onnx: there is no such flag; settings are written without dashes: format=onnx"),
    ],
)
def test_mistakes_of_export(shell: Shell, line: str, error: str) -> None:
    assert shell.export(*line.split()) == 2
    assert shell.errors == [error]
    assert list(shell.folder.iterdir()) == []


def test_a_folder_of_other_files_is_not_written_over(shell: Shell) -> None:
    trained(shell, *PENDULUM)
    (shell.folder / "thesis").mkdir()
    (shell.folder / "thesis/policy.txt").write_text("mine")
    (shell.folder / "file").touch()
    assert shell.export("latest", "output=thesis") == 2
    assert shell.errors == ["output=thesis: thesis holds other files; choose another folder"]
    assert shell.export("latest", "output=file/x") == 2
    assert shell.errors == [f"output=file/x: {shell.folder}/file is a file, not a folder"]
    assert [path.name for path in (shell.folder / "thesis").iterdir()] == ["policy.txt"]


def test_a_missing_package_is_named_before_anything_is_read(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(shell, *PENDULUM)
    find_spec = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    assert shell.export("latest", "format=all") == 2
    assert shell.errors == ["format=all: needs onnxruntime, which is not installed: pip install 'ppo-cli[onnx]'"]
    assert not (shell.runs[0] / "export").exists()
    assert shell.export("latest", "format=torchscript") == 0


def test_a_strangers_export_is_played_in_an_environment_of_this_package_only(shell: Shell) -> None:
    run = trained(shell, *PENDULUM)
    assert shell.export(str(run), "output=theirs") == 0
    path = shell.folder / "theirs/policy.json"
    described = json.loads(path.read_text())
    for env, reason in (
        (described["env"] | {"_target_": "os.system"}, "the module os is not part of ppo-cli"),
        (described["env"] | {"id": "evil:Env-v0"}, "imports evil; if you trust its code, say trust=evil"),
        (described["env"] | {"id": "CartPole-v1"}, "theirs is a policy for Box"),
        ("x", "expected one of the env configs"),
    ):
        path.write_text(json.dumps(described | {"env": env}))
        assert shell.eval("theirs", "episodes=2") == 2
        assert reason in shell.errors[0]
    path.write_text("[" * 100_000)
    assert shell.eval("theirs", "episodes=2") == 2
    assert shell.errors == ["theirs/policy.json: is not the description of an exported policy"]


def test_export_completes_and_explains_itself(shell: Shell) -> None:
    assert shell.export("-sc", "query=ppo-export latest format=") == 0
    assert shell.out.split() == ["format=safetensors", "format=onnx", "format=torchscript", "format=all"]
    assert shell.export("--help") == 0
    assert "ppo-export latest" in shell.out and "format" in shell.out and "<run>/export" in shell.out
