"""PPO is consistently good across diverse environments with one set of settings.

One set of settings, budget included, on environments with few and many actions, dense and sparse rewards, vectors,
tiles and boards. The return at the end of training (actions as sampled; of Minesweeper the win rate) is put on a scale:
0 is no skill, random actions (in CliffWalking, where those fall all the time, standing still), 100 % the published
figure or the known optimum that stands in `YARDSTICKS` with its source.

- holds: at least 80 % in every environment, by the intervals' beginnings;
- does not hold: less than 80 % in some environment, by its interval's end;
- undecided: otherwise, and with fewer than five environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ppo_cli.claims.base import RETURN, Claim, Verdict, by_setting, final, listed, need, samples, with_interval
from ppo_cli.claims.drawing import finish
from ppo_cli.report.charts import PALETTE
from ppo_cli.report.figures import SOFT
from ppo_cli.report.numbers import estimate_text, number
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD = 80.0  # per cent
ENOUGH = 5
WIN_RATE = "minesweeper/win_rate"
CLEANRL = "CleanRL"  # https://docs.cleanrl.dev/rl-algorithms/ppo/#experiment-results
ZOO = "RL Zoo, tuned"  # https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md
OPTIMUM = "best possible"


class Yardstick(NamedTuple):
    """What a figure is compared with."""

    zero: float  # of uniform actions; where those are punished, of actions that avoid it and do no more
    reference: float
    source: str
    tag: str = RETURN


YARDSTICKS = {
    "cartpole": Yardstick(22.0, 488.75, CLEANRL),
    "acrobot": Yardstick(-500.0, -82.48, CLEANRL),
    "mountain_car": Yardstick(-200.0, -110.423, ZOO),
    "pendulum": Yardstick(-1180.0, -172.225, ZOO),
    "frozen_lake": Yardstick(0.016, 0.70, "counts as solved"),
    "cliff_walking": Yardstick(-200.0, -13.0, OPTIMUM),
    "minesweeper_3x3": Yardstick(0.16, 24 / 28, OPTIMUM, WIN_RATE),
}
"""CleanRL uses one set of settings, too; in MountainCar it stays at -200, the return of a random policy."""


@dataclass(frozen=True)
class Measured:
    """By environment, the figure at the end of each seed's run."""

    finals: dict[str, list[float]]

    def share(self, env: str) -> Estimate:
        """Per cent of the way from no skill to the reference."""
        yardstick = YARDSTICKS[env]
        scale = 100 / (yardstick.reference - yardstick.zero)
        return estimate(scale * (np.array(self.finals[env]) - yardstick.zero))


def measure(runs: Sequence[Run]) -> Measured:
    """The figures of all environments that have a yardstick."""
    groups = by_setting(runs, "env.name")
    finals = {env: samples(groups.get(env, []), partial(final, tag=YARDSTICKS[env].tag)) for env in YARDSTICKS}
    finals = {env: values for env, values in finals.items() if values}
    need(finals, "an environment that has a yardstick")
    return Measured(finals)


def judge(measured: Measured) -> Verdict:
    """Every environment against its yardstick."""
    shares = {env: measured.share(env) for env in measured.finals}
    good = [env for env, share in shares.items() if share.low >= GOOD]
    poor = {env: share for env, share in shares.items() if share.high < GOOD}
    sentence = f"With one set of settings PPO came to at least {GOOD:.0f} % of the yardstick in {len(good)} of "
    sentence += f"{len(shares)} environments"
    if poor:
        below = [f"{env} {with_interval(share, '.0f', ' %')}" for env, share in poor.items()]
        sentence += f"; it fell short in {listed(below)}"
    if open_ones := [env for env in shares if env not in good and env not in poor]:
        sentence += f"; {listed(open_ones)} cannot be told apart from {GOOD:.0f} %"
    if poor:
        return Verdict("does not hold", f"{sentence}.")
    return Verdict("holds" if len(good) == len(shares) >= ENOUGH else "undecided", f"{sentence}.")


def draw(measured: Measured, figure: Figure) -> None:
    """Shares of the way with their intervals, and the figures behind them."""
    axes = figure.subplots()
    for row, (env, values) in enumerate(measured.finals.items()):
        yardstick, share = YARDSTICKS[env], measured.share(env)
        colour = PALETTE[0] if share.low >= GOOD else PALETTE[1]
        axes.plot([share.low, share.high], [row, row], color=colour, linewidth=3, alpha=0.5)
        axes.plot(share.value, row, "o", color=colour)
        words = f"{estimate_text(estimate(values))}; {yardstick.source}: {number(yardstick.reference)}"
        axes.annotate(words, (1.02, row), xycoords=("axes fraction", "data"), va="center", color=SOFT)
    axes.axvline(100, color=SOFT, linestyle=(0, (1, 3)), linewidth=1.2)
    axes.axvline(GOOD, color=SOFT, linewidth=0.8)
    names = [
        env.replace("_", " ") + (", games won" if YARDSTICKS[env].tag == WIN_RATE else "") for env in measured.finals
    ]
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(min(-5.0, *axes.get_xlim()), max(110.0, axes.get_xlim()[1]))
    axes.invert_yaxis()
    axes.set_xlabel(f"% of the way from no skill to the yardstick (dotted); the line is at {GOOD:.0f} %")
    finish(axes, "Return at the end of training, and what it is compared with", rules="x")


CLAIM = Claim(
    "PPO is consistently good across diverse environments with one set of settings.",
    measure,
    judge,
    draw,
    size=(10.5, 3.8),
)
