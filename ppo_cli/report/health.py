"""Health checks: what looks wrong in a run's figures, why that may be, and what to try."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ppo_cli.report.files import is_number
from ppo_cli.report.groups import Group
from ppo_cli.report.numbers import number, percent, steps_text
from ppo_cli.report.runs import RETURN, Curve, Run
from ppo_cli.report.statistics import Array

HIGH_KL = 0.05
HIGH_CLIP_FRACTION = 0.3
COLLAPSED = 0.05
"""Of the first entropy, for actions to choose from; for real-valued ones, whose entropy may fall below 0:"""
COLLAPSED_BY = 5.0
"""nats below the first one."""
BLOWN_UP = 30.0
"""Times the largest value loss of the first fifth of training."""
RARELY = 0.05
MOSTLY = 0.5
ALWAYS = 0.95
CRUSHED = 100.0
"""Times ``max_grad_norm``: what is left of such a gradient nears Adam's epsilon."""
FEWEST_UPDATES = 10
"""Of a shorter run nothing is said."""


@dataclass(frozen=True)
class Check:
    """One thing that goes wrong."""

    title: str
    cause: str
    remedy: str
    find: Callable[[Run], str | None] = field(repr=False)
    """What was seen in a run, one clause with the figure and the place; None where all is well."""


@dataclass(frozen=True)
class Finding:
    """What one check saw in the runs of a group."""

    group: Group
    check: Check
    seen: dict[Run, str]


def findings_of(groups: Sequence[Group]) -> list[Finding]:
    """Everything that was seen, in the order of the checks."""
    found = []
    for check in CHECKS:
        for group in groups:
            runs = [run for run in group.runs if len(run.records) >= FEWEST_UPDATES]
            seen = {run: text for run in runs if (text := check.find(run))}
            found += [Finding(group, check, seen)] if seen else []
    return found


def place(curve: Curve, index: int) -> str:
    """Where on the x-axis."""
    return f"at {steps_text(curve.env_steps[index])} steps"


def setting(run: Run, name: str) -> float:
    """A number of the configuration; NaN where there is none."""
    value = run.config.get(name)
    return float(value) if is_number(value) else math.nan


def share(condition: NDArray[np.bool_]) -> float:
    """How much of it is True, 0 of nothing."""
    return float(condition.mean()) if len(condition) else 0.0


def late(curve: Curve, part: float = 0.5) -> Array:
    """The values of the last ``part`` of the points."""
    return curve.value[int(len(curve.value) * (1 - part)) :]


def too_high(curve: Curve, limit: float) -> str | None:
    """How often, and how far at most, a figure was above ``limit``; None where that was once at most."""
    high = curve.value > limit
    if high.sum() < 2:
        return None
    worst = int(curve.value.argmax())
    often = f"above {number(limit)} in {percent(share(high))} of the updates"
    return f"{often}, {number(curve.value[worst])} {place(curve, worst)}"


