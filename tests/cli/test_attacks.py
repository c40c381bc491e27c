"""Files from a stranger, and names that would lead elsewhere: each attack is refused with a reason and does nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ppo_cli.run_files import write_atomically
from tests.cli.helpers import SHORT_RUN, Shell

SECRET = "hunter2-and-some-more"
PROOF = "pwned"


class Payload:
    """What it is unpickled to has made a file."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (PROOF, "w")


@pytest.fixture
def run(shell: Shell) -> Path:
    assert shell.train(*SHORT_RUN, "quiet=true", "run_name=it") == 0, shell.err
    (run,) = shell.runs
    return run


def commands(shell: Shell, run: Path) -> dict[str, list[str]]:
    return {
        "eval": [str(run), "episodes=2", "num_threads=1"],
        "export": [str(run)],
        "train": [f"resume={run}", "total_env_steps=128"],
    }


def assert_refused(shell: Shell, run: Path, *reasons: str) -> None:
    """Each command that reads the run says one of the reasons, and nothing has been run or written."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for command, words in commands(shell, run).items():
        assert getattr(shell, command)(*words) == 2, (command, shell.out, shell.err)
        assert any(reason in shell.err for reason in reasons), (command, shell.err)
        assert "Traceback" not in shell.err
    assert not (shell.folder / PROOF).exists()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def plant(run: Path, data: bytes) -> None:
    """The newest checkpoint, with a digest that agrees."""
    path = run / "checkpoints/step_000000009999.pt"
    for old in path.parent.iterdir():
        old.unlink()
    path.write_bytes(data)
    path.with_suffix(".sha256").write_text(hashlib.sha256(data).hexdigest())


def torch_bytes(content: object) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Payload()),
        torch_bytes(Payload()),
        torch_bytes({"format": 1, "state": {"actor_critic": {"x": Payload()}}}),
        torch_bytes([1, 2]),
        torch_bytes({"format": 1}),
        torch_bytes({"format": 1, "state": 7}),
        torch_bytes({"format": 1, "state": {"actor_critic": 3}}),
        b"",
        b"PK\x03\x04",
    ],
)
def test_a_checkpoint_that_would_run_code_or_is_none_is_refused_by_every_command(
    shell: Shell, run: Path, data: bytes
) -> None:
    plant(run, data)
    assert_refused(shell, run, "not a checkpoint", "no checkpoint of a learner")


EVIL_MODULE = f"""
open({PROOF!r}, "w").close()

class Evil:
    def __init__(self, *_, **__):
        open({PROOF!r}, "w").close()
