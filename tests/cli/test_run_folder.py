from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.run_folder import (
    LONGEST_NAME,
    claim,
    find_run,
    folder_problem,
    known_runs,
    remove_if_empty,
    run_id,
    slug,
    sweep_job,
)
from ppo_cli.run_reader import recency


def make_run(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/step_000000000064.pt").touch()
    (folder / "config.yaml").touch()
    return folder


@given(st.text())
def test_a_slug_is_one_safe_part_of_a_path(text: str) -> None:
    name = slug(text)
    assert 0 < len(name.encode()) <= LONGEST_NAME
    assert not re.search(r"[/\\\0\s]", name)
    assert name not in (".", "..")
    assert not name.startswith("-")


def test_an_id_with_a_namespace_is_readable() -> None:
    assert slug("ALE/Pong-v5") == "ALE-Pong-v5"


def test_letters_of_any_language_stay() -> None:
    assert slug("größe/学習") == slug("gro\u0308ße/学習") == "größe-学習"
    assert slug("学" * 100) == "学" * (LONGEST_NAME // 3)


def test_run_ids_of_the_same_second_differ() -> None:
    assert len({run_id(None, 1) for _ in range(50)}) > 45
    assert run_id("mine", 1) == "mine"


def test_a_sweeps_job_is_named_by_the_swept_settings_only() -> None:
    assert sweep_job(3, ["env=x", "clip=0.1", "+seed=2"], ["clip", "seed"]) == "clip=0.1,seed=2"
    assert sweep_job(3, ["network.hidden=[64,64]"], ["network.hidden"]) == "network.hidden=64,64"
    assert re.match(r"7_.{,120}$", sweep_job(7, [f"run={'x' * 300}"], ["run"]))


def test_only_one_run_can_claim_a_folder(tmp_path: Path) -> None:
    claim(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run"):
        claim(tmp_path / "run")


def test_looking_whether_a_folder_can_be_made_leaves_nothing(tmp_path: Path) -> None:
    assert folder_problem(tmp_path / "a/b/c", "output_dir=a") is None
    assert list(tmp_path.iterdir()) == []


def test_only_empty_folders_are_taken_back(tmp_path: Path) -> None:
    kept = make_run(tmp_path / "outputs/x/kept")
    empty = tmp_path / "outputs/x/empty"
    empty.mkdir()
    remove_if_empty(empty, tmp_path / "outputs")
    assert kept.exists() and not empty.exists()
    lonely = tmp_path / "other/y/lonely"
    lonely.mkdir(parents=True)
    remove_if_empty(lonely, tmp_path / "other")
    assert not (tmp_path / "other").exists() and tmp_path.exists()


def test_the_current_folder_is_never_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root in ("outputs", "elsewhere"):
        (tmp_path / "outputs/x").mkdir(parents=True)
        remove_if_empty(tmp_path / "outputs/x", Path(root))
        assert tmp_path.is_dir() and list(tmp_path.iterdir()) == []


def test_a_run_is_found_by_its_folder_its_checkpoint_or_as_the_latest(tmp_path: Path) -> None:
    run = make_run(tmp_path / "outputs/x/ppo/run")
    assert find_run(str(run)) == run
    assert find_run(str(run / "checkpoints/step_000000000064.pt")) == run
    assert find_run("latest", str(tmp_path / "outputs")) == run


def test_a_misspelled_run_folder_gets_a_hint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run_seed1")
    with pytest.raises(UserError, match=f"no such run folder; did you mean {run}"):
        find_run(str(tmp_path / "run_"))


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        find_run(str(tmp_path))


def test_the_latest_run_is_the_one_that_wrote_last_also_where_all_files_were_copied_at_once(tmp_path: Path) -> None:
    for name, wall_time in (("b", 200.0), ("a", 300.5), ("c", 100.0)):
        run = make_run(tmp_path / "x/ppo" / name)
        lines = [{"env_steps": 1, "wall_time": 1.0}, {"env_steps": 2, "wall_time": wall_time}]
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"env_steps": 3, "wal')
        os.utime(run / "checkpoints/step_000000000064.pt", (5000 - wall_time,) * 2)
    assert [run.name for run in known_runs(str(tmp_path))] == ["a", "b", "c"]
    assert find_run("latest", str(tmp_path)).name == "a"
    (tmp_path / "x/ppo/a/config.yaml").unlink()
    assert find_run("latest", str(tmp_path)).name == "b", "a folder without its config is no run"


def test_a_run_without_records_is_as_old_as_its_files(tmp_path: Path) -> None:
    old, new = make_run(tmp_path / "old"), make_run(tmp_path / "new")
    for path in old.rglob("*"):
        os.utime(path, (1000.0, 1000.0))
    (new / "metrics.jsonl").write_bytes(b"\x00[[")
    assert recency(old) == (1000.0, 1000.0)
    assert recency(new)[0] > 1e9
    assert find_run("latest", str(tmp_path)) == new
