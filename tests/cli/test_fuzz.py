"""Whatever is typed, and whatever stands in a file: it is valid, or there is a sentence for each mistake.

Whole commands, but for the training, the playing and the writing itself: exit code 0 or 2, never a traceback, and
nothing left behind by a command that was refused. The slow ones draw a thousand examples each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_cli.cli import exporting, run, saved, seeds
from ppo_cli.cli.declared import declared_settings
from ppo_cli.cli.validate import EVAL_SETTINGS, EXPORT_SETTINGS, TRAIN_SETTINGS
from tests.cli.helpers import SHORT_RUN, Shell

FIGURES = {"episodic_return": 1.0, "episodic_return_std": 0.0, "episodic_length": 1.0}
PLACES = ("output_dir", "device", "trust")
"""Settings that lead out of the folder, to hardware, or to code: `test_attacks` tries those."""

own = [*(declared_settings(TRAIN_SETTINGS) or {}), *(declared_settings("ppo_cli.algorithms.ppo.PPO") or {})]
nested = ["env.mines", "env.id", "env.kwargs", "env._target_", "network.hidden", "network._target_", "algo._target_"]
groups = ["env", "algo", "network", "experiment", "hydra/launcher", "hydra.mode", "hydra.sweep.subdir", "hydra.verbose"]
known = [name for name in [*own, *nested, *groups] if name not in PLACES]

names = st.sampled_from(known) | st.text("abcdefgz._", min_size=1, max_size=8)
texts = st.sampled_from(
    [
        *("", "null", "true", "nan", "-inf", "1e6", "1e400", "0x10", "010", "???", "9" * 17),
        *("[]", "{}", "[1,2]", "{a:1}", "[[],{}]", "a,b", "a,", ",", "a=b", "'", '"', "\\", "\t", "é", "\u202e"),
        *("${seed}", "${x}", "${oc.env:HOME}", "${", "${run_name}", "${hydra:job.num}", "${sweep_job:1,2,3}", "$(x)"),
        *("cartpole", "gymnasium", "ppo", "a2c", "mlp", "quick", "linear", "kl_adaptive", "CartPole-v1"),
        *("a:b", "os.system", "!!python/name:os.system", "../x", "a/b"),
        *("choice(1,2)", "range(1,4)", "interval(0,1)", "glob(*)", "shuffle(1,2)", "tag(a,1)", "int(3)"),
    ]
)
values = texts | st.integers(-3, 10**6).map(str) | st.floats().map(str) | st.text(max_size=6)
prefixes = st.sampled_from(["", "", "", "", "+", "++", "~", "--", "-"])
equals = st.sampled_from(["=", "=", "=", "=", " ", "= ", " =", "", "=="])
words = st.builds("{}{}{}{}".format, prefixes, names, equals, values)
lines = st.lists(words, max_size=4).map(lambda line: [part for word in line for part in word.split(" ")])

junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | texts | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=4,
)
trees = st.dictionaries(names, junk, max_size=4).map(yaml.safe_dump)
files = trees | st.text(max_size=40) | st.sampled_from(["a: [", "- 1", "a: &a [*a]", "? [a]", "---\n---\n", "\t", "{{"])

DEPTHS = pytest.mark.parametrize("examples", [12, pytest.param(1000, marks=pytest.mark.slow)])
deep_timeout = pytest.mark.timeout(3000)


def try_all(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """``check`` each of so many examples, the same ones every time."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(strategy)
    def each(example: Any) -> None:
        check(example)

    each()


def rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands come to where the work would begin, and return."""
    monkeypatch.setattr(run, "train", lambda *_, **__: 0.0)
    monkeypatch.setattr(seeds, "train_seeds", lambda *_, **__: 0.0)
    monkeypatch.setattr(saved, "play", lambda *_, **__: {"greedy": FIGURES})
    monkeypatch.setattr(exporting, "export", lambda *_: [])


@pytest.fixture
def idle(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    rest(monkeypatch)
    return shell


@pytest.fixture
def with_run(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A folder with one real run, in which commands rest."""
    assert shell.train(*SHORT_RUN, "quiet=true", "run_name=it") == 0, shell.err
    rest(monkeypatch)
    return shell


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def assert_ends_well(shell: Shell, command: str, line: list[str]) -> None:
    """The command is done, or it is explained why not, and nothing is left behind."""
    before = content(shell.folder)
    code = getattr(shell, command)(*line)
    assert code in (0, 2), (line, shell.err)
    assert "Traceback" not in shell.err, (line, shell.err)
    if code == 2:
        assert shell.errors and all(error.strip() for error in shell.errors), line
        assert content(shell.folder) == before, line


