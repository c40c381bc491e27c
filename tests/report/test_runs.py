from __future__ import annotations

import json
import os
import time

import pytest
from numpy.testing import assert_array_equal

from ppo_cli.report.files import read_records
from ppo_cli.report.groups import differing, group_runs
from ppo_cli.report.runs import RETURN, find_runs, flat, load_run
from tests.report.helpers import CONFIG, write_run

LONG_AGO = time.time() - 1e6


def age(folder):
    for path in folder.iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO))


def test_a_run_is_its_config_its_curves_and_how_it_ended(tmp_path):
    run = load_run(write_run(tmp_path / "a", {RETURN: [1.0, None, 3.0], "losses/kl": [0.1, 0.2, 0.3]}))
    assert run.status == "completed"
    assert run.config["clip"] == 0.2
    assert_array_equal(run.curve(RETURN).env_steps, [10, 30])
    assert_array_equal(run.curve(RETURN).value, [1, 3])
    assert list(run.curves) == [RETURN, "losses/kl"]
    assert (run.env_steps, run.total_env_steps, run.seed) == (30, 40, 1)


def test_a_figure_that_a_run_does_not_have_is_a_curve_without_points(tmp_path):
    run = load_run(write_run(tmp_path / "a", {RETURN: [1.0], "losses/kl": [None]}))
    assert len(run.curve("losses/kl").value) == len(run.curve("no/such").value) == 0
    assert "losses/kl" not in run.curves


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_last_line_cut_anywhere_costs_that_line_only(tmp_path, cut):
    folder = write_run(tmp_path / "a")
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[:-cut])
    assert load_run(folder).env_steps == (40 if cut == 1 else 30)


def test_lines_that_are_no_records_are_passed_over_and_the_last_of_one_step_counts():
    lines = ['{"env_steps": 20, "a": 1}', "[]", "null", "{}", '{"env_steps": "x"}', '{"env_steps": NaN}', "\x00\x00"]
    lines += ['{"env_steps": 10, "a": 5}', '{"env_steps": 20, "a": 2}', "[" * 100_000]
    assert [(record["env_steps"], record["a"]) for record in read_records("\n".join(lines))] == [(10, 5), (20, 2)]


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml", "summary.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\xff", b"{", b"- [", b"[]", b"42", b"a: *nothing"])
def test_a_missing_or_damaged_file_counts_as_empty(tmp_path, name, content):
    folder = write_run(tmp_path / "a")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    run = load_run(folder)
    assert len(group_runs([run])) == 1
    assert run.env_steps == (0 if name == "metrics.jsonl" else 40)


BOMBS = {
    "mappings in mappings": ["l0: &l0 {a: 1}", *(f"l{n}: &l{n} {{a: *l{n - 1}, b: *l{n - 1}}}" for n in range(1, 40))],
    "lists in lists": ["l0: &l0 [1]", *(f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(1, 40))],
    "itself": ["loop: &loop [*loop]"],
    "depth": ["deep: " + "[" * 5000 + "]" * 5000],
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_config_that_grows_without_end_counts_as_empty(tmp_path, bomb):
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_text("\n".join(BOMBS[bomb]))
    assert load_run(folder).config == {}


def test_a_config_cannot_make_objects(tmp_path):
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_text(f"seed: !!python/object/apply:os.mkdir [{tmp_path}/made]")
    assert load_run(folder).config == {}
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "summary.json", "error.txt"])
def test_a_link_that_leads_out_of_the_run_is_not_followed(tmp_path, name):
    secret = write_run(tmp_path / "secret", [7.0], clip=7.0, status="failed", summary={"error": "secret"})
    (secret / "error.txt").write_text("secret")
    folder = write_run(tmp_path / "a")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret / name)
    run = load_run(folder)
    assert run.config.get("clip") != 7
    assert 7 not in run.curve(RETURN).value
    assert run.error != "secret"


def test_a_pipe_in_place_of_a_file_does_not_hold_the_report_up(tmp_path):
    folder = write_run(tmp_path / "a")
    (folder / "overrides.yaml").unlink()
    os.mkfifo(folder / "overrides.yaml")
    assert load_run(folder).overrides == ()


def test_a_run_that_wrote_lately_is_running_and_one_that_has_been_silent_was_killed(tmp_path):
    folder = write_run(tmp_path / "a", status="running")
    assert load_run(folder).status == "running"
    age(folder)
    assert load_run(folder).status == "killed"


@pytest.mark.parametrize("status", ["completed", "interrupted", "failed"])
def test_an_ending_that_was_told_is_believed(tmp_path, status):
    folder = write_run(tmp_path / "a", status=status)
    age(folder)
    assert load_run(folder).status == status


