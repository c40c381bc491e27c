"""A typed value as the type that its setting declares, and back as it would be typed."""

from __future__ import annotations

import math
from typing import Any

from ppo_cli.cli.declared import Option
from ppo_cli.cli.mistakes import closest


class RefusedError(Exception):
    """A value does not fit its declaration."""


def convert(value: Any, options: tuple[Option, ...]) -> Any:  # noqa: ANN401 - any setting
    """``value`` as the first of the ``options`` that takes it.

    Raises:
        RefusedError: none does; says what was expected.
    """
    refusals: list[str] = []
    if value == "???":
        raise RefusedError(f"a value: it has no default ({' or '.join(map(str, options))})")
    for option in options:
        try:
            return convert_to(value, option)
        except RefusedError as refusal:
            refusals.append(str(refusal))
    raise RefusedError(" or ".join(dict.fromkeys(refusals)))


def convert_to(value: Any, option: Option) -> Any:  # noqa: ANN401 - any setting
    """``value`` as one type."""
    match option.base, value:
        case "any", _:
            return value
        case "none", None:
            return None
        case "bool", bool():
            return value
        case "int", int() | float() if not isinstance(value, bool) and float(value).is_integer():
            return in_range(int(value), option)
        case "float", int() | float() if not isinstance(value, bool):
            return in_range(float(value), option)
        case "str", str() | int() | float() if not isinstance(value, bool):
            return str(value)
        case "choice", _:
            for choice in option.choices:
                if type(choice) is type(value) and choice == value:
                    return choice
        case "list", list():
            return [convert(item, option.item) if option.item else item for item in value]
        case "dict", dict():
            return value
    raise RefusedError(did_you_mean(value, option))


def in_range(value: Any, option: Option) -> Any:  # noqa: ANN401 - int or float
    """``value``, if it is finite and in the option's range."""
    if not math.isfinite(value) or (option.range is not None and value not in option.range):
        raise RefusedError(str(option))
    return value


def did_you_mean(value: Any, option: Option) -> str:  # noqa: ANN401 - whatever was typed
    """What was expected, with the nearest choice."""
    guess = closest(str(value), [str(choice) for choice in option.choices])
    return f"{option}; did you mean {guess}?" if guess else str(option)


def plain(value: Any) -> str:  # noqa: ANN401 - any setting
    """A value as it would be typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(plain, value))}]"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
