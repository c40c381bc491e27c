"""Which hyperparameter mattered: shares of variance in a full grid, rank correlations where it is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ppo_cli.report.files import is_number
from ppo_cli.report.groups import exact
from ppo_cli.report.results import Result, final_value, finite
from ppo_cli.report.statistics import Array, Estimate, bootstrap

INTERACTION = "settings together"
SEED = "seed"


@dataclass(frozen=True)
class Importance:
    """What the settings that differed did to the final figure."""

    is_grid: bool
    """Whether every combination of the settings was run, so that the variance splits into their shares."""
    figures: Mapping[str, Estimate]
    """By setting. Of a grid, shares of the variance, with those of the combination and the seed; otherwise Spearman's
    rank correlations, -1 to 1, of the settings that have an order."""
    aliases: Mapping[str, tuple[str, ...]]
    """By setting, others that changed only together with it: nobody can tell whose effect it is."""
    chance: Mapping[str, float]
    """Of a grid, the share that a setting without any effect takes on average."""
    n: int
    """Runs that were counted."""


def importance_of(results: Sequence[Result], metric: str) -> Importance | None:
    """None where no setting differed, or too little was measured to say."""
    samples = {
        result.group.label: finite([final_value(run, metric, result.env_steps) for run in result.counted])
        for result in results
    }
    known = [result.group for result in results if samples[result.group.label]]
    names = list(dict.fromkeys(name for group in known for name in group.factors))
    columns = {name: tuple(exact(group.factors.get(name, ...)) for group in known) for name in names}
    factors, aliases = distinct(columns)
    if not factors or sum(map(len, samples.values())) < 3:
        return None
    cells = {tuple(exact(group.factors.get(name, ...)) for name in factors): samples[group.label] for group in known}
    levels = [list(dict.fromkeys(columns[name])) for name in factors]
    if len(cells) == math.prod(map(len, levels)) and max(map(len, cells.values())) > 1:
        return _of_grid(factors, levels, cells, aliases)
    return _by_rank(factors, [(group.factors, samples[group.label]) for group in known], aliases)


def distinct(columns: Mapping[str, tuple[str, ...]]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The settings that really vary, and for each of them others that always changed with it."""
    by_pattern: dict[tuple[int, ...], list[str]] = {}
    for name, values in columns.items():
        if len(set(values)) > 1:
            by_pattern.setdefault(tuple(values.index(value) for value in values), []).append(name)
    return [same[0] for same in by_pattern.values()], {same[0]: tuple(same[1:]) for same in by_pattern.values()}


def _of_grid(
    factors: Sequence[str],
    levels: Sequence[Sequence[str]],
    cells: Mapping[tuple[str, ...], Sequence[float]],
    aliases: Mapping[str, tuple[str, ...]],
) -> Importance:
    shape = tuple(map(len, levels))
    strata = [np.array(cells[key]) for key in product(*levels)]
    count = sum(map(len, strata))
    shares = np.stack(bootstrap(strata, lambda drawn: shares_of_variance(drawn, shape)), -1)
    names = [*factors, *([INTERACTION] if len(factors) > 1 else []), SEED]
    estimates = {
        name: Estimate(float(value), float(low), float(high), count)
        for name, (value, low, high) in zip(names, shares, strict=True)
    }
    chance = {name: (size - 1) / (count - 1) for name, size in zip(factors, shape, strict=True)}
    return Importance(True, estimates, aliases, chance, count)


def shares_of_variance(cells: Sequence[Array], shape: Sequence[int]) -> Array:
    """How the variance over a full grid, every cell weighing the same, splits up.

    Args:
        cells: Samples of each cell, [..., n], in the order of ``itertools.product`` over the levels.
        shape: Levels of each of the K settings.

    Returns:
        Shares of each setting alone, of what they do only together (where K > 1), and of the samples within a cell;
        [K + 2, ...] or [2, ...]; they add up to 1, and are 0 where nothing varies.
    """
    means = np.stack([cell.mean(-1) for cell in cells], -1)
    within = np.mean([cell.var(-1) for cell in cells], 0)
    between = means.var(-1)
    grid = means.reshape(*means.shape[:-1], *shape)
    axes = range(-len(shape), 0)
    alone = [grid.mean(tuple(other for other in axes if other != axis)).var(-1) for axis in axes]
    parts = np.stack([*alone, *([between - sum(alone)] if len(shape) > 1 else []), within])
    total = between + within
    return np.asarray(np.clip(parts / np.where(total > 0, total, 1), 0, 1))


def _by_rank(
    factors: Sequence[str],
    samples: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
    aliases: Mapping[str, tuple[str, ...]],
) -> Importance:
    estimates = {}
    for name in factors:
        pairs = [(settings.get(name), value) for settings, values in samples for value in values]
        if (codes := ordered([value for value, _ in pairs])) is not None:
            both = np.array([ranks(codes), ranks([value for _, value in pairs])])
            value, low, high = map(float, bootstrap([both], lambda drawn: correlation(drawn[0])))
            estimates[name] = Estimate(value, low, high, len(pairs))
    return Importance(False, estimates, aliases, {}, sum(len(values) for _, values in samples))


def ordered(values: Sequence[Any]) -> list[float] | None:
    """Settings as numbers to rank: two values of any kind are 0 and 1; None where they have no order."""
    if all(is_number(value) for value in values):
        return [float(value) for value in values]
    kinds = list(dict.fromkeys(map(exact, values)))
    return [float(kinds.index(exact(value))) for value in values] if len(kinds) == 2 else None


def ranks(values: Sequence[float]) -> Array:
    """From 1 up; equal values share their mean rank."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[index])


def correlation(pairs: Array) -> Array:
    """Pearson's, of [2, ..., n] to [...]; 0 where one side does not vary."""
    first, second = pairs - pairs.mean(-1, keepdims=True)
    spread = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    return np.asarray((first * second).sum(-1) / np.where(spread > 0, spread, 1))
