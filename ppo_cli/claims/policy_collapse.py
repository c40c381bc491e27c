"""Vanilla policy gradient collapses when the step is too large; TRPO and PPO do not.

Each algorithm, as it ships, learns CartPole with learning rates over two decades. An algorithm is lost at a learning
rate where its return at the end of the run is below half of its return at its own best learning rate, with the interval
of the ratio below one half. Beside it stands the largest KL(pi_k, pi_k+1) of a run: after the step for `vpg`, `a2c` and
`trpo`, over the last epoch for `ppo`.

- holds: `vpg` is lost at some learning rate, `trpo` and `ppo` at none, their intervals above one half;
- holds in part: `vpg` is lost, and of `trpo` and `ppo` one or both are, too, but only at a larger learning rate;
- does not hold: `vpg` is lost nowhere, its intervals above one half, or no later than `trpo` or `ppo`;
- undecided: otherwise.

The step of `trpo` is max_kl, whatever the learning rate, which is its critic's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppo_cli.claims.base import Claim, Verdict, by_setting, final, need, samples
from ppo_cli.claims.drawing import colours_for, finish, name_lines, shaded_line
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Array, Estimate, estimate, estimate_strata, interquartile_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOST = 0.5
BOUNDED = ("trpo", "ppo")


@dataclass(frozen=True)
class Measured:
    """By algorithm and learning rate, one figure a seed: the return at the end, and the largest KL of an update."""

    returns: dict[str, dict[float, list[float]]]
    largest_kl: dict[str, dict[float, list[float]]]


def measure(runs: Sequence[Run]) -> Measured:
    """Returns and KLs of the finished runs."""
    groups: dict[str, dict[float, list[Run]]] = {}
    for (algo, learning_rate), group in by_setting(runs, "algo.name", "learning_rate").items():
        groups.setdefault(algo, {})[learning_rate] = group
    need(groups, "algo=", "vpg", *BOUNDED)
    return Measured(
        {algo: {rate: samples(group, final) for rate, group in rates.items()} for algo, rates in groups.items()},
        {algo: {rate: samples(group, largest_kl) for rate, group in rates.items()} for algo, rates in groups.items()},
    )


def largest_kl(run: Run) -> float:
    """Of a run's updates, nats."""
    last_epoch = run.curve("losses/kl_last_epoch").value
    values = last_epoch if len(last_epoch) else run.curve("losses/kl").value
    return float(values.max()) if len(values) else math.nan


def kept(returns: dict[float, list[float]]) -> dict[float, Estimate]:
    """By learning rate, the return as a share of that at the best one."""
    best = returns[max(returns, key=lambda rate: estimate(returns[rate]).value)]

    def share(strata: list[Array]) -> Array:
        return interquartile_mean(strata[0]) / interquartile_mean(strata[-1])

    return {
        rate: estimate_strata([np.array(values), np.array(best)], share)
        if values is not best
        else Estimate(1.0, 1.0, 1.0, len(values))
        for rate, values in returns.items()
    }


def lost_from(returns: dict[float, list[float]]) -> float:
    """The smallest learning rate above the best at which the algorithm is lost; infinite where it is at none."""
    shares = kept(returns)
    best = max(shares, key=lambda rate: shares[rate].value)
    return min((rate for rate, share in shares.items() if rate > best and share.high < LOST), default=math.inf)


def is_kept_everywhere(returns: dict[float, list[float]]) -> bool:
    """Whether every learning rate above the best keeps half of the return, interval and all."""
    shares = kept(returns)
    best = max(shares, key=lambda rate: shares[rate].value)
    return all(share.low > LOST for rate, share in shares.items() if rate > best)


def judge(measured: Measured) -> Verdict:
    """Where each algorithm is lost."""
    lost = {algo: lost_from(returns) for algo, returns in measured.returns.items()}
    parts = []
    for algo, returns in measured.returns.items():
        rate = min(lost[algo], max(returns))
        share, kl = kept(returns)[rate], estimate(measured.largest_kl[algo][rate])
        parts.append(
            f"{algo} is {'' if math.isfinite(lost[algo]) else 'never '}lost: at {rate:g} it keeps "
            f"{100 * share.value:.0f} % (95 % interval {100 * share.low:.0f} to {100 * share.high:.0f} %) of its best "
            f"return, with updates of up to {kl.value:.2g} nats"
        )
    sentence = f"With a growing learning rate {'; '.join(parts)}."
    stays = [is_kept_everywhere(measured.returns[algo]) for algo in BOUNDED]
    if math.isinf(lost["vpg"]):
        return Verdict("does not hold" if is_kept_everywhere(measured.returns["vpg"]) else "undecided", sentence)
    if min(lost[algo] for algo in BOUNDED) <= lost["vpg"]:
        return Verdict("does not hold", sentence)
    if any(math.isfinite(lost[algo]) for algo in BOUNDED):
        return Verdict("holds in part", sentence)
    return Verdict("holds" if all(stays) else "undecided", sentence)


def draw(measured: Measured, figure: Figure) -> None:
    """Return and largest KL against the learning rate."""
    panels = figure.subplots(1, 2)
    colours = colours_for(sorted(measured.returns))
    for axes, figures in zip(panels, (measured.returns, measured.largest_kl), strict=True):
        ends = {}
        for algo, rates in figures.items():
            values = [estimate(each) for each in rates.values()]
            shaded_line(axes, list(rates), values, colours[algo])
            ends[algo] = (max(rates), values[-1].value)
        axes.set_xscale("log")
        axes.set_yscale("log" if axes is panels[1] else "linear")
        axes.set_xlabel("learning rate (of trpo: of its critic)")
        name_lines(axes, ends, colours)
    panels[0].set_ylabel("episodic return")
    panels[1].set_ylabel("KL(old, new), nats")
    finish(panels[0], "Return at the end of the run")
    finish(panels[1], "Largest KL of an update")


CLAIM = Claim(
    "Vanilla policy gradient collapses when the step is too large; TRPO and PPO do not.", measure, judge, draw
)
