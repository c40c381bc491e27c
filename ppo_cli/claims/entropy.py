"""Without the entropy bonus the policy turns deterministic too early.

PPO learns with and without the bonus and nothing else changed. Deterministic: less entropy, mean over the run; at its
end a policy that has learnt its task is deterministic for good reason. Too early: less return at the end. The bonus
compared is the one with the best return.

- holds: without the bonus entropy and return are both lower, and both intervals are below 0;
- holds in part: the entropy is lower and the return is not, or may not be: it turns deterministic, and not too early;
- does not hold: the entropy is not lower, or the return is higher without the bonus, with an interval above 0;
- undecided: otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ppo_cli.claims.base import (
    RETURN,
    Claim,
    Verdict,
    area,
    by_setting,
    curves,
    difference,
    final,
    need,
    samples,
    with_interval,
)
from ppo_cli.claims.drawing import colours_for, finish, learning_curves
from ppo_cli.report.runs import Curve, Run
from ppo_cli.report.statistics import estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENTROPY = "losses/entropy"
TAGS = (ENTROPY, RETURN)


@dataclass(frozen=True)
class Measured:
    """By weight of the bonus, and by tag of what is looked at."""

    figures: dict[float, dict[str, list[float]]]
    """The entropy as a mean over the run, the return at its end, one a seed."""
    curves: dict[float, dict[str, list[Curve]]]


def measure(runs: Sequence[Run]) -> Measured:
    """Entropy while learning, and return at the end."""
    groups = by_setting(runs, "entropy_coef")
    need(groups, "entropy_coef=", 0)
    need({weight: group for weight, group in groups.items() if weight > 0}, "a bonus")
    return Measured(
        {
            weight: {ENTROPY: samples(group, partial(area, tag=ENTROPY)), RETURN: samples(group, final)}
            for weight, group in groups.items()
        },
        {weight: {tag: curves(group, tag) for tag in TAGS} for weight, group in groups.items()},
    )


def best_weight(measured: Measured) -> float:
    """Of the bonuses the one with the best return."""
    bonuses = [weight for weight in measured.figures if weight > 0]
    return max(bonuses, key=lambda weight: estimate(measured.figures[weight][RETURN]).value)


def judge(measured: Measured) -> Verdict:
    """Without the bonus against the best one."""
    weight = best_weight(measured)
    without, bonus = measured.figures[0], measured.figures[weight]
    entropy, reward = (difference(without[tag], bonus[tag]) for tag in TAGS)
    sentence = (
        f"Without the bonus the entropy was {estimate(without[ENTROPY]).value:.2f} nats over the run, "
        f"{with_interval(entropy, '+.2f')} against that with {weight:g}, and the return at the end "
        f"{estimate(without[RETURN]).value:.1f}, {with_interval(reward, '+.1f')}."
    )
    if entropy.low > 0 or (entropy.high >= 0 and reward.low > 0):
        return Verdict("does not hold", sentence)
    if entropy.high >= 0:
        return Verdict("undecided", sentence)
    if reward.low > 0:
        return Verdict("does not hold", sentence)
    return Verdict("holds" if reward.high < 0 else "holds in part", sentence)


def draw(measured: Measured, figure: Figure) -> None:
    """Entropy and return along training."""
    panels = figure.subplots(1, 2)
    names = {weight: f"bonus {weight:g}" if weight else "no bonus" for weight in measured.curves}
    colours = colours_for(list(names.values()))
    for axes, tag in zip(panels, TAGS, strict=True):
        learning_curves(axes, {name: measured.curves[weight][tag] for weight, name in names.items()}, colours)
    panels[0].set_ylabel("nats")
    panels[1].set_ylabel("episodic return")
    finish(panels[0], "Entropy of the policy")
    finish(panels[1], "Return")


CLAIM = Claim("Without the entropy bonus the policy turns deterministic too early.", measure, judge, draw)
