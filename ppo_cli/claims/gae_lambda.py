"""Lambda trades bias against variance, so that the best is in between.

PPO learns with GAE over lambda from 0 to 1 and nothing else changed. What is compared is the area under the learning
curve: the mean return over a budget of env steps that is the same for all. (`advantage_variance` measures the bias
and the variance themselves.)

- holds: a lambda in between has a larger area than 0 and than 1, and both intervals are above 0;
- holds in part: one interval is above 0; the other end costs nothing that these runs can show;
- does not hold: no lambda in between is better than the better end, with an interval below 0;
- undecided: otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppo_cli.claims.base import Claim, Verdict, area, by_setting, curves, difference, need, samples, with_interval
from ppo_cli.claims.drawing import colours_for, finish, learning_curves, shaded_line
from ppo_cli.report.charts import PALETTE
from ppo_cli.report.runs import Curve, Run
from ppo_cli.report.statistics import estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Measured:
    """By lambda."""

    areas: dict[float, list[float]]
    curves: dict[float, list[Curve]]


def measure(runs: Sequence[Run]) -> Measured:
    """Areas under the curves, one a seed."""
    groups = by_setting(runs, "gae_lambda")
    need(groups, "gae_lambda=", 0, 1)
    need({gae_lambda: group for gae_lambda, group in groups.items() if 0 < gae_lambda < 1}, "a gae_lambda in between")
    return Measured(
        {gae_lambda: samples(group, area) for gae_lambda, group in groups.items()},
        {gae_lambda: curves(group) for gae_lambda, group in groups.items()},
    )


def best_between(measured: Measured) -> float:
    """The lambda between the ends with the largest area."""
    between = [gae_lambda for gae_lambda in measured.areas if 0 < gae_lambda < 1]
    return max(between, key=lambda gae_lambda: estimate(measured.areas[gae_lambda]).value)


def judge(measured: Measured) -> Verdict:
    """The best lambda in between against either end."""
    areas, best = measured.areas, best_between(measured)
    gains = {end: difference(areas[best], areas[end]) for end in (0, 1)}
    sentence = (
        f"The best lambda in between, {best:g}, had a mean return of {with_interval(estimate(areas[best]))}: "
        f"{with_interval(gains[0], '+.0f')} against lambda 0 and {with_interval(gains[1], '+.0f')} against lambda 1."
    )
    better = [gain.low > 0 for gain in gains.values()]
    if all(better):
        return Verdict("holds", sentence)
    if any(gain.high < 0 for gain in gains.values()):
        return Verdict("does not hold", sentence)
    return Verdict("holds in part" if any(better) else "undecided", sentence)


def draw(measured: Measured, figure: Figure) -> None:
    """Areas over lambda, and the learning curves of the ends and the best."""
    left, right = figure.subplots(1, 2)
    places = list(map(float, range(len(measured.areas))))  # evenly spaced: what matters lies near 1
    shaded_line(left, places, [estimate(values) for values in measured.areas.values()], PALETTE[0])
    finish(left, "Mean return over the run")
    left.set_xticks(places, [f"{gae_lambda:g}" for gae_lambda in measured.areas])
    left.set_xlabel("lambda, not to scale")
    curves = {f"lambda {each:g}": measured.curves[each] for each in (0, best_between(measured), 1)}
    right.set_ylabel("episodic return")
    learning_curves(right, curves, colours_for(list(curves)))
    finish(right, "Return while learning: the ends and the best")


CLAIM = Claim("Lambda trades bias against variance.", measure, judge, draw)
