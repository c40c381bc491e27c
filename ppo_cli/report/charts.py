"""What the figures show, apart from how they are drawn: curves over seeds, scales, colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ppo_cli.report.health import HIGH_CLIP_FRACTION, HIGH_KL
from ppo_cli.report.results import Result, ranked
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Array, Band, band

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#B5539C", "#946500", "#2A9FD6", "#5B5B5B")
"""After Okabe and Ito, told apart by the colour-blind; the light ones darkened until they read on white."""
DARK_PALETTE = ("#56B4E9", "#FF8A4C", "#2FC79A", "#E59CCB", "#E6B422", "#9AD1F5", "#B8B8B8")
"""The same hues on black."""

SMALL_POINTS = 60
MOST_SMALL_BANDS = 4


@dataclass(frozen=True)
class Series:
    """One configuration's curve; ``colour`` is a place in the palettes, None of those in the background."""

    label: str
    band: Band
    colour: int | None


@dataclass(frozen=True)
class Scale:
    """One axis: from data to 0 (low end) .. 1 (high end)."""

    low: float
    high: float
    is_log: bool = False

    def __call__(self, value: Array | NDArray[np.int64]) -> Array:
        """Where values lie; what is outside is cut to the ends, NaN stays."""
        value = np.asarray(value, np.float64)
        if self.is_log:
            place = (np.log10(np.maximum(value, self.low)) - math.log10(self.low)) / (
                math.log10(self.high) - math.log10(self.low)
            )
        else:
            place = (value - self.low) / (self.high - self.low)
        return np.asarray(np.clip(place, 0, 1))

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers inside, at most about ``most``."""
        if self.is_log:
            decades = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            stride = max(1, math.ceil(len(decades) / most))
            return [10.0**n for n in list(decades)[::stride]]
        step = round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Chart:
    """A figure: curves over environment steps."""

    title: str
    tag: str
    series: tuple[Series, ...]
    x: Scale
    y: Scale
    reference: float | None = None
    """A value to compare with, such as the limit of a health check."""
    is_small: bool = False

    @property
    def with_bands(self) -> bool:
        """Whether there is room to show the intervals."""
        return not self.is_small or len(self.series) <= MOST_SMALL_BANDS

    @property
    def note(self) -> str:
        """What a reader has to know about the bands."""
        counts = [int(series.band.n.max()) for series in self.series]
        falls = any(series.band.n[-1] < series.band.n.max() for series in self.series)
        one, several = min(counts, default=0) == 1, [count for count in counts if count > 1]
        parts = []
        if several:
            size = f"n={several[0]}" if len(set(several)) == 1 else f"n={min(several)} to {max(several)}"
            interval = " with its 95 % bootstrap interval" if self.with_bands else ""
            parts.append(f"interquartile mean over seeds{interval}, {size}")
        if one:
            parts.append("n=1: no interval" if not several else "configurations of one seed have no interval")
        if falls:
            parts.append("dashed where some runs have ended")
        if others := sum(series.colour is None for series in self.series):
            parts.append(f"grey: the {others} configurations behind the best {len(PALETTE) - 1}")
        return "; ".join(parts).replace("interquartile", "Interquartile")


@dataclass(frozen=True)
class Plan:
    """What to draw of a tag, and how."""

    tag: str
    title: str
    is_log: bool = False
    lowest: float = -math.inf
    reference: float | None = None


DIAGNOSTICS = (
    Plan("losses/kl", "KL per update", is_log=True, reference=HIGH_KL),
    Plan("losses/clipfrac", "clip fraction", lowest=0.0, reference=HIGH_CLIP_FRACTION),
    Plan("losses/entropy", "entropy, nats"),
    Plan("losses/explained_variance", "explained variance", lowest=-1.0, reference=0.0),
    Plan("losses/value_loss", "value loss", is_log=True),
    Plan("losses/grad_norm", "gradient norm", is_log=True),
    Plan("charts/episodic_length", "episode length, steps"),
    Plan("charts/SPS", "environment steps a second"),
)

TITLES = {
    "charts/episodic_return": "Return, mean of the last episodes",
    "eval/episodic_return": "Return of greedy evaluations",
}


def title_of(tag: str) -> str:
    """What a tag is called in print."""
    if tag.endswith("/win_rate"):
        return "Games won" + (", greedy evaluations" if tag.startswith("eval/") else "")
    return TITLES.get(tag, tag)


def colours_of(results: Sequence[Result]) -> dict[str, int | None]:
    """A colour for each configuration, by label; where there are more than colours, for the best ones only."""
    if len(results) <= len(PALETTE):
        return {result.group.label: place for place, result in enumerate(results)}
    order = [result.group.label for result in ranked(results)]
    return {label: place if place < len(PALETTE) - 1 else None for place, label in enumerate(order)}


def performance_charts(results: Sequence[Result], metric: str) -> list[Chart]:
    """The curve of the metric, and those of win rates and evaluations where there are any."""
    tags = dict.fromkeys(tag for result in results for run in result.group.runs for tag in run.curves)
    also = [tag for tag in tags if tag.endswith("/win_rate") or tag == "eval/episodic_return"]
    return charts_of(results, [Plan(tag, title_of(tag)) for tag in dict.fromkeys([metric, *also])])


def diagnostic_charts(results: Sequence[Result]) -> list[Chart]:
    """How the updates went: small figures."""
    return [replace(chart, is_small=True) for chart in charts_of(results, DIAGNOSTICS, SMALL_POINTS)]


def charts_of(results: Sequence[Result], plans: Sequence[Plan], points: int = 120) -> list[Chart]:
    """A figure for each plan that any run has points for."""
    colours = colours_of(results)
    charts = []
    for plan in plans:
        series = [
            Series(result.group.label, curve_band(result.group.runs, plan.tag, points), colours[result.group.label])
            for result in results
        ]
        series = [each for each in series if len(each.band.value)]
        if series:
            charts.append(_chart(plan, series))
    return charts


def curve_band(runs: Sequence[Run], tag: str, points: int) -> Band:
    """The interval along training, over all runs that have the tag."""
    return band([curve for run in runs if len((curve := run.curve(tag)).value)], points)


def _chart(plan: Plan, series: list[Series]) -> Chart:
    """Scales that hold every curve and its band; those in the background do not decide."""
    leading = [each for each in series if each.colour is not None] or series
    parts = [part for each in leading for part in (each.band.value, each.band.low, each.band.high)]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    is_log = plan.is_log and bool((values > 0).any()) and values.max() > 30 * max(np.median(values), 1e-12)
    x = Scale(0.0, float(max(each.band.env_steps[-1] for each in series)) or 1.0)
    y = log_scale(values[values > 0]) if is_log else linear_scale(values, plan.lowest)
    return Chart(plan.title, plan.tag, tuple(series), x, y, plan.reference)


def linear_scale(values: Array, lowest: float = -math.inf) -> Scale:
    """An axis between round numbers around all values; 0 belongs to it where they come near."""
    low, high = max(float(values.min()), lowest), max(float(values.max()), lowest)
    if 0 < low < 0.35 * high:
        low = 0.0
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    step = round_step((high - low) / 5)
    return Scale(math.floor(low / step + 1e-6) * step, math.ceil(high / step - 1e-6) * step)


def log_scale(values: Array) -> Scale:
    """An axis of powers of ten: at most five decades below the largest value."""
    high = math.ceil(math.log10(float(values.max())) - 1e-9)
    low = max(math.floor(math.log10(float(np.quantile(values, 0.02)))), high - 5)
    return Scale(10.0**low, 10.0 ** max(high, low + 1), is_log=True)


def round_step(width: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= width * (1 - 1e-9))


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart until neighbours are ``gap`` away from each other, as little as it takes, within bounds."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    found = [places[index] for index in order]
    for _ in range(200):
        for left in range(len(found) - 1):
            if (lack := gap - (found[left + 1] - found[left])) > 1e-9:
                found[left] -= lack / 2
                found[left + 1] += lack / 2
        found = [min(max(place, low), high) for place in found]
    result = [0.0] * len(places)
    for place, index in zip(found, order, strict=True):
        result[index] = place
    return result
