"""Complete returns are a noisy signal; a critic lowers the variance.

Under one fixed policy, with a critic that was trained on it, the policy gradient is estimated from the same rollouts in
several ways: from complete returns without a baseline, and with GAE over lambda (0 is the TD error, 1 the return minus
the critic's value). Noise is the variance of one trajectory's gradient, E|g - E g|^2.

- holds: the noise of the returns is larger than with the critic at every lambda, all intervals of the ratio above 1;
- holds in part: so at some lambdas;
- does not hold: the interval of the ratio is below 1 at every lambda;
- undecided: otherwise.

The bias, |E g - E g'|^2 against g' at lambda 1, is shown beside it: it is what the lower variance costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppo_cli.claims.base import Claim, MissingRunsError, Verdict, listed, with_interval
from ppo_cli.claims.drawing import finish, note, shaded_line
from ppo_cli.report.charts import PALETTE
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Array, Estimate, estimate, estimate_strata, interquartile_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RETURNS = "returns"
KINDS = ("variance", "bias", "signal", "advantage_variance")


@dataclass(frozen=True)
class Measured:
    """Means over the measuring rollouts of each seed, [seeds], by estimator and kind."""

    figures: dict[str, dict[str, Array]]

    def of(self, estimator: str, kind: str) -> Array:
        """One figure."""
        return self.figures[estimator][kind]


def measure(runs: Sequence[Run]) -> Measured:
    """What the runs measured after their policy and their critic had stopped to learn."""
    finished = [run for run in runs if run.is_finished and len(run.curve(f"noise/{RETURNS}/variance").value)]
    if not finished:
        raise MissingRunsError("There are no finished runs with measured gradients")
    names = [tag.split("/")[1] for tag in finished[0].curves if tag.startswith("noise/") and tag.endswith("/variance")]
    return Measured(
        {
            name: {
                kind: np.array([run.curve(f"noise/{name}/{kind}").value.mean() for run in finished]) for kind in KINDS
            }
            for name in names
        }
    )


def ratio(measured: Measured, estimator: str, kind: str = "variance") -> Estimate:
    """How many times that of ``estimator`` the returns' figure is, by seed, on the same data."""
    return estimate(measured.of(RETURNS, kind) / measured.of(estimator, kind))


def lambdas(measured: Measured) -> dict[float, str]:
    """The estimators with the critic by their lambda."""
    return {float(name.rpartition("_")[2]): name for name in measured.figures if name != RETURNS}


def judge(measured: Measured) -> Verdict:
    """The returns against every lambda."""
    names = lambdas(measured)
    ratios = {gae_lambda: ratio(measured, name) for gae_lambda, name in names.items()}
    shown = [f"{with_interval(ratios[end], '.1f')} times that at lambda {end:g}" for end in (max(names), min(names))]
    bias = estimate(100 * measured.of(names[min(names)], "bias") / measured.of(names[max(names)], "signal"))
    advantages = ratio(measured, names[min(names)], "advantage_variance")
    sentence = (
        f"The gradient's noise from complete returns was {listed(shown)}, the variance of the advantages "
        f"{advantages.value:.0f} times that of the TD errors; the price is a squared bias of "
        f"{with_interval(bias, '.1f', ' %')} of the squared gradient at lambda {min(names):g}."
    )
    above, below = ([test(each) for each in ratios.values()] for test in (is_above, is_below))
    if all(above):
        return Verdict("holds", sentence)
    if all(below):
        return Verdict("does not hold", sentence)
    return Verdict("holds in part" if any(above) else "undecided", sentence)


def is_above(figure: Estimate) -> bool:
    """Whether a ratio is above 1, interval and all."""
    return figure.low > 1


def is_below(figure: Estimate) -> bool:
    """Whether it is below 1."""
    return figure.high < 1


def relative(measured: Measured, estimator: str, kind: str) -> Estimate:
    """A figure in per cent of the squared gradient."""
    signal = measured.of(lambdas(measured)[1.0], "signal")

    def of_means(strata: list[Array]) -> Array:
        return 100 * interquartile_mean(strata[0]) / interquartile_mean(signal)

    return estimate_strata([measured.of(estimator, kind)], of_means)


def draw(measured: Measured, figure: Figure) -> None:
    """Variance of the advantages; noise and bias of the gradient."""
    left, right = figure.subplots(1, 2)
    names = [*lambdas(measured).values(), RETURNS]
    places = list(map(float, range(len(names))))
    variances = [estimate(measured.of(name, "advantage_variance")) for name in names]
    line_and_point(left, places, variances, PALETTE[0])
    left.set_yscale("log")
    left.set_ylabel("squared return")
    middle = len(names) // 2
    for colour, (kind, label) in zip(PALETTE, {"variance": "noise", "bias": "squared bias"}.items(), strict=False):
        figures = [relative(measured, name, kind) for name in names]
        line_and_point(right, places, figures, colour)
        note(right, label, (places[middle], figures[middle].value), colour, (0, 14), "center")
    right.set_ylabel("% of the squared gradient")
    for axes, title in ((left, "Variance of the advantages"), (right, "Noise and bias of one trajectory's gradient")):
        finish(axes, title)
        axes.set_xticks(places, [*(f"{gae_lambda:g}" for gae_lambda in lambdas(measured)), "returns"])
        axes.set_xlabel("lambda, not to scale; complete returns without a critic")


def line_and_point(axes: Axes, places: Sequence[float], figures: Sequence[Estimate], colour: str) -> None:
    """A line over lambda, and the returns apart from it."""
    shaded_line(axes, places[:-1], figures[:-1], colour)
    axes.plot([places[-1]] * 2, [figures[-1].low, figures[-1].high], color=colour, linewidth=3, alpha=0.5)
    axes.plot(places[-1], figures[-1].value, "o", color=colour, markersize=5)


CLAIM = Claim("Complete returns are a noisy signal; a critic lowers the variance.", measure, judge, draw)
