"""TRPO keeps every update inside the trust region.

Of each accepted update the mean KL(old, new) is measured twice: on the batch that the line search looked at, and on
fresh states of the same policy, which the update never saw. Both are compared with max_kl.

- holds: on its own batch no accepted update is beyond, and on fresh states at most 5 % are, by the interval's end;
- holds in part: on its own batch none is beyond, and on fresh states more than 5 % are, by the interval's beginning;
- does not hold: on its own batch an accepted update is beyond;
- undecided: otherwise, and with fewer than 100 accepted updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ppo_cli.claims.base import Claim, Verdict, by_setting, need, with_interval
from ppo_cli.claims.drawing import colours_for, finish, name_lines, note
from ppo_cli.report.figures import SOFT
from ppo_cli.report.numbers import steps_text
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Array, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENOUGH = 100
TOLERATED = 5.0  # per cent
ROUNDING = 1 + 1e-6
LEAST_SHOWN = 1e-3  # of max_kl
SEEN, UNSEEN = "losses/kl", "trpo/held_out_kl"


@dataclass(frozen=True)
class Measured:
    """KLs of accepted updates in units of max_kl, one array a run: on the batch itself and on fresh states."""

    seen: list[Array]
    unseen: list[Array]
    curves: dict[float, tuple[Array, Array]]
    """By max_kl: env steps and KL, nats, of all its updates."""


def measure(runs: Sequence[Run]) -> Measured:
    """The KLs of all finished runs."""
    groups = by_setting(runs, "max_kl", having=UNSEEN)
    need(groups, "a KL on fresh states")
    relative: dict[str, list[Array]] = {SEEN: [], UNSEEN: []}
    for max_kl, group in groups.items():
        for run in group:
            accepted = run.curve("trpo/accepted").value == 1
            for tag, collected in relative.items():
                collected.append(run.curve(tag).value[accepted] / max_kl)
    curves = {
        max_kl: (
            np.concatenate([run.curve(SEEN).env_steps.astype(float) for run in group]),
            np.concatenate([run.curve(SEEN).value for run in group]),
        )
        for max_kl, group in groups.items()
    }
    return Measured(relative[SEEN], relative[UNSEEN], curves)


def judge(measured: Measured) -> Verdict:
    """Updates beyond the radius, on either kind of states."""
    seen, unseen = np.concatenate(measured.seen), np.concatenate(measured.unseen)
    beyond = int((seen > ROUNDING).sum())
    share = estimate([100 * float((run > 1).mean()) for run in measured.unseen if len(run)])
    upper = 100 * (1 - 0.05 ** (1 / max(len(seen), 1)))
    sentence = (
        f"Of {len(seen):,} accepted updates {beyond or 'none'} had a KL above max_kl on its own batch"
        + ("" if beyond else f" (95 % bound: at most {upper:.2g} %)")
        + f"; on fresh states of the same policy {with_interval(share, '.0f', ' %')} were above"
        + (f", the farthest at {unseen.max():.1f} times max_kl." if len(unseen) else ".")
    )
    if beyond:
        return Verdict("does not hold", sentence)
    if len(seen) >= ENOUGH and share.high <= TOLERATED:
        return Verdict("holds", sentence)
    return Verdict("holds in part" if len(seen) >= ENOUGH and share.low > TOLERATED else "undecided", sentence)


def draw(measured: Measured, figure: Figure) -> None:
    """KL along training for each radius; how it is distributed on the batch and on fresh states."""
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    colours = colours_for([f"max_kl {max_kl:g}" for max_kl in measured.curves])
    for colour, (max_kl, (env_steps, kl)) in zip(colours.values(), measured.curves.items(), strict=True):
        left.plot(env_steps, np.maximum(kl, LEAST_SHOWN * max_kl), ".", color=colour, markersize=2.5, alpha=0.5)
        left.axhline(max_kl, color=colour, linewidth=1.2)
    left.set_yscale("log")
    left.set_xlabel("environment steps")
    left.set_ylabel("KL(old, new), nats")
    left.xaxis.set_major_formatter(lambda value, _: steps_text(value))
    last = max(float(env_steps.max()) for env_steps, _ in measured.curves.values())
    name_lines(left, {f"max_kl {max_kl:g}": (last, max_kl) for max_kl in measured.curves}, colours)
    finish(left, "Accepted updates, and the radius as a line")
    shares = np.linspace(0, 100, 201)
    quantiles = {
        name: np.percentile(np.concatenate(values), shares)
        for name, values in {"its own batch": measured.seen, "fresh states": measured.unseen}.items()
    }
    for name, colour in colours_for(list(quantiles)).items():
        right.plot(quantiles[name], shares, color=colour)
        place, shift, side = (190, -8, "right") if name == "its own batch" else (170, 8, "left")
        note(right, name, (quantiles[name][place], shares[place]), colour, (shift, 0), side)
    right.axvline(1, color=SOFT, linestyle=(0, (1, 3)), linewidth=1.2)
    right.set_xlim(0, max(2.0, 1.05 * float(quantiles["fresh states"][199])))
    right.set_xlabel("KL / max_kl")
    right.set_ylabel("% of the updates at or below")
    finish(right, "On whose states the KL is measured")


CLAIM = Claim("TRPO keeps every update inside the trust region.", measure, judge, draw)