"""


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        (
            "env",
            {"_target_": "evil.Evil"},
            "the module evil is not part of ppo-cli; if you trust its code, say trust=evil",
        ),
        ("network", {"_target_": "evil.Evil"}, "trust=evil"),
        ("algo", {"_target_": "evil.Evil"}, "trust=evil"),
        ("algo", {"_target_": "ppo_cli.cli.train.main"}, "expected a class of ppo_cli.algorithms."),
        ("env", {"_target_": "ppo_cli.checkpoint.remove"}, "expected a class of ppo_cli.envs."),
        ("network", {"_target_": "os.system", "command": f"touch {PROOF}"}, "trust=os"),
        (
            "env",
            {
                "_target_": "ppo_cli.envs.gymnasium_adapter.GymnasiumVecEnv",
                "id": "evil:Evil-v0",
                "name": "x",
                "dynamics": None,
            },
            "env.",
        ),
        ("trust", ["evil"], ""),
    ],
)
def test_a_run_folder_that_names_code_is_refused_by_every_command(
    shell: Shell, run: Path, part: str, change: object, reason: str
) -> None:
    (shell.folder / "evil.py").write_text(EVIL_MODULE)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[part] = {**config[part], **change} if isinstance(change, dict) else change
    if part == "trust":
        config["env"]["_target_"], reason = "evil.Evil", "trust=evil"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert_refused(shell, run, reason)
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch pwned']",
        "env: !!python/name:os.system",
        "a: [",
        "- 1\n- 2",
        "x",
        "",
        "\x00",
        "env: 3\nalgo: []",
        "{}: {}",
        "a: &a [*a]",
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]),
        "\n".join(
            [
                "env: {a: 1}",
                "algo: {a: 1}",
                "network: {a: 1}",
                "x0: xx",
                *(f"x{n}: {f'${{x{n - 1}}}' * 10}" for n in range(1, 10)),
            ]
        ),
        "[" * 100_000,
        "a" * (1 << 19),
    ],
)
def test_a_config_that_is_none_is_refused_by_every_command(shell: Shell, run: Path, text: str) -> None:
    (run / "config.yaml").write_text(text)
    assert_refused(shell, run, "config.yaml: ")


def test_links_out_of_a_run_folder_are_not_written_through(shell: Shell, run: Path) -> None:
    diary = shell.folder / "diary.txt"
    for name in ("metrics.jsonl", "checkpoints", "export"):
        copy = shell.folder / f"theirs-{name}"
        shutil.copytree(run, copy)
        target = shell.folder / f"mine-{name}"
        if (copy / name).is_dir():
            shutil.move(copy / name, target)
        else:
            (copy / name).unlink(missing_ok=True)
            diary.write_text("dear diary")
            target = diary if name == "metrics.jsonl" else target
            target.exists() or target.mkdir()
        (copy / name).symlink_to(target)
        before = {path: path.read_bytes() for path in shell.folder.glob("mine-*/*")}
        assert shell.train(f"resume={copy}", "total_env_steps=128") == 2
        assert f"{name} links to a place outside of the run's folder" in shell.err
        assert shell.export(str(copy)) == 2
        assert "links to a place outside" in shell.err
        assert {path: path.read_bytes() for path in shell.folder.glob("mine-*/*")} == before
        assert diary.read_text() == "dear diary"


def test_links_out_of_a_seed_that_has_saved_nothing_are_not_written_through(shell: Shell, run: Path) -> None:
    group, mine = shell.folder / "group", shell.folder / "mine"
    shutil.copytree(run, group / "seed=1")
    mine.mkdir()
    (group / "seed=2").mkdir()
    (group / "seed=2/checkpoints").symlink_to(mine)
    assert shell.train("resume=group", "seeds=2", "total_env_steps=128") == 2
    assert "checkpoints links to a place outside of the run's folder" in shell.err
    assert not any(mine.iterdir())


def test_a_link_in_the_place_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    (tmp_path / f".config.yaml.{os.getpid()}.tmp").symlink_to(tmp_path / "diary")
    write_atomically(tmp_path / "config.yaml", b"new")
    assert (tmp_path / "diary").read_text() == "mine"
    assert (tmp_path / "config.yaml").read_text() == "new"


NAMES = ["../../x", "/etc/x", "..", ".", "a/b", "~/x", "-x", "x" * 400, "é\u202ex", "a\\b", "%2e%2e%2f", ".ssh"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_run_leaves_its_folder(shell: Shell, name: str) -> None:
    outputs = shell.folder / "deep/down/outputs"
    words = [*SHORT_RUN, "quiet=true", f"output_dir={outputs}", f"run_name='{name}'"]
    assert shell.train(*words) in (0, 2)
    made = [path for path in shell.folder.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(outputs / "cartpole/ppo") for path in made)
    assert len(shell.runs) <= 1
    for run in shell.runs:
        assert run.parent == outputs / "cartpole/ppo"


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd.pt", "/etc/passwd", "x" * 5000, "a\x00b", "step.pt", "/dev/null", "~", "/proc/self/mem", ""],
)
def test_no_name_of_a_checkpoint_leads_to_anything_but_a_checkpoint(shell: Shell, path: str) -> None:
    for code in (shell.eval(path), shell.export(path), shell.train(f"resume='{path}'")):
        assert code == 2
        assert "Traceback" not in shell.err


def test_a_run_never_moves_into_a_folder_of_other_files(shell: Shell) -> None:
    (shell.folder / "home").mkdir()
    (shell.folder / "home/summary.json").write_text("mine")
    experiment = shell.folder / "configs/experiment/theirs.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(f"# @package _global_\nhydra: {{run: {{dir: {shell.folder}/home}}}}\n")
    assert shell.train("--config-dir", "configs", "experiment=theirs", *SHORT_RUN) == 2
    assert shell.errors == [f"{shell.folder}/home holds other files; choose another run_name"]
    assert [path.name for path in (shell.folder / "home").iterdir()] == ["summary.json"]


@pytest.mark.parametrize("entry", ["pkg://evil_package", "evil_package", "/somewhere", "${x}", "file://${x}", 3])
def test_a_config_folder_cannot_have_packages_imported_in_search_of_configs(shell: Shell, entry: object) -> None:
    (shell.folder / "evil_package").mkdir()
    (shell.folder / "evil_package/__init__.py").write_text(EVIL_MODULE)
    (shell.folder / "configs").mkdir()
    shutil.copy(Path(__file__).parents[2] / "configs/train.yaml", shell.folder / "configs")
    text = (shell.folder / "configs/train.yaml").read_text()
    (shell.folder / "configs/train.yaml").write_text(
        text.replace("hydra:\n", f"x: pkg://evil_package\nhydra:\n  searchpath: [{json.dumps(entry)}]\n")
    )
    sys.path.insert(0, str(shell.folder))
    try:
        for words in (["--cfg", "job"], SHORT_RUN, ["--help"], ["-m", "seed=1,2"]):
            assert shell.train("--config-dir", "configs", *words) == 2
            assert "hydra.searchpath in " in shell.err
    finally:
        sys.path.remove(str(shell.folder))
    assert not (shell.folder / PROOF).exists()


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:MY_API_KEY}",
        "${oc.env:MY_API_KEY,x}",
        "a/${oc.env:MY_API_KEY}/b",
        "${oc.${x}:MY_API_KEY}",
        "${oc.decode:${oc.env:MY_API_KEY}}",
        "${oc.create:{a:${oc.env:MY_API_KEY}}}",
        "${slug:${oc.env:MY_API_KEY}}",
        SECRET,
        f"Bearer {SECRET}",
    ],
)
@pytest.mark.parametrize("key", ["output_dir", "run_name", "hydra.run.dir", "env.kwargs.key"])
def test_a_secret_of_the_environment_reaches_no_file(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, value: str, key: str
) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    env = ["env=gymnasium", "env.id=CartPole-v1", *SHORT_RUN[1:]]
    assert shell.train(*env, f"{key}='{value}'", "quiet=true") == 2, shell.out
    assert SECRET not in shell.out + shell.err
    assert "settings are saved" in shell.err or "${x}" in value
    assert list(shell.folder.iterdir()) == []


def bomb(levels: int) -> str:
    """A hundred bytes a level, each ten times the one before."""
    lines = ["a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (bomb(9), "it holds more than 20,000 values"),
        ("x: " + "[" * 100_000 + "]" * 100_000 + "\n", "it is more than 50 levels deep"),
        ("# " + "x" * (1 << 18) + "\n", "it has 262,167 bytes, 262,144 are allowed"),
    ],
)
def test_a_config_file_that_stands_for_something_huge_is_refused_at_once(shell: Shell, text: str, what: str) -> None:
    experiment = shell.folder / "configs/experiment/theirs.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\n" + text)
    assert shell.train("--config-dir", "configs", "experiment=theirs") == 2
    assert f"configs/experiment/theirs.yaml: {what}" in shell.err
    assert len(shell.err.splitlines()) == 1
    assert not (shell.folder / "outputs").exists()


def test_a_pipe_in_a_run_folder_is_not_waited_for(shell: Shell, run: Path) -> None:
    os.mkfifo(run / "resumes.yaml")
    assert shell.train(f"resume={run}", "total_env_steps=128") == 2
    assert shell.errors == [f"{run}/resumes.yaml is neither a file nor a folder; take it away to go on"]


def test_a_secret_in_a_config_file_or_a_run_folder_reaches_no_file(
    shell: Shell, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", SECRET)
    experiment = shell.folder / "configs/experiment/theirs.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\nrun_name: ${oc.env:MY_API_KEY}\n")
    assert shell.train("--config-dir", "configs", "experiment=theirs", *SHORT_RUN) == 2
    assert "settings are saved" in shell.err
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "\nrun_name: ${oc.env:MY_API_KEY}\n")
    assert shell.train(f"resume={run}", "total_env_steps=128") == 2
    for path in shell.folder.rglob("*"):
        assert SECRET not in path.name
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_a_strangers_text_does_not_steer_the_terminal(shell: Shell, run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["optimizer"] = "\x1b[2J\x1b]0;evil\x07"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert shell.eval(str(run), "episodes=2") == 2
    assert "\x1b" not in shell.err and "\x07" not in shell.err
    assert "\\x1b[2J" in shell.err
