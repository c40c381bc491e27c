"""Several epochs per batch raise sample efficiency.

PPO learns CartPole with 1 to 64 passes over each rollout and nothing else changed. Sample efficiency is the area under
the learning curve: the mean return over a budget of env steps that is the same for all.

- holds: some number above 1 has a larger area than a single pass, and the interval of the difference is above 0;
- does not hold: the largest difference has an interval below 0;
- undecided: otherwise.

It breaks at the first number beyond the best one whose area is smaller than the best, with an interval below 0.
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
    """By number of epochs."""

    areas: dict[int, list[float]]
    curves: dict[int, list[Curve]]


def measure(runs: Sequence[Run]) -> Measured:
    """Areas under the curves, one a seed."""
    groups = by_setting(runs, "num_epochs")
    need(groups, "num_epochs=", 1)
    areas = {epochs: samples(group, area) for epochs, group in groups.items()}
    need({epochs: values for epochs, values in areas.items() if epochs > 1}, "more epochs")
    return Measured(areas, {epochs: curves(group) for epochs, group in groups.items()})


def judge(measured: Measured) -> Verdict:
    """The best number of epochs against a single one, and where more of them hurt."""
    areas = measured.areas
    best = max((epochs for epochs in areas if epochs > 1), key=lambda epochs: estimate(areas[epochs]).value)
    gain = difference(areas[best], areas[1])
    means = f"Over the same env steps the mean return was {with_interval(estimate(areas[best]))} with {best} epochs"
    sentence = f"{means} and {estimate(areas[1]).value:.0f} with one, a difference of {with_interval(gain)}; "
    sentence += breaking(areas, best)
    if gain.low > 0:
        return Verdict("holds", sentence)
    return Verdict("does not hold" if gain.high < 0 else "undecided", sentence)


def breaking(areas: dict[int, list[float]], best: int) -> str:
    """Where more passes than the best number hurt, if anywhere."""
    for epochs in sorted(areas):
        if epochs > best and (loss := difference(areas[epochs], areas[best])).high < 0:
            return f"it breaks at {epochs} epochs, with {with_interval(loss)} against the best."
    return f"up to {max(areas)} epochs it did not break."


def draw(measured: Measured, figure: Figure) -> None:
    """Learning curves, and their areas over the number of epochs."""
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    curves = {f"{epochs} epoch{'s' * (epochs > 1)}": seeds for epochs, seeds in measured.curves.items()}
    left.set_ylabel("episodic return")
    learning_curves(left, curves, colours_for(list(curves)))
    finish(left, "Return while learning")
    epochs = list(measured.areas)
    shaded_line(right, epochs, [estimate(values) for values in measured.areas.values()], PALETTE[0])
    right.set_xscale("log", base=2)
    finish(right, "Mean return over the run")
    right.set_xticks(epochs, list(map(str, epochs)))
    right.set_xlabel("epochs per rollout")


CLAIM = Claim("Several epochs per batch raise sample efficiency.", measure, judge, draw)
