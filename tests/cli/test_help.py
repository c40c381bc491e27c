from __future__ import annotations

import re

import pytest

from ppo_cli.cli.compose import Composer
from ppo_cli.cli.declared import declared_settings
from ppo_cli.cli.validate import EVAL_SETTINGS, TRAIN_SETTINGS
from tests.cli.helpers import Shell


def test_every_setting_is_shown_with_its_meaning(shell: Shell) -> None:
    assert shell.train("--help") == 0
    settings = (declared_settings(TRAIN_SETTINGS) or {}) | (declared_settings("ppo_cli.algorithms.ppo.PPO") or {})
    for name, setting in settings.items():
        assert re.search(rf"^  {name} ", shell.out, re.MULTILINE), name
        assert setting.meaning.split()[0] in shell.out


@pytest.mark.parametrize("algo", Composer().options("algo"))
def test_an_algorithms_own_settings_are_shown_with_their_meaning_and_no_others(shell: Shell, algo: str) -> None:
    assert shell.train(f"algo={algo}", "--help") == 0
    section = shell.out.partition(f"Algorithm  algo={algo}\n")[2].partition("\nEnvironment")[0]
    text = " ".join(section.split())
    class_name = {"ppo_kl": "PPOKL"}.get(algo, algo.upper())
    declared = declared_settings(f"ppo_cli.algorithms.{algo}.{class_name}") or {}
    assert re.findall(r"^  (\w+)", section, re.MULTILINE) == list(declared)
    assert all(setting.meaning.rstrip(".") in text for setting in declared.values())


def test_every_name_of_every_group_is_shown(shell: Shell) -> None:
    assert shell.train("--help") == 0
    composer = Composer()
    words = set(re.findall(r"[\w.]+", shell.out))
    assert {name for group in composer.groups() for name in composer.options(group)} <= words


def test_values_are_those_of_the_chosen_environment(shell: Shell) -> None:
    assert shell.train("env=acrobot", "clip=0.123", "--help") == 0
    assert re.search(r"^  env.id +Acrobot-v1", shell.out, re.MULTILINE)
    assert re.search(r"^  clip +0.123 +\S", shell.out, re.MULTILINE)
    assert "[acrobot]" in shell.out


def test_a_setting_of_the_wrong_name_is_told_beside_the_help(shell: Shell) -> None:
    assert shell.train("clipp=2", "--help") == 0
    assert shell.errors == ["clipp=2: there is no setting clipp. Did you mean clip=2?"]
    assert "Optimizer" in shell.out


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_lines_fit_the_terminal(shell: Shell, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert shell.train("--help") == 0
    described = [line for line in shell.out.splitlines() if not line.startswith(("  ppo-", "  -"))]
    assert max(map(len, described)) <= columns


def test_a_range_is_never_broken_over_two_lines(shell: Shell) -> None:
    assert shell.train("--help") == 0
    assert not re.search(r"\([<>]=?$", shell.out, re.MULTILINE)


def test_colour_is_for_terminals_only(shell: Shell) -> None:
    assert shell.train("--help") == 0
    assert "\033" not in shell.out


def test_eval_shows_its_settings(shell: Shell) -> None:
    assert shell.eval("--help") == 0
    for name in declared_settings(EVAL_SETTINGS) or {}:
        assert re.search(rf"^  {name} ", shell.out, re.MULTILINE), name
