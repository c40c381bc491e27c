"""What came out: each configuration's final figure and area under the curve with intervals, and its speed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppo_cli.report.files import is_number
from ppo_cli.report.groups import Group
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Estimate, area_under_curve, estimate, estimate_strata, iqm_difference, on_grid


@dataclass(frozen=True)
class Result:
    """Figures of one configuration, over those of its runs that can be compared."""

    group: Group
    counted: tuple[Run, ...]
    """The finished runs; of a group without any, all that have points."""
    env_steps: int
    """Where the figures were read: the end, or how far all of the counted runs have come."""
    final: Estimate
    area: Estimate
    """Mean height of the curve up to there."""

    @property
    def is_provisional(self) -> bool:
        """Whether no run has finished, so that these are figures so far."""
        return not any(run.is_finished for run in self.counted)

    @property
    def left_out(self) -> tuple[Run, ...]:
        """Runs that no figure counts."""
        return tuple(run for run in self.group.runs if run not in self.counted)


def results_of(groups: Sequence[Group], metric: str) -> list[Result]:
    """One for each group, in their order."""
    return [_result(group, metric) for group in groups]


def _result(group: Group, metric: str) -> Result:
    measured = [run for run in group.runs if len(run.curve(metric).value)]
    counted = [run for run in measured if run.is_finished] or measured
    end = min((int(run.curve(metric).env_steps[-1]) for run in counted), default=0)
    if any(run.is_finished for run in counted):
        end = max(int(run.curve(metric).env_steps[-1]) for run in counted)
    return Result(
        group,
        tuple(counted),
        end,
        estimate(finite([final_value(run, metric, end) for run in counted])),
        estimate(finite([area(run, metric, end) for run in counted])),
    )


def finite(values: Sequence[float]) -> list[float]:
    """Those that are numbers."""
    return [value for value in values if math.isfinite(value)]


def final_value(run: Run, metric: str, end: float = math.inf) -> float:
    """A figure at ``end`` env steps, or at the run's last point before it; NaN where it begins later."""
    steps, values = run.curve(metric)
    if len(steps) == 0 or steps[0] > end:
        return math.nan
    return float(on_grid(steps, values, np.array([min(end, steps[-1])]))[0])


def area(run: Run, metric: str, end: float = math.inf) -> float:
    """Mean height of a figure's curve up to ``end`` env steps; NaN where it begins later."""
    steps, values = run.curve(metric)
    known = steps <= end
    return area_under_curve(steps[known], values[known])


def ranked(results: Sequence[Result]) -> list[Result]:
    """The highest final figure first; those without any last."""
    return sorted(results, key=lambda result: -result.final.value if result.final.n else math.inf)


def lead(results: Sequence[Result], metric: str) -> Estimate | None:
    """How far the best configuration is ahead of the second one; None where there are not two, or one seed each."""
    best = [result for result in ranked(results) if result.final.n][:2]
    if len(best) < 2:
        return None
    samples = [
        np.array(finite([final_value(run, metric, result.env_steps) for run in result.counted])) for result in best
    ]
    found = estimate_strata(samples, iqm_difference)
    return found if min(map(len, samples)) > 1 else None


def speed(run: Run) -> float:
    """Environment steps per second of the run's last session; NaN where it is not known."""
    told = run.summary.get("steps_per_second")
    return float(told) if is_number(told) else final_value(run, "time/SPS_total")


def seconds(run: Run) -> float:
    """How long it took, or has taken; of a run that was resumed, by its speed. NaN where that is not known."""
    told = run.summary.get("wall_seconds")
    if run.status != "running" and is_number(told) and told and not run.summary.get("start_env_steps"):
        return float(told)
    rate = speed(run)
    return run.env_steps / rate if rate > 0 else math.nan


def median(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN where none is."""
    known = finite(values)
    return statistics.median(known) if known else math.nan
