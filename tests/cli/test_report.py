from __future__ import annotations

import json
import os
import shlex
import time

import pytest

from ppo_cli.report.runs import RETURN
from tests.cli.helpers import SHORT_RUN
from tests.report.helpers import write_run


@pytest.fixture
def sweep(shell):
    for number, clip in enumerate((0.1, 0.2)):
        folder = write_run(shell.folder / "outputs" / "sweep_1" / f"clip={clip},seed=1", clip=clip, seed=1)
        os.utime(folder / "config.yaml", (number, number))
    (shell.folder / "outputs" / "sweep_1" / "multirun.yaml").write_text("")
    return shell.folder / "outputs" / "sweep_1"


def test_without_a_run_it_tells_how_in_one_line(shell):
    assert shell.report() == 2
    assert shell.errors == ["which run? ppo-report <run folder>, or ppo-report latest"]


def test_the_report_and_its_figures_lie_beside_the_runs(shell, sweep):
    assert shell.report("outputs/sweep_1") == 0
    assert (sweep / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (sweep / "report_figures").iterdir()) == [
        "charts_episodic_return.png",
        "results.png",
    ]
    assert "outputs/sweep_1/report.html" in shell.out
    assert "clip=0.1" in shell.out


def test_of_several_folders_it_lies_in_the_one_that_holds_them(shell, sweep):
    assert shell.report(*map(str, sorted(sweep.glob("clip=*"))), "figures=false") == 0
    assert (sweep / "report.html").exists()
    assert not (sweep / "report_figures").exists()


def test_latest_is_the_whole_sweep_or_all_seeds_that_the_newest_run_belongs_to(shell, sweep):
    assert shell.report("latest", "figures=false") == 0
    assert (sweep / "report.html").exists()
    for seed in (1, 2):
        write_run(shell.folder / "outputs" / "several" / f"seed={seed}", seed=seed)
    assert shell.report("latest", "format=terminal") == 0
    assert "2 seeds" in shell.out
    write_run(shell.folder / "outputs" / "one")
    assert shell.report("latest", "format=terminal") == 0
    assert "1 run\n" in shell.out


@pytest.mark.parametrize(("output", "file"), [("my.html", "my.html"), ("there/it", "there/it/report.html")])
def test_output_is_a_file_or_a_folder(shell, sweep, output, file):
    assert shell.report("latest", f"output={output}") == 0
    assert (shell.folder / file).exists()
    assert (shell.folder / file).with_name(f"{os.path.basename(file)[:-5]}_figures").is_dir()
    assert not (sweep / "report.html").exists()


def test_on_the_terminal_nothing_is_written(shell, sweep):
    before = sorted(shell.folder.glob("**/*"))
    assert shell.report("latest", "format=terminal") == 0
    assert "RESULTS" in shell.out
    assert sorted(shell.folder.glob("**/*")) == before


def test_a_file_inside_a_run_means_the_run(shell, sweep):
    assert shell.report(str(sweep / "clip=0.1,seed=1" / "metrics.jsonl"), "format=terminal") == 0
    assert "1 run\n" in shell.out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["outputs/sweep_2"], "outputs/sweep_2: there is no such run folder"),
        (["outputs/swee"], "outputs/swee: there is no such run folder; did you mean outputs/sweep_1?"),
        (["empty"], "empty: there is no run in or below it (no config.yaml)"),
        (["loose.txt"], "loose.txt: expected a folder with runs in or below it; this is a file"),
        (["latest", "fromat=terminal"], "fromat=terminal: there is no setting fromat. Did you mean format=terminal?"),
        (["latest", "format=pdf"], "format=pdf: expected one of html, terminal"),
        (["latest", "metric=episodic_retrun"], "metric=episodic_retrun: no run has this figure; did you mean "
         "metric=charts/episodic_return?"),
        (["latest", "metric=episodic_return"], "metric=episodic_return: no run has this figure; did you mean "
         "metric=charts/episodic_return?"),
        (["latest", "metric=x"], "metric=x: no run has this figure; they have: charts/episodic_return"),
        (["latest", "output=loose.txt/x.html"], "output=loose.txt/x.html: "),
        (["latest", "output=folder.html"], "output=folder.html: folder.html is in the way; choose another "
         "output=<file>.html"),
        (["latest", "--terminal"], "--terminal: there is no such flag; settings are written without dashes: "
         "terminal=..."),
    ],
)  # fmt: skip
def test_a_mistake_costs_one_line_and_writes_nothing(shell, sweep, words, problem):
    (shell.folder / "empty").mkdir()
    (shell.folder / "folder.html").mkdir()
    (shell.folder / "loose.txt").write_text("")
    before = sorted(shell.folder.glob("**/*"))
    assert shell.report(*words) == 2
    assert len(shell.errors) == 1
    assert shell.errors[0].startswith(problem)
    assert sorted(shell.folder.glob("**/*")) == before


def test_latest_without_any_run_says_so(shell):
    assert shell.report("latest") == 2
    assert shell.errors == ["latest: there is no run in outputs/"]


def test_a_real_run_is_reported_and_its_command_repeats_it_to_the_bit(shell):
    assert shell.train(*SHORT_RUN, "clip=0.15", "seed=3", "quiet=true") == 0
    (run,) = shell.runs
    assert shell.report("latest", "format=terminal") == 0
    command = next(line for line in shell.out.splitlines() if line.startswith("  ppo-train"))
    assert shell.train(*shlex.split(command)[1:]) == 0
    (other,) = [each for each in shell.runs if each != run]
    first, second = ([json.loads(line) for line in (each / "metrics.jsonl").open()] for each in (run, other))
    assert [row.get(RETURN) for row in first] == [row.get(RETURN) for row in second]
    assert [row["losses/policy_loss"] for row in first] == [row["losses/policy_loss"] for row in second]


def test_help_and_completion_know_the_settings(shell, sweep):
    assert shell.report("--help") == 0
    assert all(name in shell.out for name in ("format", "output", "metric", "figures", "html | terminal"))
    assert shell.report("-sc", "query=ppo-report latest for") == 0
    assert shell.out == "format=\n"
    assert shell.report("-sc", "query=ppo-report latest format=") == 0
    assert shell.out == "format=html\nformat=terminal\n"


def test_sixty_runs_take_seconds(shell):
    for number in range(60):
        curve = [float(step % (number + 2)) for step in range(200)]
        tags = {RETURN: curve} | {f"losses/tag{n}": curve for n in range(10)}
        write_run(shell.folder / "runs" / str(number), tags, clip=number // 5, seed=number, overrides=["clip=1"])
    started = time.process_time()
    assert shell.report("runs", "figures=false") == 0
    assert time.process_time() - started < 30
    assert (shell.folder / "runs" / "report.html").stat().st_size < 2e6
