"""What a claim is made of: its sentence, what is measured in the runs, the verdict, the figure.

A verdict is computed: each claim's module states its thresholds in the docstring, and applies them to intervals.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, get_args

import numpy as np

from ppo_cli.claims import ClaimName
from ppo_cli.report.runs import Curve, Run
from ppo_cli.report.statistics import Estimate, area_under_curve, estimate_strata, iqm_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Outcome = Literal["holds", "holds in part", "does not hold", "undecided"]
Measured = TypeVar("Measured")

NAMES: tuple[ClaimName, ...] = get_args(ClaimName)

RETURN = "charts/episodic_return"
FINAL_SHARE = 0.1
"""What of a run counts as its end."""


class Verdict(NamedTuple):
    """What the runs say about a claim."""

    outcome: Outcome
    sentence: str  # with the figures and their intervals


class MissingRunsError(LookupError):
    """The runs that a claim compares are not all there."""


@dataclass(frozen=True)
class Claim(Generic[Measured]):
    """One claim and how it is checked."""

    statement: str
    """What is claimed, one sentence."""
    measure: Callable[[Sequence[Run]], Measured]
    """What the runs show; raises `MissingRunsError` where they cannot."""
    judge: Callable[[Measured], Verdict]
    draw: Callable[[Measured, Figure], None]
    size: tuple[float, float] = (10.0, 4.2)
    """Of the figure, inches."""

    def check(self, runs: Sequence[Run]) -> tuple[Verdict, Measured | None]:
        """The verdict, and what the figure shows; nothing, where runs are missing."""
        try:
            measured = self.measure(runs)
        except MissingRunsError as error:
            return Verdict("undecided", f"{error}."), None
        return self.judge(measured), measured


def claim_named(name: str) -> tuple[Claim[Any], str]:
    """The claim of one of the `NAMES`, and how it is judged, as its module says."""
    module = importlib.import_module(f"ppo_cli.claims.{name}")
    claim: Claim[Any] = module.CLAIM
    return claim, inspect.cleandoc(module.__doc__ or "")


def by_setting(runs: Iterable[Run], *names: str, having: str = RETURN) -> dict[Any, list[Run]]:
    """Finished runs that have the figure, by the values of their settings, rising; a single name gives plain values."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        values = tuple(run.settings.get(name) for name in names)
        if run.is_finished and None not in values and len(run.curve(having).value):
            groups.setdefault(values[0] if len(names) == 1 else values, []).append(run)
    return dict(sorted(groups.items()))


def need(groups: dict[Any, Any], what: str, *values: object) -> None:
    """Make sure that there are finished runs of these; ``what`` names them, as in ``clip=``.

    Raises:
        MissingRunsError: naming those that are not there.
    """
    missing = [f"{what}{value}" for value in values if not groups.get(value)]
    if missing or not groups:
        raise MissingRunsError(f"There are no finished runs with {listed(missing) or what.rstrip('=')}")


def final(run: Run, tag: str = RETURN) -> float:
    """Mean of a figure over the last tenth of a run's steps; NaN where it never had one."""
    steps, values = run.curve(tag)
    last = values[steps > (1 - FINAL_SHARE) * run.env_steps]
    return float(last.mean()) if len(last) else float(values[-1]) if len(values) else float("nan")


def area(run: Run, tag: str = RETURN) -> float:
    """Mean height of a run's curve, over env steps."""
    return area_under_curve(*run.curve(tag))


def curves(runs: Iterable[Run], tag: str = RETURN) -> list[Curve]:
    """A figure of several runs, those that have it."""
    return [curve for run in runs if len((curve := run.curve(tag)).value)]


def samples(runs: Iterable[Run], figure: Callable[[Run], float]) -> list[float]:
    """A figure of each run, where it has one."""
    return [value for run in runs if np.isfinite(value := figure(run))]


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """How much higher the first samples are, by interquartile means."""
    return estimate_strata([np.array(first, float), np.array(second, float)], iqm_difference)


def with_interval(figure: Estimate, form: str = ".0f", unit: str = "") -> str:
    """``12 (95 % interval 8 to 15)``."""
    value = f"{figure.value:{form}}{unit}"
    if not figure.has_interval:
        return f"{value} (one run: no interval)"
    return f"{value} (95 % interval {figure.low:{form}} to {figure.high:{form}}{unit})"


def listed(words: Sequence[object], last: str = "and") -> str:
    """``a, b and c``."""
    texts = list(map(str, words))
    return f" {last} ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