def test_a_crash_is_a_failure_unless_the_run_was_started_again_since(tmp_path):
    folder = write_run(tmp_path / "a", status="running")
    (folder / "error.txt").write_text("Traceback\nRuntimeError: the sky fell\n")
    assert load_run(folder).status == "failed"
    assert load_run(folder).error.endswith("the sky fell")
    told = json.loads((folder / "summary.json").read_text()) | {"started": "2100-01-01T00:00:00+00:00"}
    (folder / "summary.json").write_text(json.dumps(told))
    assert load_run(folder).status == "running"
    assert load_run(folder).error == ""


def test_runs_are_found_below_folders_once_in_the_order_a_person_expects(tmp_path):
    for name in ("clip=10", "clip=2", "clip=0.5", "deep/er/run"):
        write_run(tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "multirun.yaml").write_text("")
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path / "sweep")
    found = find_runs([tmp_path, tmp_path / "sweep" / "clip=2", str(tmp_path / "sweep")])
    names = [str(run.folder.relative_to(tmp_path / "sweep")) for run in found]
    assert names == ["clip=0.5", "clip=2", "clip=10", "deep/er/run"]


def test_runs_that_differ_only_in_the_seed_are_one_group_named_by_what_was_typed(tmp_path):
    for clip in (0.1, 0.2):
        for seed in (1, 2):
            typed = [f"clip={clip}", f"seed={seed}"]
            write_run(tmp_path / f"{clip},{seed}", seed=seed, clip=clip, overrides=typed, output_dir=f"o{seed}")
    groups = group_runs(find_runs([tmp_path]))
    assert [group.label for group in groups] == ["clip=0.1", "clip=0.2"]
    assert [[run.seed for run in group.runs] for group in groups] == [[1, 2], [1, 2]]
    assert groups[0].settings == {"clip": 0.1}


def test_a_chosen_algorithm_names_its_group_whatever_follows_from_it(tmp_path):
    write_run(tmp_path / "a", overrides=["algo=ppo"])
    write_run(tmp_path / "b", overrides=["algo=trpo"], algo={"name": "trpo"}, max_kl=0.01, num_epochs=1)
    groups = group_runs(find_runs([tmp_path]))
    assert [group.label for group in groups] == ["algo=ppo", "algo=trpo"]
    assert groups[1].settings == {"algo.name": "trpo", "max_kl": 0.01, "num_epochs": 1}


def test_groups_that_were_not_typed_are_named_by_what_differs_and_one_alone_by_what_it_learns(tmp_path):
    write_run(tmp_path / "x" / "a", clip=0.1, overrides=[])
    write_run(tmp_path / "x" / "b", overrides=[])
    runs = find_runs([tmp_path])
    assert [group.label for group in group_runs(runs)] == ["clip=0.1", "clip=0.2"]
    assert [group.label for group in group_runs(runs[:1])] == ["cartpole, ppo"]


def test_what_has_no_other_name_has_that_of_its_folder(tmp_path):
    for name in ("a/run", "b/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text(f"env: {{very_long_setting: {'long ' * 20 + name}}}")
    runs = find_runs([tmp_path])
    assert [group.label for group in group_runs(runs)] == ["a/run", "b/run"]
    assert [group.label for group in group_runs(runs[:1])] == ["run"]


def test_the_same_seed_twice_is_one_sample_the_one_that_came_further(tmp_path):
    write_run(tmp_path / "a", [1.0, 2.0])
    write_run(tmp_path / "b", [1.0, 2.0, 3.0, 4.0])
    (group,) = group_runs(find_runs([tmp_path]))
    assert [run.folder.name for run in group.runs] == ["b"]
    assert [run.folder.name for run in group.repeated] == ["a"]


def test_values_that_only_look_alike_are_other_settings(tmp_path):
    write_run(tmp_path / "a", clip=0.1)
    write_run(tmp_path / "b", clip=0.1 + 1e-12)
    assert len(group_runs(find_runs([tmp_path]))) == 2


def test_what_differs_includes_what_only_some_have():
    assert differing([{"a": 1, "b": None, "c": 1}, {"a": 1, "c": 1.5}]) == ["b", "c"]


def test_nested_settings_get_dotted_names():
    assert flat(CONFIG)["env.max_steps"] == 500
    assert flat({"network": {"hidden": [64, 64]}, "none": {}}) == {"network.hidden": [64, 64]}
    assert differing([flat({"clip": 1, "kwargs": {}}), flat({"clip": 1, "kwargs": {"g": 5}})]) == ["kwargs.g"]
