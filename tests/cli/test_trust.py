"""A user's own module works once he trusts it; nothing else is ever imported because a file says so."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.trust import import_target, is_trusted, trust
from tests.cli.helpers import SHORT_RUN, Shell

MODULE = '''
from ppo_cli.envs.probes import ActionProbe


class Corridor(ActionProbe):
    """One cell wide."""

    def __init__(self, num_envs: int, length: int = 5) -> None:
        super().__init__(num_envs)
        self.length = length


open("imported", "w").close()
'''
CONFIG = """
# @package _global_
env:
  _target_: my_lab.corridor.Corridor
  length: 7
"""


@pytest.fixture
def lab(shell: Shell) -> Shell:
    package = shell.folder / f"my_lab_{abs(hash(shell.folder))}"
    package.mkdir()
    (package / "corridor.py").write_text(MODULE)
    (package / "__init__.py").touch()
    configs = shell.folder / "configs/env"
    configs.mkdir(parents=True)
    (configs / "corridor.yaml").write_text(CONFIG.replace("my_lab", package.name).lstrip())
    return shell


def package_of(lab: Shell) -> str:
    return next(lab.folder.glob("my_lab*")).name


WORDS = ["--config-dir", "configs", "env=corridor", *SHORT_RUN[1:], "quiet=true"]


def test_a_users_environment_runs_once_it_is_trusted(lab: Shell) -> None:
    assert lab.train(*WORDS, f"trust={package_of(lab)}", "env.length=9") == 0
    assert (lab.folder / "imported").exists()
    assert lab.runs[0].parent == lab.folder / "outputs/corridor/ppo"


REGISTERED = """
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Mine(CartPoleEnv):
    pass


