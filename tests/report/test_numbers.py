from __future__ import annotations

import math

import pytest

from ppo_cli.report.numbers import estimate_text, number, percent, steps_text, time_text
from ppo_cli.report.statistics import Estimate


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (487.32, "487"), (23.44, "23.4"), (-1.5, "-1.5"), (0.01234, "0.0123"), (0, "0"),
     (3e-6, "3e-6"), (1.26e-5, "1.3e-5"), (2.5e9, "2.5e9"), (math.nan, "-"), (-math.inf, "-"), (100, "100")],
)  # fmt: skip
def test_numbers_have_the_digits_that_matter(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Estimate(487.3, 469.9, 499.2, 5), "487 (470 to 499)"),
        (Estimate(0.812, 0.79, 0.8304, 5), "0.812 (0.790 to 0.830)"),
        (Estimate(4.0, math.nan, math.nan, 1), "4.00 (n=1: no interval)"),
        (Estimate(math.nan, math.nan, math.nan, 0), "-"),
        (Estimate(0.0, 0.0, 0.0, 3), "0 (0 to 0)"),
    ],
)
def test_an_estimate_comes_with_its_interval_in_equal_decimals(found, text):
    assert estimate_text(found) == text


@pytest.mark.parametrize(
    ("steps", "text"),
    [(0, "0"), (512, "512"), (1000, "1k"), (40448, "40.4k"), (999_999, "1M"), (1.5e6, "1.5M"), (2e9, "2G")],
)
def test_steps_are_short(steps, text):
    assert steps_text(steps) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.62, "0.6 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (math.nan, "-")],
)
def test_times_are_spoken(seconds, text):
    assert time_text(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.00001, "less than 0.1 %"), (0.004, "0.4 %"), (0.42, "42 %"), (math.nan, "-")],
)
def test_shares_are_percent(share, text):
    assert percent(share) == text
