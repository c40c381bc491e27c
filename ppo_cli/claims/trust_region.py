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
from ppo_cli.claims.drawing import COLOURS, GREY, name_lines, thousands
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Array, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENOUGH = 100
TOLERATED = 5.0  # per cent
ROUNDING = 1 + 1e-6
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
    groups = by_setting((run for run in runs if len(run.curve(UNSEEN).value)), "max_kl")
    need(groups)
    relative: dict[str, list[Array]] = {SEEN: [], UNSEEN: []}
    for max_kl, group in groups.items():
        for run in group:
            accepted = run.curve("trpo/accepted").value == 1
            for tag, collected in relative.items():
                collected.append(run.curve(tag).value[accepted] / max_kl)
    curves = {
        max_kl: tuple(np.concatenate([np.asarray(run.curve(SEEN)[part], float) for run in group]) for part in (0, 1))
        for max_kl, group in groups.items()
    }
    return Measured(relative[SEEN], relative[UNSEEN], curves)  # type: ignore[arg-type]


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
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    ends, colours = {}, {}
    for colour, (max_kl, (env_steps, kl)) in zip(COLOURS, measured.curves.items(), strict=False):
        left.plot(env_steps, np.maximum(kl, max_kl * 1e-3), ".", color=colour, markersize=2.5, alpha=0.6)
        left.axhline(max_kl, color=colour, linewidth=1.2)
        name = f"max_kl {max_kl:g}"
        colours[name], ends[name] = colour, (float(env_steps.max()), max_kl)
    left.set(yscale="log", xlabel="env steps", ylabel="KL of an update (nats)", title="updates, and the radius as a line")
    thousands(left)
    name_lines(left, ends, colours)
    parts = {"its own batch": (measured.seen, COLOURS[0]), "fresh states": (measured.unseen, COLOURS[1])}
    for row, (name, (values, colour)) in enumerate(parts.items()):
        ordered = np.sort(np.concatenate(values))
        share = 100 * np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
        right.plot(ordered, share, color=colour)
        place = int(len(ordered) * (0.35 + 0.3 * row))
        right.annotate(name, (ordered[place], share[place]), xytext=(-6 if row == 0 else 8, 0), textcoords="offset points", color=colour, ha="right" if row == 0 else "left", va="center")
    right.axvline(1, color=GREY, linewidth=1.2)
    right.set(xlabel="KL / max_kl", ylabel="% of the accepted updates at or below", title="on whose states it is measured")
    right.set_xlim(0, max(2.0, float(np.quantile(np.concatenate(measured.unseen), 0.995))))


CLAIM = Claim("TRPO keeps every update inside the trust region.", measure, judge, draw)
