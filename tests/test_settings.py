from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_cli.settings import Range, check_arguments, check_ranges


@dataclass(frozen=True, kw_only=True)
class Example:
    clip: Annotated[float, Range(above=0)] = 0.2
    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    target: Annotated[float, Range(above=0)] | None = None
    count: Annotated[int, Range(at_least=1, below=10)] = 1
    schedule: Literal["constant", "linear"] = "constant"
    name: str = "x"

    def __post_init__(self) -> None:
        check_ranges(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip": 0}, "clip must be above 0, got 0"),
        ({"clip": float("nan")}, "clip must be above 0, got nan"),
        ({"clip": float("inf")}, "clip must be above 0, got inf"),
        ({"clip": "0.2"}, "clip must be a number above 0, got '0.2'"),
        ({"clip": True}, "clip must be a number above 0, got True"),
        ({"gamma": 1.01}, "gamma must be from 0 to 1, got 1.01"),
        ({"target": -1}, "target must be above 0, got -1"),
        ({"count": 10}, "count must be at least 1 and below 10, got 10"),
        ({"schedule": "cubic"}, "schedule must be one of constant, linear, got 'cubic'"),
    ],
)
def test_a_value_outside_its_declaration_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Example(**values)
    assert str(error.value) == message


def test_values_inside_are_taken() -> None:
    assert Example(clip=1, gamma=1, target=0.5, count=9, schedule="linear").count == 9
    assert Example(gamma=0).gamma == 0


def test_a_constructor_checks_its_arguments() -> None:
    class Environment:
        def __init__(self, size: Annotated[int, Range(at_least=1)], rule: Literal["a", "b"] = "a") -> None:
            check_arguments(Environment.__init__, locals())

    Environment(1)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        Environment(0)
    with pytest.raises(ValueError, match="rule must be one of a, b, got 'c'"):
        Environment(1, "c")  # type: ignore[arg-type]


bounds = st.none() | st.integers(-5, 5)


@given(bounds, bounds, bounds, bounds, st.integers(-7, 7))
def test_membership_is_the_conjunction_of_the_bounds(
    above: int | None, at_least: int | None, below: int | None, at_most: int | None, value: int
) -> None:
    allowed = Range(above, at_least, below, at_most)
    expected = (
        (above is None or above < value)
        and (at_least is None or at_least <= value)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    assert (value in allowed) == expected
