"""What is installed: the wheel, and the scripts that make an environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ppo_cli", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as backend; print(backend.build_wheel('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_every_config(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "ppo_cli").rglob("*.py")}
    configs = {f"ppo_cli/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert modules | configs | {"ppo_cli/py.typed", "ppo_cli/report/style.css"} <= inside
    assert not any(name.startswith(("tests", "configs")) for name in inside)


def test_the_wheel_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(installed)
    empty.mkdir()
    script = (
        "import sys; sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]; "
        f"sys.path = [{str(installed)!r}] + [path for path in sys.path if 'editable' not in path]; "
        "from ppo_cli.cli.train import main; import ppo_cli; "
        f"assert ppo_cli.__file__.startswith({str(installed)!r}); sys.exit(main(['env=pendulum', '--cfg', 'job']))"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=empty, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Pendulum-v1" in result.stdout


def test_the_pinned_set_meets_what_the_package_asks_for() -> None:
    requirement = pytest.importorskip("packaging.requirements").Requirement
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    assert list(pinned) == sorted(pinned)
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
        wanted = requirement(text)
        assert pinned[wanted.name] in wanted.specifier, text


def test_what_is_tested_here_is_what_is_pinned() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    if os.environ.get("PPO_CLI_ANY_VERSIONS"):
        pytest.skip("other versions are tested on purpose")
    found = {re.sub(r"[-_.]+", "-", found.name).lower(): found.version.split("+")[0] for found in distributions()}
    wrong = {name: (found[name], version) for name, version in pinned.items() if found.get(name, version) != version}
    assert not wrong, "an environment of your own? PPO_CLI_ANY_VERSIONS=1 tests it as it is"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is up to date, with programs that only say their name and arguments."""
    (tmp_path / "scripts").mkdir()
    for path in ("pyproject.toml", "constraints.txt", "scripts/environment.sh", "scripts/train", "scripts/test"):
        shutil.copy(ROOT / path, tmp_path / path)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("ppo-train", "ruff", "mypy", "pytest"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (programs / name).chmod(0o755)
    command = f"cat {tmp_path}/pyproject.toml {tmp_path}/constraints.txt | cksum > {tmp_path}/.venv/stamp-test"
    subprocess.run(["bash", "-c", command], check=True)
    return tmp_path


def script(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{checkout}/fake:{os.environ['PATH']}"}
    return subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_a_second_start_installs_nothing_and_passes_its_words_on(checkout: Path) -> None:
    result = script(checkout, "scripts/train", "clip=0.2", "run_name=a b")
    assert (result.returncode, result.stdout, result.stderr) == (0, "ppo-train clip=0.2 run_name=a b\n", "")


def test_the_scripts_work_from_any_folder(checkout: Path) -> None:
    result = subprocess.run([str(checkout / "scripts/train")], cwd="/", capture_output=True, text=True, check=True)
    assert result.stdout == "ppo-train\n"


def test_test_runs_lint_types_and_tests(checkout: Path) -> None:
    lines = script(checkout, "scripts/test").stdout.splitlines()
    assert lines == ["ruff check .", "ruff format --check .", "mypy", "pytest -n auto"]
    learning = script(checkout, "scripts/test", "learning", "-x").stdout
    assert learning == "pytest -n auto -m slow tests/test_learning.py -x\n"
    assert script(checkout, "scripts/test", "slow", "-x").stdout == "pytest -m slow -x\n"
    assert script(checkout, "scripts/test", "-k", "clip").stdout == "pytest -k clip\n"


def test_another_pinned_set_is_installed_and_a_failure_leaves_no_stamp(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text("torch==0\n")
    python = checkout / ".venv/bin/python"
    python.write_text('#!/bin/sh\ncase "$*" in *--version*) exit 0;; esac\necho "no matching distribution"; exit 1\n')
    python.chmod(0o755)
    result = script(checkout, "scripts/train")
    assert result.returncode == 1
    assert "no matching distribution\nerror: the installation failed" in result.stderr
    assert not (checkout / ".venv/stamp-train").exists()