def learns(run: Run) -> bool:
    """Whether the return is above all that it was at the beginning, and has kept most of what it gained."""
    curve = run.curve(RETURN)
    if len(curve.value) < FEWEST_UPDATES:
        return False
    first = curve.value[: len(curve.value) // 10 + 1].max()
    best = curve.value.max()
    return bool(best > first and late(curve, 0.1).mean() - first > MOSTLY * (best - first))


def kl_spikes(run: Run) -> str | None:
    """Steps of the policy far larger than those of a healthy run, 0.003 to 0.02, or than those that were asked for."""
    asked = [2 * limit for name in ("max_kl", "target_kl") if (limit := setting(run, name)) > 0]
    return too_high(run.curve("losses/kl"), max([HIGH_KL, *asked]))


def clipped_too_often(run: Run) -> str | None:
    """Too many samples outside the clip interval, averaged over an update; now and then that is nothing."""
    curve = run.curve("losses/clipfrac")
    is_rare = share(curve.value > HIGH_CLIP_FRACTION) < RARELY
    return None if is_rare else too_high(curve, HIGH_CLIP_FRACTION)


def never_clipped(run: Run) -> str | None:
    """Not one sample outside the clip interval, ever."""
    curve = run.curve("losses/clipfrac")
    return "0 in every update" if len(curve.value) >= FEWEST_UPDATES and not curve.value.any() else None


def critic_explains_nothing(run: Run) -> str | None:
    """A critic worse than a constant, where there is something left to explain; of equal returns nothing is."""
    curve, loss = run.curve("losses/explained_variance"), run.curve("losses/value_loss")
    if len(curve.value) < FEWEST_UPDATES or len(loss.value) != len(curve.value):
        return None
    matters = late(loss) > 0.01 * np.median(loss.value[: len(loss.value) // 5 + 1])
    bad = (late(curve) <= 0) & matters
    if share(bad) < (MOSTLY if learns(run) else 0.2):
        return None
    return f"at or below 0 in {percent(share(bad))} of the updates of the second half"


def entropy_collapsed(run: Run) -> str | None:
    """A policy that stops exploring in the first half of training."""
    curve = run.curve("losses/entropy")
    early = curve.value[curve.env_steps <= run.total_env_steps / 2]
    if len(early) < FEWEST_UPDATES:
        return None
    first, low = early[0], early.argmin()
    limit = COLLAPSED * first if curve.value.min() >= 0 else first - COLLAPSED_BY
    if early[low] >= limit:
        return None
    return f"from {number(first)} to {number(early[low])} nats {place(curve, int(low))}"


def value_loss_blew_up(run: Run) -> str | None:
    """A value loss far beyond that of the beginning, with a critic that no longer explains the returns."""
    loss, explained = run.curve("losses/value_loss"), run.curve("losses/explained_variance")
    first = len(loss.value) // 5
    if first < 2 or len(explained.value) != len(loss.value):
        return None
    worst = first + int(loss.value[first:].argmax())
    before = float(loss.value[:first].max())
    if loss.value[worst] <= BLOWN_UP * before or explained.value[worst] > 0.5:
        return None
    return f"{number(loss.value[worst])} {place(loss, worst)}, at most {number(before)} in the first fifth of training"


def mostly_truncated(run: Run) -> str | None:
    """Episodes that a time limit ended, at the end of training, where surviving does not pay."""
    curve = run.curve("charts/truncated_share")
    value = float(late(curve, 0.25).mean()) if len(curve.value) else 0.0
    if value <= MOSTLY or learns(run):
        return None
    return f"{percent(value)} of the last episodes, {length_text(run)}"


def length_text(run: Run) -> str:
    """How long the last episodes were."""
    length = run.curve("charts/episodic_length").value
    return f"{number(length[-1])} steps long" if len(length) else "of unknown length"


def gradient_always_clipped(run: Run) -> str | None:
    """The norm before clipping beyond ``max_grad_norm`` in practically every update; usual with Adam, and harmless.

    Unless learning does not get on, or next to nothing is left of the gradient.
    """
    curve, limit = run.curve("losses/grad_norm"), setting(run, "max_grad_norm")
    if not limit > 0 or share(curve.value > limit) < ALWAYS:
        return None
    median = np.median(curve.value)
    if learns(run) and median < CRUSHED * limit:
        return None
    return f"median norm {number(median)}, max_grad_norm {number(limit)}"


def never_improved(run: Run) -> str | None:
    """A return at the end no better than at the beginning, beyond what an episode's luck explains."""
    curve = run.curve(RETURN)
    if len(curve.value) < FEWEST_UPDATES or not run.is_finished:
        return None
    first, last = curve.value[: len(curve.value) // 10 + 1], late(curve, 0.1)
    best = curve.value.max()
    if best <= first.max():
        return f"best at the start, {number(first.max())}; {number(last.mean())} at the end"
    fallen = (best - last.mean()) / (best - first.min())
    where = place(curve, int(curve.value.argmax()))
    return f"{number(best)} {where}, {number(last.mean())} at the end" if fallen > MOSTLY else None


CHECKS = (
    Check(
        "KL spikes",
        "single updates move the policy far from the one that collected the data, so the surrogate no longer holds",
        "lower learning_rate or num_epochs, raise num_envs, or stop an update early: target_kl=0.02",
        kl_spikes,
    ),
    Check(
        "Clip fraction above 0.3",
        "much of the batch lies outside the clip interval, where it gives no gradient",
        "lower learning_rate or num_epochs; a larger clip if the KL is small all the same",
        clipped_too_often,
    ),
    Check(
        "Clip fraction always 0",
        "the updates are so small that the clip never acts; learning may be needlessly slow",
        "raise learning_rate or num_epochs; look whether the return varies between episodes at all",
        never_clipped,
    ),
    Check(
        "Explained variance at or below 0",
        "the critic predicts the returns no better than a constant, so the advantages are mostly noise",
        "normalize_reward=true, a larger value_coef or num_epochs, a smaller gamma, or a larger network",
        critic_explains_nothing,
    ),
    Check(
        "Entropy collapse",
        "the policy became almost deterministic before half of the training was over, and explores no more",
        "raise entropy_coef (0.01), lower learning_rate or clip",
        entropy_collapsed,
    ),
    Check(
        "Value loss blow-up",
        "the critic lost the returns: its targets grew, or a step threw its weights away",
        "normalize_reward=true, lower learning_rate, lower max_grad_norm, or clip_value=0.2",
        value_loss_blew_up,
    ),
    Check(
        "Return fell back",
        "what had been learnt was lost again, or nothing was learnt",
        "lower learning_rate, learning_rate_schedule=linear, target_kl=0.02; ppo-eval plays the best checkpoint",
        never_improved,
    ),
    Check(
        "Mostly truncated episodes",
        "a time limit ends the episodes while the return gets nowhere: a goal is not found, or is out of reach",
        "watch it with ppo-play; explore more (entropy_coef), allow more steps, or reward what leads there",
        mostly_truncated,
    ),
    Check(
        "Gradient always clipped",
        "nearly every gradient is cut to the same size, and learning stalls or next to nothing is left of it",
        "raise max_grad_norm, or normalize_reward=true where the value loss is what is large",
        gradient_always_clipped,
    ),
)