@deep_timeout
@DEPTHS
def test_every_line_of_train_is_valid_or_explained(idle: Shell, examples: int) -> None:
    try_all(examples, lines, lambda line: assert_ends_well(idle, "train", line))


@deep_timeout
@DEPTHS
def test_every_sweep_is_valid_or_explained(idle: Shell, examples: int) -> None:
    several = st.builds("{}={},{}".format, names, values, values).filter(lambda word: " " not in word)
    sweeps = st.tuples(lines, st.lists(several, min_size=1, max_size=2)).map(lambda parts: ["-m", *parts[0], *parts[1]])
    try_all(examples, sweeps, lambda line: assert_ends_well(idle, "train", line))


@deep_timeout
@DEPTHS
def test_every_config_file_is_valid_or_explained(idle: Shell, examples: int) -> None:
    group = idle.folder / "configs/experiment"
    group.mkdir(parents=True)

    def check(text: str) -> None:
        (group / "theirs.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
        assert_ends_well(idle, "train", ["--config-dir", "configs", "experiment=theirs"])

    try_all(examples, files, check)


def settings_of(declaration: str) -> st.SearchStrategy[list[str]]:
    """Lines with the settings of a command."""
    own_names = st.sampled_from([name for name in declared_settings(declaration) or {} if name not in PLACES])
    word = st.builds("{}{}{}{}".format, prefixes, own_names | names, equals, values)
    return st.lists(word, max_size=3).map(lambda line: [part for word in line for part in word.split(" ")])


@deep_timeout
@DEPTHS
@pytest.mark.parametrize(("command", "declaration"), [("eval", EVAL_SETTINGS), ("export", EXPORT_SETTINGS)])
def test_every_line_of_the_other_commands_is_valid_or_explained(
    with_run: Shell, command: str, declaration: str, examples: int
) -> None:
    runs = st.sampled_from([[], ["latest"], ["outputs/cartpole/ppo/it"], ["outputs"], ["x"]]) | st.lists(
        texts, max_size=1
    )
    lines_of_command = st.tuples(runs, settings_of(declaration)).map(lambda parts: [*parts[0], *parts[1]])
    (with_run.folder / "outputs/cartpole/ppo/it/evaluation.json").write_text("{}")
    try_all(examples, lines_of_command, lambda line: assert_ends_well(with_run, command, line))


@deep_timeout
@DEPTHS
def test_every_resume_is_valid_or_explained(with_run: Shell, examples: int) -> None:
    resumes = lines.map(lambda line: ["resume=latest", *line])
    try_all(examples, resumes, lambda line: assert_ends_well(with_run, "train", line))


@deep_timeout
@DEPTHS
def test_every_config_of_a_run_folder_is_valid_or_explained_by_every_command(with_run: Shell, examples: int) -> None:
    path = with_run.folder / "outputs/cartpole/ppo/it/config.yaml"
    whole = yaml.safe_load(path.read_text())

    def check(changed: tuple[str, str, Any, str]) -> None:
        part, name, value, text = changed
        node = {**whole[part], name: value} if part in whole and isinstance(whole[part], dict) else value
        path.write_text(text if part == "raw" else yaml.safe_dump({**whole, part: node}), encoding="utf-8")
        for command, line in (("eval", ["latest"]), ("export", ["latest"]), ("train", ["resume=latest"])):
            assert_ends_well(with_run, command, line)

    inner = st.sampled_from(["_target_", "name", "mines", "id", "hidden", "x"])
    changes = st.tuples(st.sampled_from([*whole, "raw", "raw", "env", "algo", "network"]), inner, junk, files)
    try_all(examples, changes, check)


@deep_timeout
@DEPTHS
def test_every_description_of_an_export_is_valid_or_explained(with_run: Shell, examples: int) -> None:
    folder = with_run.folder / "theirs"
    folder.mkdir()
    env = {"_target_": "ppo_cli.envs.cartpole.CartPoleVecEnv"}
    described = st.dictionaries(names | st.just("env"), junk | st.just(env), max_size=3).map(json.dumps)

    def check(text: str) -> None:
        (folder / "policy.json").write_text(text, encoding="utf-8")
        assert_ends_well(with_run, "eval", ["theirs"])

    try_all(examples, described | files, check)
