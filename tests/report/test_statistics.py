from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from ppo_cli.report.statistics import (
    area_under_curve,
    band,
    bootstrap,
    common_grid,
    estimate,
    estimate_strata,
    interquartile_mean,
    iqm_difference,
    on_grid,
)

FINITE = st.floats(-1e6, 1e6)


@given(arrays.arrays(np.float64, arrays.array_shapes(min_dims=1, max_dims=3, max_side=17), elements=FINITE))
def test_the_interquartile_mean_is_scipys_mean_without_a_quarter_on_either_side(samples):
    assert_allclose(interquartile_mean(samples), stats.trim_mean(samples, 0.25, axis=-1), atol=1e-6)


def test_the_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([100.0, 1, 2, 3, -100, 4, 5, 6])) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([1.0, 2, 6])) == 3


def test_one_outlier_of_five_seeds_does_not_move_it():
    assert interquartile_mean(np.array([1.0, 2, 3, 4, 5])) == interquartile_mean(np.array([1.0, 2, 3, 4, 5000]))


@pytest.mark.parametrize(("size", "least", "most"), [(3, 0.71, 0.79), (5, 0.87, 0.92), (20, 0.92, 0.96)])
def test_intervals_cover_as_often_as_the_report_says(size, least, most):
    generator = np.random.default_rng(1)
    trials = 1500
    _, low, high = bootstrap([generator.normal(size=(trials, size))], resamples=500)  # the true figure is 0
    assert least < np.mean((low <= 0) & (high >= 0)) < most


def test_an_interval_is_as_wide_as_that_of_scipys_bootstrap():
    samples = np.random.default_rng(2).gamma(2.0, size=30)
    theirs = stats.bootstrap(
        (samples,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", rng=0
    ).confidence_interval
    ours = estimate(samples)
    assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], rtol=0.03)


def test_each_stratum_is_drawn_from_apart():
    """Samples equal within their stratum leave nothing to chance, however far apart the strata lie."""
    value, low, high = bootstrap([np.full(4, 1.0), np.full(4, 9.0)])
    assert value == low == high == 5


def test_the_difference_of_two_samples_and_its_interval_contain_the_truth():
    generator = np.random.default_rng(3)
    found = estimate_strata([generator.normal(10, 1, 20), generator.normal(7, 1, 20)], iqm_difference)
    assert found.low < 3 < found.high
    assert found.low > 2
    assert found.n == 40


def test_one_sample_has_no_interval_and_no_sample_has_no_value():
    assert not estimate([4.0]).has_interval
    assert estimate([4.0]).value == 4
    assert math.isnan(estimate([]).value)
    with pytest.raises(ValueError, match="at least one sample"):
        bootstrap([np.array([])])


def test_the_same_samples_always_give_the_same_interval_and_more_resamples_no_other_meaning():
    samples = np.random.default_rng(4).normal(size=12)
    assert bootstrap([samples]) == bootstrap([samples])
    assert_allclose(bootstrap([samples])[1:], bootstrap([samples], resamples=20_000, seed=9)[1:], atol=0.08)


def test_samples_drawn_in_chunks_are_the_ones_drawn_at_once(monkeypatch):
    samples = np.random.default_rng(5).normal(size=(3, 6))
    at_once = bootstrap([samples])
    monkeypatch.setattr("ppo_cli.report.statistics.CHUNK", 180)
    assert_array_equal(bootstrap([samples]), at_once)


def test_a_grid_is_where_the_runs_were_measured_or_evenly_spaced_where_that_is_often():
    assert_array_equal(common_grid([np.array([10, 20]), np.array([15, 20])]), [10, 15, 20])
    assert_array_equal(common_grid([np.arange(0, 1000), np.arange(500)], points=4), [0, 333, 666, 999])
    assert len(common_grid([])) == 0


def test_a_curve_is_straight_between_its_points_and_unknown_outside():
    found = on_grid(np.array([10, 20]), np.array([1.0, 3]), np.array([0, 10, 15, 20, 30]))
    assert_array_equal(found, [np.nan, 1, 2, 3, np.nan])


def test_where_a_run_ends_the_others_go_on_and_n_falls():
    steps = np.array([1, 2, 3, 4])
    long, other = np.array([1.0, 1, 1, 1]), np.array([3.0, 3, 3, 3])
    found = band([(steps, long), (steps, other), (steps[:2], np.array([5.0, 5]))])
    assert_array_equal(found.n, [3, 3, 2, 2])
    assert_array_equal(found.value, [3, 3, 2, 2])
    assert (found.low <= found.value).all()
    assert (found.high >= found.value).all()


def test_the_last_run_alone_has_a_curve_and_no_band():
    found = band([(np.array([1, 2]), np.array([1.0, 2])), (np.array([1]), np.array([1.0]))])
    assert_array_equal(found.n, [2, 1])
    assert_array_equal(np.isfinite(found.low), [True, False])
    assert found.value[1] == 2


def test_at_each_step_the_band_is_the_interval_of_the_values_there():
    values = np.random.default_rng(6).normal(size=(7, 3))
    found = band([(np.array([5, 6, 7]), row) for row in values])
    for step in range(3):
        alone = estimate(values[:, step])
        assert_allclose([found.value[step], found.low[step], found.high[step]], alone[:3])


def test_no_runs_and_runs_without_points_make_an_empty_band():
    empty = (np.array([], np.int64), np.array([]))
    assert len(band([]).value) == len(band([empty, empty]).value) == 0


def test_the_area_under_a_curve_by_hand():
    assert area_under_curve(np.array([0, 10, 40]), np.array([0.0, 2, 4])) == (10 * 1 + 30 * 3) / 40
    assert area_under_curve(np.array([7]), np.array([3.0])) == 3
    assert math.isnan(area_under_curve(np.array([]), np.array([])))


@given(st.lists(FINITE, min_size=2, max_size=20))
def test_the_area_is_scipys_integral_over_the_span(values):
    steps = np.cumsum(np.arange(1, len(values) + 1))
    expected = np.trapezoid(values, steps) / (steps[-1] - steps[0])
    assert area_under_curve(steps, np.array(values)) == pytest.approx(expected, abs=1e-5)
