"""TRPO costs far more per update than a policy-gradient step; PPO costs first-order.

One update of each algorithm on the same batch, for networks of growing size: processor time, peak memory, passes of
the batch through the network. TRPO fits its critic with a single step here, so that what is compared is the policy's
step. The Hessian that theory speaks of would take 4 n^2 bytes for n parameters; practice needs its products only.

At the largest network,

- holds: TRPO's update takes at least 3 times as long as a policy-gradient update (`vpg`), by the interval's beginning,
  and each pass of PPO at most twice as long as one of `vpg`, by the interval's end;
- does not hold: TRPO's takes less than 3 times as long, or PPO's pass more than twice, by the other ends;
- undecided: otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppo_cli.claims.base import Claim, Verdict, by_setting, need, with_interval
from ppo_cli.claims.drawing import colours_for, finish, name_lines, note, shaded_line
from ppo_cli.report.figures import SOFT
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Array, Estimate, estimate, estimate_strata, interquartile_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAR_MORE = 3.0
FIRST_ORDER = 2.0
HESSIAN = "Hessian, if stored"
KINDS = ("vpg", "a2c", "ppo", "trpo")
FIGURES = ("seconds", "megabytes", "forward_passes", "backward_passes")


@dataclass(frozen=True)
class Measured:
    """By kind and number of parameters, the cost of one update, [seeds] by figure."""

    costs: dict[str, dict[int, dict[str, Array]]]

    @property
    def largest(self) -> int:
        """The number of parameters up to which all kinds were measured."""
        return max(set.intersection(*(set(sizes) for sizes in self.costs.values())))


def measure(runs: Sequence[Run]) -> Measured:
    """Medians over the updates of each run, without the first, which pays for starting; it takes at least two."""
    several = [run for run in runs if len(run.curve("cost/seconds").value) > 1]
    groups = by_setting(several, "measured", having="cost/seconds")
    need(groups, "measured=", *KINDS)
    costs: dict[str, dict[int, dict[str, list[float]]]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for run in groups[kind]:
            size = int(run.curve("cost/parameters").value[0])
            figures = costs[kind].setdefault(size, {name: [] for name in FIGURES})
            for name in FIGURES:
                figures[name].append(float(np.median(run.curve(f"cost/{name}").value[1:])))
    return Measured(
        {
            kind: {size: {name: np.array(each) for name, each in sizes[size].items()} for size in sorted(sizes)}
            for kind, sizes in costs.items()
        }
    )


def ratio(first: Array, second: Array) -> Estimate:
    """How many times the second samples the first are."""

    def of_means(strata: list[Array]) -> Array:
        return interquartile_mean(strata[0]) / interquartile_mean(strata[1])

    return estimate_strata([first, second], of_means)


def judge(measured: Measured) -> Verdict:
    """TRPO against a policy-gradient step, PPO's passes against that step's."""
    size = measured.largest
    vpg, ppo, trpo = (measured.costs[kind][size] for kind in ("vpg", "ppo", "trpo"))
    dearer = ratio(trpo["seconds"], vpg["seconds"])
    per_pass = ratio(ppo["seconds"] / passes(ppo), vpg["seconds"] / passes(vpg))
    whole = ratio(trpo["seconds"], ppo["seconds"])
    sentence = (
        f"With {size:,} parameters an update of TRPO took {with_interval(dearer, '.1f')} times as long as one of vpg "
        f"and {with_interval(whole, '.1f')} times as long as one of PPO with its {ppo['backward_passes'].mean():.0f} "
        f"epochs; a pass of PPO took {with_interval(per_pass, '.2f')} times as long as one of vpg. TRPO needed "
        f"{trpo['megabytes'].mean():.0f} MB; its Hessian, which is never stored, would be "
        f"{hessian_megabytes(size):,.0f} MB."
    )
    if dearer.low >= FAR_MORE and per_pass.high <= FIRST_ORDER:
        return Verdict("holds", sentence)
    return Verdict("does not hold" if dearer.high < FAR_MORE or per_pass.low > FIRST_ORDER else "undecided", sentence)


def passes(cost: dict[str, Array]) -> Array:
    """Forward and backward passes of the batch, [seeds]."""
    return cost["forward_passes"] + cost["backward_passes"]


def hessian_megabytes(size: int) -> float:
    """4 bytes for each pair of parameters."""
    return 4 * size**2 / 1e6


def draw(measured: Measured, figure: Figure) -> None:
    """Time and memory against the number of parameters; passes."""
    time, memory, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    colours = colours_for(KINDS) | {HESSIAN: SOFT}
    sizes = sorted(measured.costs["trpo"])
    memory.plot(sizes, [hessian_megabytes(size) for size in sizes], color=SOFT, linestyle=(0, (1, 3)))
    for axes, name, scale in ((time, "seconds", 1000), (memory, "megabytes", 1)):
        ends = {HESSIAN: (float(sizes[-1]), hessian_megabytes(sizes[-1]))} if axes is memory else {}
        for kind, costs in measured.costs.items():
            figures = [estimate(scale * cost[name]) for cost in costs.values()]
            shaded_line(axes, list(map(float, costs)), figures, colours[kind])
            ends[kind] = (float(max(costs)), figures[-1].value)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("parameters")
        name_lines(axes, ends, colours)
    time.set_ylabel("ms")
    memory.set_ylabel("MB")
    finish(time, "Processor time of an update")
    finish(memory, "Its peak memory")
    draw_passes(bars, measured, colours)


def draw_passes(axes: Axes, measured: Measured, colours: dict[str, str]) -> None:
    """Passes of the batch through the network, one bar a kind."""
    for row, kind in enumerate(KINDS):
        cost = measured.costs[kind][measured.largest]
        forward, backward = (float(cost[name].mean()) for name in ("forward_passes", "backward_passes"))
        axes.barh(row, forward, 0.6, color=colours[kind])
        axes.barh(row, backward, 0.6, left=forward, color=colours[kind], alpha=0.45)
        note(axes, f"{forward:.3g} + {backward:.3g}", (forward + backward, row), colours[kind], (4, 0))
    axes.set_yticks(range(len(KINDS)), KINDS)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlabel("of the batch: forward + backward (paler)")
    finish(axes, "Passes of an update", rules="x")


CLAIM = Claim(
    "TRPO costs far more per update than a policy-gradient step; PPO costs first-order.",
    measure,
    judge,
    draw,
    size=(12.0, 4.0),
)
