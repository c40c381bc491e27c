"""The space of a search: settings that are not fixed, each with the values it may take, as they are typed.

``0.1,0.2`` or ``choice(0.1,0.2)``, ``range(1,10)`` (without the end, as everywhere in Hydra), ``interval(0.1,0.4)`` and
``log(1e-5,1e-2)``; two whole numbers as ends of the last two mean whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from ppo_cli.cli.arguments import UserError

if TYPE_CHECKING:
    from optuna import Trial

    from ppo_cli.cli.compose import Composer

DIGITS = 4
"""Of a number that is drawn: what is printed is what is run."""

WHOLE_ENDS = r"\(\s*[+-]?\d+\s*,\s*[+-]?\d+\s*\)"


@dataclass(frozen=True)
class Dimension:
    """One setting and what it may be: one of ``choices``, or a number from ``low`` to ``high``."""

    name: str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, trial: Trial) -> str:
        """The setting as the trial has it."""
        if self.choices:
            value: Any = trial.suggest_categorical(self.name, self.choices)
        elif self.is_whole:
            value = trial.suggest_int(self.name, int(self.low), int(self.high), log=self.is_log)
        else:
            value = trial.suggest_float(self.name, self.low, self.high, log=self.is_log)
        return self.word(value)

    def word(self, value: Any) -> str:  # noqa: ANN401 - text or a number
        """``name=value`` as it is typed."""
        return f"{self.name}={value:.{DIGITS}g}" if isinstance(value, float) else f"{self.name}={value}"

    @property
    def ends(self) -> tuple[str, str]:
        """The first and the last value, to see whether they are allowed."""
        low, high = (self.choices[0], self.choices[-1]) if self.choices else (self.low, self.high)
        return self.word(low), self.word(high)


def spelled_out(word: str) -> str:
    """``log(a,b)`` in Hydra's words, ``tag(log,interval(a,b))``."""
    name, equals, value = word.partition("=")
    logarithmic = re.fullmatch(r"\s*log\((.*)\)\s*", value)
    return f"{name}{equals}tag(log,interval({logarithmic[1]}))" if logarithmic else word


def dimension(override: Override, text: str) -> Dimension:
    """What a setting with several values may be.

    Raises:
        UserError: nothing to choose from.
    """
    name, sweep = override.key_or_group, override.value()
    if isinstance(sweep, IntervalSweep):
        low, high, is_log = sweep.start, sweep.end, "log" in sweep.tags
        if low is None or high is None or not low < high or (is_log and low <= 0):
            raise UserError(f"{name}={text}: expected two numbers, the lower first" + (", above 0" if is_log else ""))
        is_whole = re.search(WHOLE_ENDS, text) is not None  # Hydra hands on 8 as 8.0
        low, high = (int(low), int(high)) if is_whole else (low, high)
        return Dimension(name, text, low=low, high=high, is_log=is_log)
    numbers = sweep.range() if isinstance(sweep, RangeSweep) else None
    if isinstance(numbers, range) and len(numbers) > 1 and numbers.step == 1:
        return Dimension(name, text, low=numbers[0], high=numbers[-1])
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if len(choices) < 2:
        raise UserError(f"{name}={text}: expected at least two values; for one, {name}={''.join(choices)}")
    return Dimension(name, text, choices=choices)


def space_of(composer: Composer, words: list[str], preset: Mapping[str, Any]) -> tuple[list[str], list[Dimension]]:
    """The settings that all trials share, and what they differ in: the preset where ``words`` do not say otherwise.

    Raises:
        UserError: with every value that cannot be read.
    """
    fixed: list[str] = []
    texts = {name: str(text) for name, text in preset.items()}
    given: dict[str, Override] = {}
    for word, override in zip(words, composer.parse([spelled_out(word) for word in words]), strict=True):
        texts.pop(override.key_or_group, None)
        if override.is_sweep_override():
            given[override.key_or_group] = override
            texts[override.key_or_group] = word.partition("=")[2]
        else:
            fixed.append(word)
    problems: list[str] = []
    space: list[Dimension] = []
    for name, text in texts.items():
        try:
            (override,) = [given[name]] if name in given else composer.parse([spelled_out(f"{name}={text}")])
            if override.is_sweep_override():
                space.append(dimension(override, text))
            else:
                fixed.append(f"{name}={text}")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return fixed, space
