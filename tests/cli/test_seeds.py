"""``seeds=``: independent runs side by side, each as it would be alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ppo_cli import checkpoint
from ppo_cli.cli import seeds as seeds_module
from ppo_cli.faults import NonFiniteError
from ppo_cli.progress import Snapshot
from ppo_cli.progress_group import GroupProgress
from ppo_cli.signals import StopRequest
from ppo_cli.trainer import Trainer
from tests.cli.helpers import SHORT_RUN, Shell

RUN = (*(word for word in SHORT_RUN if "total" not in word), "total_env_steps=128", "accelerate=eager")
QUIET = "quiet=true"


def metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what a clock decides."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("wall_time", "time/", "charts/SPS")
    return [{tag: value for tag, value in row.items() if not tag.startswith(clocks)} for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    content, _ = checkpoint.load_newest(run / "checkpoints")
    state: dict[str, torch.Tensor] = content["state"]["actor_critic"]
    return state


def same(left: Path, right: Path) -> bool:
    ours, theirs = weights(left), weights(right)
    return metrics(left) == metrics(right) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_each_of_several_seeds_is_to_the_bit_the_run_that_it_would_be_alone(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=[3,5,8]", "hydra.run.dir=group") == 0
    group = shell.folder / "group"
    assert sorted(path.name for path in group.iterdir()) == ["seed=3", "seed=5", "seed=8"]
    for seed in (3, 5, 8):
        assert shell.train(*RUN, QUIET, f"seed={seed}", f"hydra.run.dir=alone{seed}") == 0
        assert same(group / f"seed={seed}", shell.folder / f"alone{seed}")
    assert not same(group / "seed=3", group / "seed=5")


def test_a_number_of_seeds_counts_from_seed_on(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seed=7", "seeds=2", "hydra.run.dir=group") == 0
    assert sorted(path.name for path in (shell.folder / "group").iterdir()) == ["seed=7", "seed=8"]


@pytest.mark.parametrize("seeds", ["0", "[]", "[1,1]"])
def test_no_seed_and_a_seed_named_twice_are_refused_before_anything_is_written(shell: Shell, seeds: str) -> None:
    assert shell.train(*RUN, QUIET, f"seeds={seeds}", "hydra.run.dir=group") == 2
    assert len(shell.errors) == 1
    assert shell.errors[0].startswith("seeds=")
    assert not (shell.folder / "group").exists()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def kill(run: Path, *, at: int) -> None:
    """Leave the run as a process does that is killed when its newest checkpoint has ``at`` env steps; 0 is none."""
    for path in checkpoint.list_checkpoints(run / "checkpoints"):
        if checkpoint.env_steps_of(path) > at:
            path.unlink()
    (run / "summary.json").write_text(json.dumps(summary_of(run) | {"status": "running", "exit_code": None}))


@pytest.mark.parametrize("words", [["seeds=2"], ["seeds=2", "clip=0.3"], ["seeds=[7,8]"], ["seed=7"]], ids=" ".join)
def test_a_folder_that_holds_seeds_takes_no_other_run_unless_it_is_resumed(shell: Shell, words: list[str]) -> None:
    assert shell.train(*RUN, QUIET, "seeds=2", "run_name=g") == 0
    group = shell.folder / "outputs/cartpole/ppo/g"
    before = contents(group)
    assert shell.train(*RUN, *words, "run_name=g") == 2
    name = "outputs/cartpole/ppo/g"
    assert shell.errors == [
        f"run_name=g: {name} already holds a run; choose another name, or go on with it: resume={name}"
    ]
    assert contents(group) == before


def test_a_group_may_get_more_seeds_as_it_goes_on(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=1", "run_name=g") == 0
    assert shell.train("resume=outputs/cartpole/ppo/g", "seeds=2") == 0
    assert [run.name for run in shell.runs] == ["seed=1", "seed=2"]


def test_a_group_goes_on_of_which_one_seed_went_on_alone(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=[3,5]", "hydra.run.dir=group") == 0
    assert shell.train("resume=group/seed=3", "total_env_steps=192") == 0
    assert shell.train("resume=group", "total_env_steps=256") == 0, shell.err
    assert [metrics(run)[-1]["env_steps"] for run in shell.runs] == [256, 256]


def test_what_changed_on_the_way_is_shown_once_for_all_seeds(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=3", "hydra.run.dir=group") == 0
    assert shell.train("resume=group", "clip=0.5", "total_env_steps=192", "quiet=false") == 0
    assert shell.out.count("changed: clip 0.2 -> 0.5") == 1
    assert shell.out.count("changed: total_env_steps 128 -> 192") == 1
    assert "nothing is left" not in shell.out
    assert shell.out.count("look at it") == 1, "what each run says at its end is left to the group"


@pytest.mark.parametrize("seeds", [[1], [2], [1, 2, 3]], ids=str)
def test_seeds_that_were_killed_before_they_saved_start_anew_when_the_group_goes_on(
    shell: Shell, seeds: list[int]
) -> None:
    assert shell.train(*RUN, QUIET, "seeds=3", "hydra.run.dir=group") == 0
    shutil.copytree("group", "whole")
    for seed in seeds:
        kill(shell.folder / f"group/seed={seed}", at=0)
    assert shell.train("resume=group") == 0, shell.err
    assert shell.err == ""
    for seed in (1, 2, 3):
        assert same(shell.folder / f"group/seed={seed}", shell.folder / f"whole/seed={seed}")
        assert len(list((shell.folder / f"group/seed={seed}").glob("events.*"))) == 1


def test_a_seed_that_was_killed_before_it_had_written_anything_starts_anew(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=2", "hydra.run.dir=group") == 0
    shutil.rmtree("group/seed=1")
    Path("group/seed=1/checkpoints").mkdir(parents=True)
    assert shell.train("resume=group") == 0, shell.err
    assert summary_of(shell.folder / "group/seed=1")["status"] == "completed"


def test_a_seed_that_failed_before_it_had_saved_starts_anew(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    train_once = Trainer.train_once

    def fail_for_seed_1(trainer: Trainer) -> object:
        if trainer.state.seed == 1:
            raise NonFiniteError("a gradient is not finite")
        return train_once(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_once", fail_for_seed_1)
        assert shell.train(*RUN, QUIET, "seeds=2", "hydra.run.dir=group") == 1
    assert summary_of(shell.folder / "group/seed=1")["status"] == "failed"
    assert shell.train("resume=group") == 0, shell.err
    assert summary_of(shell.folder / "group/seed=1")["status"] == "completed"


def test_settings_that_do_not_fit_leave_a_seed_without_checkpoint_as_it_is(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=2", "hydra.run.dir=group") == 0
    kill(shell.folder / "group/seed=1", at=0)
    before = contents(shell.folder / "group")
    assert shell.train("resume=group", "num_minibatches=7") == 2
    assert contents(shell.folder / "group") == before


def test_a_seed_that_cannot_go_on_says_so_without_a_traceback(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=2", "hydra.run.dir=group") == 0
    (damaged,) = Path("group/seed=2/checkpoints").glob("*.pt")
    damaged.write_bytes(b"nothing")
    assert shell.train("resume=group", "total_env_steps=192", "quiet=false") == 1
    assert "Traceback" not in shell.out + shell.err
    assert re.search(r"seed 2 +failed: group/seed=2/checkpoints/step_000000000128.pt", shell.out)
    assert summary_of(shell.folder / "group/seed=1")["env_steps"] == 192


def test_a_group_that_is_done_says_so_once_and_stays_as_it_is(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=3", "hydra.run.dir=group") == 0
    before = contents(shell.folder / "group")
    assert shell.train("resume=group", "clip=0.5", "learning_rate=1e-5", "quiet=false") == 0
    assert shell.out.count("nothing is left to do: 128 of 128 env steps are done; total_env_steps=... sets a") == 1
    assert "mean" in shell.out
    assert contents(shell.folder / "group") == before


def test_seeds_that_are_done_stay_as_they_are_while_the_others_go_on(shell: Shell) -> None:
    assert shell.train(*RUN, QUIET, "seeds=3", "checkpoint_interval=64", "hydra.run.dir=group") == 0
    kill(shell.folder / "group/seed=1", at=64)
    before = contents(shell.folder / "group/seed=3")
    assert shell.train("resume=group", "clip=0.5", "quiet=false") == 0
    assert shell.out.count("changed: clip 0.2 -> 0.5") == 1
    assert "nothing is left" not in shell.out
    assert len(re.findall(r"seed \d +return", shell.out)) == 3
    assert summary_of(shell.folder / "group/seed=1")["start_env_steps"] == 64
    assert contents(shell.folder / "group/seed=3") == before


def test_a_job_of_several_seeds_goes_on_when_the_sweep_is_typed_again(shell: Shell) -> None:
    words = ["-m", *RUN, QUIET, "seeds=2", "clip=0.1,0.2", "checkpoint_interval=64"]
    assert shell.train(*words) == 0
    kill(shell.runs[1], at=64)
    assert shell.train(*words) == 0, shell.err
    assert [summary_of(run)["status"] for run in shell.runs] == ["completed"] * 4
    assert [summary_of(run)["start_env_steps"] for run in shell.runs] == [0, 64, 0, 0]


def test_a_seed_that_fails_harms_none_of_the_others(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    run_trainer = seeds_module.run_trainer

    def fail_for_seed_2(trainer: Trainer, stop: StopRequest | None = None) -> object:
        if trainer.state.seed == 2:
            raise RuntimeError("the disk is on fire")
        return run_trainer(trainer, stop)

    monkeypatch.setattr(seeds_module, "run_trainer", fail_for_seed_2)
    assert shell.train(*RUN, "seeds=3", "hydra.run.dir=group") == 1
    assert "failed: RuntimeError: the disk is on fire" in shell.out
    done = [json.loads((shell.folder / f"group/seed={seed}/summary.json").read_text()) for seed in (1, 3)]
    assert [summary["status"] for summary in done] == ["completed", "completed"]


def test_an_interrupted_group_goes_on_where_each_seed_stopped(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    train_once = Trainer.train_once
    stop = StopRequest()

    def stop_in_the_second_seed(trainer: Trainer) -> object:
        if trainer.state.seed == 2:
            stop.signal_number = 2
        return train_once(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(seeds_module, "stop_on_signals", lambda: _already(stop))
        patch.setattr(Trainer, "train_once", stop_in_the_second_seed)
        assert shell.train(*RUN, QUIET, "seeds=3", "hydra.run.dir=group") == 130, shell.err
    assert not (shell.folder / "group/seed=3").exists(), "one thread: the third had not begun"
    assert shell.train("resume=group") == 0
    assert shell.train(*RUN, QUIET, "seeds=3", "hydra.run.dir=whole") == 0
    for seed in (1, 2, 3):
        ours, theirs = weights(shell.folder / f"group/seed={seed}"), weights(shell.folder / f"whole/seed={seed}")
        assert ours.keys() == theirs.keys()
        summary = json.loads((shell.folder / f"group/seed={seed}/summary.json").read_text())
        assert summary["status"] == "completed"
        assert summary["env_steps"] == 128


class _already:  # noqa: N801 - stands for a function
    """The stop request that a test holds, as a context."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def __enter__(self) -> StopRequest:
        return self.stop

    def __exit__(self, *_: object) -> None:
        return None


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def note(self, text: str, *, warning: bool = False) -> None:
        del text, warning

    def update(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def close(self) -> None:
        return None


def test_a_group_shows_steps_added_up_and_figures_averaged() -> None:
    display = Recorder()
    group = GroupProgress(display, {"a": 100, "b": 100})
    group.member("a").update(Snapshot(40, 100, 1.0, {"charts/episodic_return": 10.0, "charts/episodes": 3.0}))
    group.member("b").update(
        Snapshot(20, 100, 1.0, {"charts/episodic_return": 30.0, "charts/episodes": 4.0, "losses/kl": float("nan")})
    )
    group.close()
    last = display.snapshots[-1]
    assert (last.env_steps, last.total_env_steps) == (60, 200)
    assert last.scalars["charts/episodic_return"] == 20.0
    assert last.scalars["charts/episodes"] == 7.0
    assert last.scalars["losses/kl"] != last.scalars["losses/kl"], "nobody has a number: NaN"


def test_a_group_shows_itself_ten_times_a_second_and_at_its_end() -> None:
    display, now = Recorder(), [0.0]
    group = GroupProgress(display, {"a": 1000}, clock=lambda: now[0])
    for update in range(26):
        now[0] = 0.01 * update
        group.member("a").update(Snapshot(update, 1000, 1.0))
    assert [snapshot.env_steps for snapshot in display.snapshots] == [0, 10, 20]
    group.close()
    assert display.snapshots[-1].env_steps == 25
