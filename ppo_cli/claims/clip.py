"""Clipping removes the incentive beyond 1 +- clip on the side that the advantage favours, and only there.

The objective that PPO ships is differentiated by the ratio: on a grid for the picture, and for every sample of real
runs as it stands after its update. A sample beyond the interval on the favoured side (ratio too high where the
advantage is positive, too low where it is negative) must have a gradient of 0; every other one must not.

- holds: no sample is at odds with that, and there were some on each favoured side;
- does not hold: a sample is;
- undecided: fewer than 1,000 samples, or none on a favoured side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppo_cli.claims.base import Claim, Verdict, by_setting, need, with_interval
from ppo_cli.claims.drawing import COLOURS, GREY
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENOUGH = 1000
SIDES = {
    "good_above": "advantage > 0, ratio above",
    "good_below": "advantage > 0, ratio below",
    "bad_above": "advantage < 0, ratio above",
    "bad_below": "advantage < 0, ratio below",
}
FAVOURED = ("good_above", "bad_below")
DRAWN_CLIP = 0.2


@dataclass(frozen=True)
class Measured:
    """Of all samples, and by clip and side the share beyond the interval, one figure a seed."""

    num_samples: int
    pushed_further: int  # beyond on the favoured side, and with a gradient
    silenced_elsewhere: int  # anywhere else, and without one
    shares: dict[float, dict[str, list[float]]]


def measure(runs: Sequence[Run]) -> Measured:
    """Counts over all updates of all runs, shares over the updates of each."""
    groups = by_setting((run for run in runs if len(run.curve("clip/samples").value)), "clip")
    need(groups)
    finished = [run for group in groups.values() for run in group]
    counts = [
        sum(int(run.curve(f"clip/{name}").value.sum()) for run in finished)
        for name in ("samples", "pushed_further", "silenced_elsewhere")
    ]
    shares = {
        clip: {side: [float(run.curve(f"clip/{side}").value.mean()) for run in group] for side in SIDES}
        for clip, group in groups.items()
    }
    return Measured(*counts, shares)


def judge(measured: Measured) -> Verdict:
    """Whether any sample is at odds with the claim, and how many are beyond on either kind of side."""
    at_odds = measured.pushed_further + measured.silenced_elsewhere
    clip = min(measured.shares, key=lambda each: abs(each - DRAWN_CLIP))
    favoured, others = (side_share(measured, clip, is_favoured=flag) for flag in (True, False))
    sentence = (
        f"Of {measured.num_samples:,} samples {at_odds:,} were at odds with it (95 % interval of the share "
        f"{at_most(at_odds, measured.num_samples)}); with clip {clip:g}, "
        f"{with_interval(favoured, '.1f', ' %')} were beyond the interval on the favoured side after an update, "
        f"and {with_interval(others, '.1f', ' %')} on the other, where the gradient still pulls them back."
    )
    if at_odds:
        return Verdict("does not hold", sentence)
    is_seen = all(max(sides[side], default=0) > 0 for side in FAVOURED for sides in [measured.shares[clip]])
    return Verdict("holds" if is_seen and measured.num_samples >= ENOUGH else "undecided", sentence)


def side_share(measured: Measured, clip: float, *, is_favoured: bool) -> Estimate:
    """Per cent of the samples that are beyond the interval on the favoured sides, or on the others."""
    chosen = [values for side, values in measured.shares[clip].items() if (side in FAVOURED) == is_favoured]
    return estimate([100 * sum(parts) for parts in zip(*chosen, strict=True)])


def at_most(count: int, total: int) -> str:
    """The 95 % interval (Wilson 1927) of a share, in words."""
    z, total = 1.96, max(total, 1)
    share, spread = count / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    width = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
    return f"{max(centre - width, 0):.2g} to {centre + width:.2g}" if count else f"0 to {centre + width:.2g}"


def draw(measured: Measured, figure: Figure) -> None:
    """Objective and gradient against the ratio for either sign of the advantage; where the samples are."""
    *functions, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    for axes, advantage in zip(functions, (1.0, -1.0), strict=True):
        ratio, objective, gradient = objective_and_gradient(advantage, DRAWN_CLIP)
        axes.axvspan(1 - DRAWN_CLIP, 1 + DRAWN_CLIP, color=GREY, alpha=0.12, linewidth=0)
        axes.plot(ratio, objective, color=COLOURS[0])
        axes.plot(ratio, gradient, color=COLOURS[1])
        start = 0 if advantage > 0 else -1
        axes.annotate("objective", (ratio[start], objective[start]), color=COLOURS[0], xytext=(0, 8), textcoords="offset points", ha="left" if start == 0 else "right")
        axes.annotate("its gradient", (ratio[start], gradient[start]), color=COLOURS[1], xytext=(0, 6), textcoords="offset points", ha="left" if start == 0 else "right")
        axes.set(xlabel="probability ratio", title=f"advantage {advantage:+g}, clip {DRAWN_CLIP:g}")
    clips = list(measured.shares)
    height = 0.8 / max(len(clips), 1)
    for n, clip in enumerate(clips):
        figures = [estimate([100 * value for value in measured.shares[clip][side]]) for side in SIDES]
        y = [row - 0.4 + height * (n + 0.5) for row in range(len(SIDES))]
        values = [each.value for each in figures]
        errors = [[each.value - each.low for each in figures], [each.high - each.value for each in figures]]
        bars.barh(y, values, 0.9 * height, color=COLOURS[n + 2], xerr=errors, error_kw={"linewidth": 1})
        bars.annotate(f"clip {clip:g}", (figures[0].high, y[0]), xytext=(4, 0), textcoords="offset points", va="center", color=COLOURS[n + 2])
    names = [name + (" (favoured)" if side in FAVOURED else "") for side, name in SIDES.items()]
    bars.set_yticks(range(len(SIDES)), [name.replace(", ", "\n") for name in names])
    bars.invert_yaxis()
    bars.grid(axis="y", visible=False)
    bars.set(xlabel="% of the samples", title="beyond the interval after an update")


def objective_and_gradient(advantage: float, clip: float) -> tuple[list[float], list[float], list[float]]:
    """The shipped objective and its gradient on a grid of ratios."""
    import torch

    from ppo_cli.claims.measuring.clip_sides import incentive
    from ppo_cli.losses import clipped_surrogate

    ratio = torch.linspace(0.4, 1.6, 601)
    advantages, width = torch.full_like(ratio, advantage), torch.tensor(clip)
    objective = clipped_surrogate(ratio, advantages, clip=width)
    return ratio.tolist(), objective.tolist(), incentive(ratio, advantages, width).tolist()


CLAIM = Claim(
    "Clipping removes the incentive beyond 1 +- clip on the side that the advantage favours, and only there.",
    measure,
    judge,
    draw,
    size=(12.0, 4.0),
)