gymnasium.register("{name}/Mine-v0", entry_point="{name}.mine:Mine", max_episode_steps=9)
"""


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_registered_environment_is_found_in_the_current_folder_once_it_is_trusted(
    lab: Shell, monkeypatch: pytest.MonkeyPatch, vectorization: str
) -> None:
    name = package_of(lab)
    (lab.folder / name / "mine.py").write_text(REGISTERED.format(name=name))
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])  # as for a console script
    words = ["env=gymnasium", f"env.id={name}.mine:{name}/Mine-v0", f"env.vectorization={vectorization}"]
    words += [*SHORT_RUN[1:], "quiet=true", "env.num_workers=1"]
    assert lab.train(*words) == 2
    assert f"say trust={name}" in lab.err
    assert lab.train(*words, f"trust={name}") == 0, lab.err
    assert lab.folder not in map(Path, sys.path)
    assert lab.train("resume=latest", f"trust={name}", "total_env_steps=96") == 0, lab.err
    assert lab.eval("latest", f"trust={name}", "episodes=2") == 0, lab.err


def test_an_untrusted_module_is_not_imported(lab: Shell) -> None:
    package = package_of(lab)
    assert lab.train(*WORDS) == 2
    assert lab.errors == [
        f"env._target_={package}.corridor.Corridor: the module {package} is not part of ppo-cli; "
        f"if you trust its code, say trust={package}"
    ]
    assert not (lab.folder / "imported").exists()


def test_a_users_settings_are_checked_without_importing_his_module(lab: Shell) -> None:
    assert lab.train(*WORDS, f"trust=[{package_of(lab)}]", "env.length=x", "+env.lenght=3") == 2
    assert lab.errors == [
        "env.lenght=3: there is no setting env.lenght. Did you mean env.length=3?",
        "env.length=x: expected a whole number",
    ]
    assert not (lab.folder / "imported").exists()


def test_a_misspelled_class_is_told_without_importing(lab: Shell) -> None:
    package = package_of(lab)
    assert lab.train(*WORDS, f"trust={package}", f"env._target_={package}.corridor.Coridor") == 2
    assert lab.errors == [
        f"env._target_={package}.corridor.Coridor: no class Coridor in {lab.folder}/{package}/corridor.py; "
        "did you mean Corridor?"
    ]


def test_trust_in_a_file_is_not_heard(lab: Shell) -> None:
    config = lab.folder / "configs/env/corridor.yaml"
    config.write_text(config.read_text() + f"trust: [{package_of(lab)}]\n")
    assert lab.train(*WORDS) == 2
    assert not (lab.folder / "imported").exists()


def test_trust_in_a_run_folder_is_not_heard(lab: Shell) -> None:
    package = package_of(lab)
    assert lab.train(*WORDS, f"trust={package}") == 0
    import os

    del os.environ["PPO_CLI_TRUST"]
    assert lab.train("resume=latest", "total_env_steps=128") == 2
    assert lab.errors[0].endswith(f"if you trust its code, say trust={package}")
    assert lab.eval("latest", "episodes=2") == 2
    assert lab.errors[0].endswith(f"if you trust its code, say trust={package}")
    assert lab.eval("latest", "episodes=2", f"trust={package}", "num_threads=1") == 0


@pytest.mark.parametrize(
    "content",
    [
        "hydra: {callbacks: {x: {_target_: webbrowser.open, url: x}}}",
        "hydra: {launcher: {_target_: os.system}}",
        "hydra: {job: {env_set: {PPO_CLI_TRUST: os}}}",
        "hydra: {job: {env_set: {PYTHONPATH: here}}}",
        "hydra: {job: {env_set: {NUMBA_CACHE_DIR: theirs}}}",
        "hydra: {callbacks: {x: {_target_: hydra.utils.get_method, path: antigravity.geohash}}}",
        "hydra: {callbacks: {x: {_target_: ppo_cli.cli.train.main, words: [trust=evil]}}}",
        "hydra: {callbacks: {x: {_target_: hydra.utils.instantiate, config: {_target_: os.system, command: x}}}}",
        "hydra: {job_logging: {root: {handlers: [x]}, handlers: {x: {(): logging.config.fileConfig, fname: evil}}}}",
        "hydra: {hydra_logging: {root: {level: INFO}, handlers: {x: {class: logging.FileHandler, filename: x}}}}",
        "hydra: {output_subdir: ../../x}",
        "algo: {_target_: ppo_cli.cli.train.main}\nwords: [trust=evil]",
        "hydra: {sweeper: {params: {trust: os}}}\nenv: {_target_: os.system}",
    ],
)
def test_a_config_cannot_make_hydra_run_or_trust_anything(shell: Shell, content: str) -> None:
    experiment = shell.folder / "configs/experiment/theirs.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(f"# @package _global_\n{textwrap.dedent(content)}\n")
    assert shell.train("--config-dir", "configs", "experiment=theirs", *SHORT_RUN) == 2
    assert not shell.runs


def test_only_the_named_module_and_what_lies_in_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPO_CLI_TRUST", "")
    trust(["my_lab", "other.part"])
    assert is_trusted("my_lab.corridor.Env")
    assert is_trusted("other.part.Env")
    assert is_trusted("ppo_cli.networks.mlp.MLP")
    assert not is_trusted("my_lab_evil.Env")
    assert not is_trusted("other.Env")
    assert not is_trusted("ppo_cli_evil.Env")


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "system", "", "a b.c", None])
@pytest.mark.parametrize("part", ["env", "network", "algo"])
def test_import_target_refuses_what_is_not_trusted(target: str, part: str) -> None:
    with pytest.raises(UserError):
        import_target(target, part)


@pytest.mark.parametrize(
    "target",
    [
        "ppo_cli..os.system",
        "ppo_cli.cli.train.main",  # its words could say trust=
        "ppo_cli.checkpoint.remove",
        "ppo_cli.algorithms.ppo.torch",
        "ppo_cli.algorithms.trpo.partial",
        "ppo_cli.algorithms.ppo.check_ranges",
        "ppo_cli.algorithms",
        "ppo_cli.networks.mlp.MLP",
    ],
)
def test_only_this_packages_own_algorithms_are_algorithms(target: str) -> None:
    with pytest.raises(UserError):
        import_target(target, "algo")
    assert import_target("ppo_cli.algorithms.ppo.PPO", "algo").__name__ == "PPO"
