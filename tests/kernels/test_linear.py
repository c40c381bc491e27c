from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ppo_cli.kernels.linear import (
    NOTHING,
    RELU,
    TANH,
    activate,
    add_outer,
    add_rows,
    product,
    scale_by_slope,
    transpose,
)

SIZES = (*range(1, 10), 16, 33, 64)
"""Every remainder of the blocks of four, and what one or more vector registers hold."""

PRECISION = 1e-6
"""Of a sum of 64 products in float32, relative to the sum of their magnitudes."""

Array = NDArray[np.float32]


def normal(random: np.random.Generator, *shape: int) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def assert_sum(actual: Array, before: Array, left: Array, right: Array) -> None:
    """``actual`` is before + left @ right, as far as float32 can tell."""
    exact = before.astype(np.float64) + left.astype(np.float64) @ right.astype(np.float64)
    magnitude = np.abs(before).astype(np.float64) + np.abs(left).astype(np.float64) @ np.abs(right)
    assert (np.abs(actual - exact) <= PRECISION * magnitude).all()


@pytest.mark.parametrize("rows", SIZES)
def test_a_product_is_added_within_its_rows_and_columns_for_every_remainder(rows: int) -> None:
    random = np.random.default_rng(rows)
    for inner in SIZES:
        for n in SIZES:
            matrix, x, before = (
                normal(random, rows, inner),
                normal(random, inner, n + 2),
                normal(random, rows + 1, n + 2),
            )
            coefficients = np.concatenate([normal(random, 3), matrix.ravel()])
            out = before.copy()
            product(out, None, coefficients, 3, inner, 1, x, rows, inner, n)
            assert_sum(out[:rows, :n], before[:rows, :n], matrix, x[:, :n])
            assert np.array_equal(out[rows:], before[rows:]) and np.array_equal(out[:, n:], before[:, n:])


@pytest.mark.parametrize("rows", SIZES)
def test_other_strides_read_the_same_matrix_transposed(rows: int) -> None:
    random = np.random.default_rng(rows)
    for inner in SIZES:
        transposed, x, before = normal(random, inner, rows), normal(random, inner, 5), normal(random, rows, 5)
        coefficients = np.concatenate([normal(random, 7), transposed.ravel()])
        out = before.copy()
        product(out, None, coefficients, 7, 1, rows, x, rows, inner, 5)
        assert_sum(out, before, np.ascontiguousarray(transposed.T), x)


@pytest.mark.parametrize("rows", SIZES)
def test_a_product_that_is_set_is_one_added_to_its_starts_whatever_was_there(rows: int) -> None:
    random = np.random.default_rng(rows)
    for inner in SIZES:
        for n in SIZES:
            coefficients, x, starts = (
                normal(random, rows * inner),
                normal(random, inner, n + 2),
                normal(random, 2 * rows + 3),
            )
            before = np.full((rows + 1, n + 2), np.nan, np.float32)
            for offset, step, array in ((3, 2, starts), (0, 0, NOTHING)):
                out, expected = before.copy(), before.copy()
                product(out, (array, offset, step), coefficients, 0, inner, 1, x, rows, inner, n)
                expected[:rows, :n] = [[array[offset + i * step]] * n for i in range(rows)]
                product(expected, None, coefficients, 0, inner, 1, x, rows, inner, n)
                assert np.array_equal(out, expected, equal_nan=True)


@pytest.mark.parametrize("rows", SIZES)
def test_a_matrix_is_transposed_within_its_rows_and_columns_for_every_remainder(rows: int) -> None:
    random = np.random.default_rng(rows)
    for n in SIZES:
        x, before = normal(random, rows + 1, n + 2), normal(random, n + 1, rows + 3)
        out = before.copy()
        transpose(x, rows, n, out)
        assert np.array_equal(out[:n, :rows], x[:rows, :n].T)
        assert np.array_equal(out[n:], before[n:]) and np.array_equal(out[:, rows:], before[:, rows:])


@pytest.mark.parametrize("rows", SIZES)
def test_the_gradient_of_a_weight_matrix_is_added_at_its_offset_for_every_remainder(rows: int) -> None:
    random = np.random.default_rng(rows)
    for columns in SIZES:
        for n in SIZES:
            y, x = normal(random, rows + 1, n + 2), normal(random, columns + 1, n + 2)
            before = normal(random, 3 + rows * columns + 2)
            out = before.copy()
            add_outer(out, 3, y, x, rows, columns, n)
            inside = slice(3, 3 + rows * columns)
            shape = (rows, columns)
            assert_sum(
                out[inside].reshape(shape),
                before[inside].reshape(shape),
                y[:rows, :n],
                np.ascontiguousarray(x[:columns, :n].T),
            )
            assert np.array_equal(out[:3], before[:3]) and np.array_equal(out[inside.stop :], before[inside.stop :])


