from __future__ import annotations

import shlex

import pytest
import yaml

from ppo_cli.report.commands import UNKNOWN, go_on, repeat, repeat_all
from ppo_cli.report.groups import group_runs
from ppo_cli.report.runs import find_runs, load_run
from tests.report.helpers import write_run


def words(folder):
    return shlex.split(repeat(load_run(folder)))


def test_a_run_is_repeated_by_what_was_typed_and_its_seed(tmp_path):
    folder = write_run(tmp_path / "a", seed=7, overrides=["env=cartpole", "network.hidden=[64, 64]", "env.id='a b'"])
    assert words(folder) == ["ppo-train", "env=cartpole", "network.hidden=[64, 64]", "env.id='a b'", "seed=7"]


def test_what_names_the_folder_is_left_out_so_that_the_repetition_gets_its_own(tmp_path):
    typed = ["clip=0.1", "run_name=mine", "hydra.run.dir=here", "seeds=4", "seed=3"]
    assert words(write_run(tmp_path / "a", overrides=typed, seed=3)) == ["ppo-train", "clip=0.1", "seed=3"]


def test_settings_that_the_run_went_on_with_count(tmp_path):
    folder = write_run(tmp_path / "a", overrides=["clip=0.1", "seed=1"])
    resumes = [{"overrides": ["resume=latest", "total_env_steps=80", "clip=0.3"]}, {"overrides": None}, "odd"]
    (folder / "resumes.yaml").write_text(yaml.safe_dump(resumes))
    assert words(folder) == ["ppo-train", "clip=0.3", "seed=1", "total_env_steps=80"]


def test_the_folder_of_ones_own_configs_is_told(tmp_path):
    command = "ppo-train -m --config-dir './my configs' trust=lab env=corridor clip=0.1,0.2"
    folder = write_run(tmp_path / "a", overrides=["trust=lab", "env=corridor"], summary={"command": command})
    assert words(folder) == ["ppo-train", "--config-dir", "./my configs", "trust=lab", "env=corridor", "seed=1"]


@pytest.mark.parametrize("command", ["ppo-train 'unbalanced", None, 7, "--config-dir"])
def test_a_command_that_cannot_be_read_does_no_harm(tmp_path, command):
    folder = write_run(tmp_path / "a", overrides=["clip=0.1"], summary={"command": command})
    assert words(folder)[-2:] == ["clip=0.1", "seed=1"]


def test_a_run_that_left_nothing_has_no_command(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    assert repeat(load_run(tmp_path)) == UNKNOWN


def test_all_seeds_of_a_configuration_are_one_sweep(tmp_path):
    for seed in (1, 2, 5):
        write_run(tmp_path / str(seed), seed=seed, overrides=["clip=0.1", f"seed={seed}"])
    (group,) = group_runs(find_runs([tmp_path]))
    assert repeat_all(group) == ["ppo-train -m clip=0.1 seed=1,2,5"]


def test_seeds_that_were_typed_differently_are_repeated_one_by_one(tmp_path):
    write_run(tmp_path / "1", seed=1, overrides=["clip=0.2"])
    write_run(tmp_path / "2", seed=2, overrides=[])
    (group,) = group_runs(find_runs([tmp_path]))
    assert repeat_all(group) == ["ppo-train clip=0.2 seed=1", "ppo-train seed=2"]


def test_going_on_survives_any_name_of_a_folder(tmp_path):
    folder = write_run(tmp_path / "a b;rm -rf $HOME")
    assert shlex.split(go_on(load_run(folder))) == ["ppo-train", f"resume={folder}"]
