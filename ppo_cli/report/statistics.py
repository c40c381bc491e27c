"""Figures over seeds: interquartile means, bootstrap intervals, curves on a common grid, areas under them.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv:2108.13264), sec. 4:
the interquartile mean, and percentile intervals of the stratified bootstrap, which draws anew within each stratum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[list[Array]], Array]
"""From one array a stratum, its samples along the last axis, [..., n], to their figure, [...]."""

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 20260
GRID_POINTS = 120
CHUNK = 1 << 22  # numbers drawn at a time


class Estimate(NamedTuple):
    """A figure and its 95 % interval. NaN bounds say that there is none: one sample has no spread."""

    value: float
    low: float
    high: float
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether there were at least two samples."""
        return math.isfinite(self.low)


class Band(NamedTuple):
    """The same along a grid: each [T]; NaN where no run has a value, and for bounds of a single one."""

    env_steps: NDArray[np.int64]
    value: Array
    low: Array
    high: Array
    n: NDArray[np.int64]


def interquartile_mean(samples: Array) -> Array:
    """Mean of the middle half of the last axis, [..., n] to [...]: a quarter, rounded down, is cut from either end."""
    count = samples.shape[-1]
    cut = count // 4
    middle = np.sort(samples)[..., cut : count - cut] if cut else samples
    return np.asarray(middle.mean(-1))


def pooled_iqm(strata: list[Array]) -> Array:
    """The interquartile mean over all samples of all strata."""
    return interquartile_mean(np.concatenate(strata, axis=-1))


def iqm_difference(strata: list[Array]) -> Array:
    """How much higher the first stratum's interquartile mean is than the second one's."""
    first, second = strata
    return interquartile_mean(first) - interquartile_mean(second)


def bootstrap(
    strata: Sequence[Array], statistic: Statistic = pooled_iqm, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[Array, Array, Array]:
    """A figure with the ends of its 95 % percentile interval. The same data always give the same interval.

    Args:
        strata: Samples along the last axis, [..., n_s]; each is drawn from with replacement, n_s at a time:
            environments of one algorithm, or the two sides of a comparison. The axes before it (time) are drawn
            together.
        statistic: The figure, the interquartile mean of all samples unless named.
        resamples: How often it is computed anew.
        seed: Root of the drawing.

    Returns:
        Value, low and high, each [...]; NaN bounds where every stratum holds a single sample.

    Raises:
        ValueError: a stratum is empty.
    """
    arrays = [np.asarray(stratum, np.float64) for stratum in strata]
    if not arrays or any(stratum.shape[-1] == 0 for stratum in arrays):
        raise ValueError("every stratum needs at least one sample")
    value = statistic(arrays)
    if all(stratum.shape[-1] == 1 for stratum in arrays):
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK // sum(stratum.size for stratum in arrays))
    figures = []
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = [generator.integers(stratum.shape[-1], size=(count, stratum.shape[-1])) for stratum in arrays]
        figures.append(statistic([stratum[..., index] for stratum, index in zip(arrays, drawn, strict=True)]))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(figures, axis=-1), [tail, 1 - tail], axis=-1)
    return value, low, high


def estimate(samples: Sequence[float] | Array, statistic: Statistic = pooled_iqm) -> Estimate:
    """Interquartile mean of these seeds with its interval; NaN of none."""
    return estimate_strata([np.asarray(samples, np.float64)], statistic)


def estimate_strata(strata: Sequence[Array], statistic: Statistic = pooled_iqm) -> Estimate:
    """The same over several strata; ``statistic=iqm_difference`` compares two."""
    count = sum(map(len, strata))
    if not count or not all(map(len, strata)):
        return Estimate(math.nan, math.nan, math.nan, count)
    value, low, high = bootstrap(strata, statistic)
    return Estimate(float(value), float(low), float(high), count)


def common_grid(steps: Sequence[NDArray[np.int64]], points: int = GRID_POINTS) -> NDArray[np.int64]:
    """Env steps at which curves are compared: all where one was measured, or evenly spaced ones where they are many."""
    known = np.unique(np.concatenate([np.array([], np.int64), *steps]))
    return known if len(known) <= points else np.linspace(known[0], known[-1], points).round().astype(np.int64)


def on_grid(env_steps: NDArray[np.int64], value: Array, grid: NDArray[np.int64]) -> Array:
    """A curve at the steps of ``grid``, straight between its points; NaN before its first and after its last."""
    if len(env_steps) == 0:
        return np.full(len(grid), np.nan)
    return np.interp(grid, env_steps, value, left=np.nan, right=np.nan)


def band(curves: Sequence[tuple[NDArray[np.int64], Array]], points: int = GRID_POINTS) -> Band:
    """Interquartile mean and interval over seeds along training; ``n`` falls where runs end, nothing is made up.

    Args:
        curves: Env steps [T_i] and values [T_i] of each seed.
        points: At most this many places on the x-axis.
    """
    grid = common_grid([env_steps for env_steps, _ in curves], points)
    samples = np.array([on_grid(env_steps, value, grid) for env_steps, value in curves]).reshape(len(curves), len(grid))
    known = np.isfinite(samples)
    value, low, high = np.full((3, len(grid)), np.nan)
    for rows, columns in _blocks(known):
        value[columns], low[columns], high[columns] = bootstrap([samples[np.ix_(rows, columns)].T])
    return Band(grid, value, low, high, known.sum(0))


def _blocks(known: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and columns of the parts of a grid in which the same runs, at least one, have values."""
    for pattern in np.unique(known, axis=1).T if known.size else ():
        if pattern.any():
            yield np.flatnonzero(pattern), np.flatnonzero((known == pattern[:, None]).all(0))


def area_under_curve(env_steps: NDArray[np.int64], value: Array) -> float:
    """Mean height of a curve between its first and last point, by trapezoids, in the units of ``value``.

    NaN without points; the value itself of a single one.
    """
    if len(env_steps) < 2:
        return float(value[0]) if len(value) else math.nan
    widths = np.diff(env_steps)
    return float(np.sum(widths * (value[1:] + value[:-1]) / 2) / np.sum(widths))