@pytest.mark.parametrize("rows", SIZES)
def test_the_gradient_of_a_bias_is_added_at_its_offset(rows: int) -> None:
    random = np.random.default_rng(rows)
    for n in SIZES:
        y, before = normal(random, rows + 1, n + 2), normal(random, 2 + rows + 1)
        out = before.copy()
        add_rows(out, 2, y, rows, n)
        assert_sum(out[2 : 2 + rows, None], before[2 : 2 + rows, None], y[:rows, :n], np.ones((n, 1), np.float32))
        assert np.array_equal(out[:2], before[:2]) and out[-1] == before[-1]


def activated(x: Array, activation: int) -> Array:
    out = x.copy()[None]
    activate(out, 1, x.size, activation)
    return np.asarray(out[0])


def test_tanh_is_within_5e_7_of_the_exact_one_and_never_beyond_1() -> None:
    x = np.concatenate([np.linspace(-20, 20, 400_001), np.geomspace(1e-30, 1, 1000), [0.0, 1e30, np.inf, -np.inf]])
    x = x.astype(np.float32)
    y = activated(x, TANH)
    assert np.abs(y - np.tanh(x.astype(np.float64))).max() <= 5e-7
    assert np.abs(y).max() <= 1.0


def test_tanh_is_odd_to_the_last_bit_and_exact_in_ratio_near_zero() -> None:
    x = np.linspace(0, 20, 100_001).astype(np.float32)
    assert np.array_equal(activated(-x, TANH), -activated(x, TANH))
    small = np.geomspace(1e-20, 1e-3, 100).astype(np.float32)
    assert np.abs(activated(small, TANH) / np.tanh(small.astype(np.float64)) - 1).max() < 3e-7


def test_relu_is_exact() -> None:
    assert activated(np.array([-np.inf, -2.0, -0.0, 0.0, 3.0, np.inf], np.float32), RELU).tolist() == [
        0, 0, 0, 0, 3, np.inf,
    ]  # fmt: skip


@pytest.mark.parametrize("activation", [TANH, RELU])
def test_not_a_number_stays_not_a_number(activation: int) -> None:
    x = np.array([1.0, np.nan, -1.0, *[0.0] * 30, np.nan], np.float32)
    assert np.array_equal(np.isnan(activated(x, activation)), np.isnan(x))


@pytest.mark.parametrize("activation", [TANH, RELU])
def test_only_the_named_rows_and_columns_are_activated(activation: int) -> None:
    x = np.full((4, 21), -2.0, np.float32)
    activate(x, 3, 19, activation)
    assert (x[:3, :19] > -1.0).all() and (x[3:] == -2.0).all() and (x[:, 19:] == -2.0).all()


def test_slopes_are_the_derivatives_at_the_activations_output() -> None:
    y = np.array([[-1.0, -0.5, 0.0, 0.25, 1.0]], np.float32)
    tanh, relu = np.full_like(y, 2.0), np.full_like(y, 2.0)
    scale_by_slope(tanh, y, 1, 5, TANH)
    scale_by_slope(relu, y, 1, 4, RELU)
    assert tanh.tolist() == [[0.0, 1.5, 2.0, 1.875, 0.0]]
    assert relu.tolist() == [[0.0, 0.0, 0.0, 2.0, 2.0]]  # the last one lies beyond n


def test_pairs_of_bfloat16_are_multiplied_two_at_a_time() -> None:
    """With whole numbers every sum is exact, whatever the order of the processor's additions."""
    random = np.random.default_rng(0)
    for rows, inner, n in ((1, 1, 1), (4, 3, 16), (5, 7, 33), (9, 32, 64)):
        matrix, x = (random.integers(-9, 10, size).astype(np.float32) for size in ((rows, 2 * inner), (2 * inner, n)))
        coefficients, columns = in_pairs(matrix.T).T.ravel(), in_pairs(x)
        out = np.full((rows + 1, n), 7, np.float32)
        product(out, None, coefficients.copy(), 0, inner, 1, columns, rows, inner, n)
        assert np.array_equal(out[:rows], 7 + matrix @ x)
        assert (out[rows:] == 7).all()


def in_pairs(x: Array) -> NDArray[np.uint32]:
    """[2 * rows, n] as bfloat16, two rows in each number."""
    halves = x.view(np.uint32) >> 16
    return halves[::2] | halves[1::2] << 16
