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
from ppo_cli.claims.drawing import colours_for, finish, note
from ppo_cli.report.charts import PALETTE
from ppo_cli.report.figures import INK, RULE
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    groups = by_setting(runs, "clip", having="clip/samples")
    need(groups, "counted samples")
    finished = [run for group in groups.values() for run in group]
    num_samples, pushed, silenced = (
        sum(int(run.curve(f"clip/{name}").value.sum()) for run in finished)
        for name in ("samples", "pushed_further", "silenced_elsewhere")
    )
    shares = {
        clip: {side: [float(run.curve(f"clip/{side}").value.mean()) for run in group] for side in SIDES}
        for clip, group in groups.items()
    }
    return Measured(num_samples, pushed, silenced, shares)


def judge(measured: Measured) -> Verdict:
    """Whether any sample is at odds with the claim, and how many are beyond on either kind of side."""
    at_odds = measured.pushed_further + measured.silenced_elsewhere
    clip = min(measured.shares, key=lambda each: abs(each - DRAWN_CLIP))
    favoured, others = (side_share(measured, clip, is_favoured=flag) for flag in (True, False))
    sentence = (
        f"Of {measured.num_samples:,} samples {at_odds:,} were at odds with it (95 % interval of the share "
        f"{wilson_interval(at_odds, measured.num_samples)}); with clip {clip:g}, "
        f"{with_interval(favoured, '.1f', ' %')} were beyond the interval on the favoured side after an update, "
        f"and {with_interval(others, '.1f', ' %')} on the other, where the gradient still pulls them back."
    )
    if at_odds:
        return Verdict("does not hold", sentence)
    is_seen = all(max(measured.shares[clip][side]) > 0 for side in FAVOURED)
    return Verdict("holds" if is_seen and measured.num_samples >= ENOUGH else "undecided", sentence)


def side_share(measured: Measured, clip: float, *, is_favoured: bool) -> Estimate:
    """Per cent of the samples that are beyond the interval on the favoured sides, or on the others."""
    chosen = [values for side, values in measured.shares[clip].items() if (side in FAVOURED) == is_favoured]
    return estimate([100 * sum(parts) for parts in zip(*chosen, strict=True)])


def wilson_interval(count: int, total: int) -> str:
    """The 95 % interval (Wilson 1927) of a share, in words, as if the samples were independent."""
    z, total = 1.96, max(total, 1)
    share, spread = count / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    width = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
    return f"{max(centre - width, 0):.2g} to {centre + width:.2g}" if count else f"0 to {centre + width:.2g}"


def draw(measured: Measured, figure: Figure) -> None:
    """Objective and gradient against the ratio for either sign of the advantage; where the samples are."""
    *functions, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    colours = colours_for(["objective", "gradient"])
    for axes, advantage in zip(functions, (1.0, -1.0), strict=True):
        ratio, objective, gradient = objective_and_gradient(advantage, DRAWN_CLIP)
        axes.axvspan(1 - DRAWN_CLIP, 1 + DRAWN_CLIP, color=RULE, alpha=0.6, linewidth=0)
        axes.plot(ratio, objective, color=colours["objective"])
        axes.plot(ratio, gradient, color=colours["gradient"])
        side = "left" if advantage < 0 else "right"  # where the gradient is 0
        place = -1 if advantage > 0 else 0
        note(axes, "gradient", (ratio[place], gradient[place]), colours["gradient"], (0, 8), side)
        note(axes, "objective", (ratio[place], objective[place]), colours["objective"], (0, 8), side)
        axes.set_xlabel("probability ratio r")
        axes.set_ylim(*((-0.2, 1.5) if advantage > 0 else (-1.8, 0.3)))
        finish(axes, f"Advantage {advantage:+g}, clip {DRAWN_CLIP:g}")
    draw_shares(bars, measured)


def draw_shares(axes: Axes, measured: Measured) -> None:
    """Samples beyond the interval by side, a bar for each clip."""
    clips = list(measured.shares)
    height = 0.8 / len(clips)
    colours = {clip: PALETTE[(2 + place) % len(PALETTE)] for place, clip in enumerate(clips)}
    for row, side in enumerate(SIDES):
        for place, clip in enumerate(clips):
            share = estimate([100 * value for value in measured.shares[clip][side]])
            y = row + height * (place - (len(clips) - 1) / 2)
            axes.barh(y, share.value, 0.9 * height, color=colours[clip])
            axes.plot([share.low, share.high], [y, y], color=INK, linewidth=1)
            if row == 0:
                note(axes, f"clip {clip:g}", (share.high, y), colours[clip], (5, 0))
    names = [name.replace(", ", "\n") + (", favoured" if side in FAVOURED else "") for side, name in SIDES.items()]
    axes.set_yticks(range(len(SIDES)), names)
    axes.invert_yaxis()
    axes.set_xlabel("% of the samples")
    finish(axes, "Beyond the interval after an update", rules="x")


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
