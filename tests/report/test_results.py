from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from ppo_cli.report.groups import group_runs
from ppo_cli.report.results import lead, ranked, results_of, seconds, speed
from ppo_cli.report.runs import RETURN, find_runs, load_run
from tests.report.helpers import write_run


def results(folder, metric=RETURN):
    return results_of(group_runs(find_runs([folder])), metric)


@pytest.fixture
def sweep(tmp_path):
    generator = np.random.default_rng(7)
    for clip in (0.1, 0.2):
        for seed in range(1, 7):
            curve = np.cumsum(generator.normal(10 * clip, 1, size=20)).tolist()
            write_run(tmp_path / f"clip={clip},seed={seed}", curve, clip=clip, seed=seed, overrides=[f"clip={clip}"])
    return tmp_path


def test_figures_are_those_recomputed_from_the_raw_metrics_with_scipy(sweep):
    for result in results(sweep):
        rows = [
            [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
            for run in result.group.runs
        ]
        last = [each[-1][RETURN] for each in rows]
        areas = [np.trapezoid([row[RETURN] for row in each], [row["env_steps"] for row in each]) / 190 for each in rows]
        assert result.final.value == pytest.approx(stats.trim_mean(last, 0.25))
        assert result.area.value == pytest.approx(stats.trim_mean(areas, 0.25))
        interval = stats.bootstrap(
            (last,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", rng=1
        ).confidence_interval
        assert [result.final.low, result.final.high] == pytest.approx(list(interval), abs=0.15 * np.std(last))
        assert result.final.n == result.area.n == 6


def test_a_run_that_failed_is_not_counted_beside_finished_ones(tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", [100.0], seed=2, status="failed")
    (result,) = results(tmp_path)
    assert result.final[0] == 4
    assert (result.final.n, [run.seed for run in result.left_out]) == (1, [2])
    assert not result.is_provisional


def test_where_nothing_has_finished_runs_are_compared_as_far_as_all_have_come(tmp_path):
    write_run(tmp_path / "a", [1.0, 2.0, 9.0], seed=1, status="running")
    write_run(tmp_path / "b", [3.0, 4.0], seed=2, status="running")
    (result,) = results(tmp_path)
    assert result.is_provisional
    assert (result.env_steps, result.final.value, result.area.value) == (20, 3, 2.5)


def test_a_figure_between_two_lines_lies_between_their_values(tmp_path):
    write_run(tmp_path / "a", {RETURN: [0.0, None, 8.0]}, seed=1, status="running")
    write_run(tmp_path / "b", [3.0, 4.0], seed=2, status="running")
    assert results(tmp_path)[0].final.value == (4 + 4) / 2


def test_a_group_without_a_single_value_has_none_and_stands_last(tmp_path):
    write_run(tmp_path / "a", [], clip=0.1)
    write_run(tmp_path / "b", [-5.0], clip=0.2)
    ordered = ranked(results(tmp_path))
    assert [result.final.n for result in ordered] == [1, 0]
    assert math.isnan(ordered[1].final.value)


def test_the_lead_is_the_difference_of_the_two_highest(sweep):
    best, second = ranked(results(sweep))
    found = lead([second, best], RETURN)
    assert found.value == pytest.approx(best.final.value - second.final.value)
    assert found.low < found.value < found.high


def test_one_seed_has_no_lead(tmp_path):
    write_run(tmp_path / "a", clip=0.1)
    write_run(tmp_path / "b", [9.0], clip=0.2)
    assert lead(results(tmp_path), RETURN) is None


def test_the_speed_of_a_run_that_did_not_end_is_read_from_its_metrics(tmp_path):
    run = load_run(
        write_run(
            tmp_path / "a",
            {"time/SPS_total": [5.0, 20.0]},
            status="running",
            summary={"steps_per_second": None, "wall_seconds": 0.0},
        )
    )
    assert (speed(run), seconds(run)) == (20, 1)


def test_the_time_of_a_run_that_was_resumed_is_that_of_all_its_steps(tmp_path):
    run = load_run(write_run(tmp_path / "a", summary={"start_env_steps": 20, "steps_per_second": 10.0}))
    assert seconds(run) == 4
    assert seconds(load_run(write_run(tmp_path / "b"))) == 2
