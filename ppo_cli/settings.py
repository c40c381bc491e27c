"""Settings are declared once: a field, its type, its range and its meaning stand together in the class that uses them.

    @dataclass(frozen=True, kw_only=True)
    class PPO:
        clip: Annotated[float, Range(above=0)] = 0.2
        '''Half-width of the ratio's interval, 1 - clip to 1 + clip.'''

The class checks itself when it is made (`check_ranges`); the command line reads the same declaration from the source.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting may take. Infinity and NaN are outside every range."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def __contains__(self, value: float) -> bool:
        """True where ``value`` is finite and inside."""
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        """In words: ``above 0``, ``from 0 to 1``, ``above 0 and at most 1``."""
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        bounds = {"above": self.above, "at least": self.at_least, "below": self.below, "at most": self.at_most}
        return " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None) or "finite"

    @property
    def short(self) -> str:
        """In signs: ``> 0``, ``0 to 1``, ``> 0, <= 1``."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least} to {self.at_most}"
        bounds = {">": self.above, ">=": self.at_least, "<": self.below, "<=": self.at_most}
        return ", ".join(f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None)


def check_ranges(settings: object) -> None:
    """Check every field of a dataclass instance against its declaration; call it from ``__post_init__``.

    Raises:
        ValueError: naming the first field whose value is outside its range or not one of its choices.
    """
    _check(get_type_hints(type(settings), include_extras=True), vars(settings))


def check_arguments(constructor: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """The same for a class that is not a dataclass: ``check_arguments(MyEnv.__init__, locals())`` as the first line.

    Raises:
        ValueError: naming the first argument whose value is outside its range or not one of its choices.
    """
    _check(get_type_hints(constructor, include_extras=True), arguments)


def _check(declared: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    for name, annotation in declared.items():
        if name in values and (expected := _refusal(annotation, values[name])):
            raise ValueError(f"{name} must be {expected}, got {values[name]!r}")


def _refusal(annotation: Any, value: Any) -> str | None:  # noqa: ANN401 - any annotation of any setting
    """What ``value`` should have been, or None where it is fine. Types beyond numbers and choices are not judged."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        refusals = [_refusal(option, value) for option in arguments if option is not NoneType]
        return None if None in refusals else " or ".join(str(refusal) for refusal in refusals)
    if origin is Literal:
        return None if value in arguments else "one of " + ", ".join(str(choice) for choice in arguments)
    if origin is Annotated:
        ranges = [extra for extra in arguments[1:] if isinstance(extra, Range)]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if ranges and _numeric(arguments[0]) and not is_number and value is not None:
            return f"a number {ranges[0]}"
        if is_number:
            return next((str(allowed) for allowed in ranges if value not in allowed), None)
        return _refusal(arguments[0], value)
    return None


def _numeric(annotation: Any) -> bool:  # noqa: ANN401 - any annotation of any setting
    return bool({int, float} & {annotation, *get_args(annotation)})
