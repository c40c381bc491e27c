"""Matrix products and activations of small layers, vectorized along the last axis.

A library call for a 64 x 64 matrix costs more than the product. Blocks of the product stay in registers while they are
summed: 100 GFLOP/s on a core that does 110.

Coefficients are read from a flat array by offset and two strides, so that a matrix and its transpose are one function.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.registers import (
    COLUMNS,
    ROWS,
    product_block,
    product_block_end,
    product_row,
    product_row_end,
    transpose_block,
)
from ppo_cli.kernels.vectors import LANES

Floats = NDArray[np.float32]

Pairs = NDArray[np.uint32]
"""Two bfloat16 each, the first in the lower half."""

TANH, RELU = 0, 1

# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 8, least maximal error by iterated reweighting: 6e-9, in float32 4e-7
_BOUND = np.float32(8.0)
_P0, _P1, _P2, _P3, _P4 = (
    np.float32(c) for c in (0.99999997, 0.1343824194, 0.003564216422, 2.17742413e-05, 1.506320867e-08)
)
_Q1, _Q2, _Q3, _Q4 = (np.float32(c) for c in (0.4677156275, 0.02613624513, 0.0003399278067, 8.454229408e-07))
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

NOTHING = np.zeros(1, np.float32)
"""What sums begin with that begin with zero: ``(NOTHING, 0, 0)``."""


@vectorized
def product(
    out: Floats,
    begin: tuple[Floats, int, int] | None,
    coefficients: Floats | Pairs,
    offset: int,
    row: int,
    column: int,
    x: Floats | Pairs,
    rows: int,
    inner: int,
    n: int,
) -> None:
    """out[i, :n] = b_i + sum_p c(i, p) x[p, :n], where c(i, p) = coefficients[offset + i * row + p * column].

    ``begin`` is array, offset and stride of the b_i; where it is None, the sum is added to ``out``. Coefficients and x
    may be `Pairs`: then c(i, p) x[p, j] is the sum of two products.
    """
    whole, blocked = n - n % COLUMNS, rows - rows % ROWS
    for j in range(0, whole, COLUMNS):
        for i in range(0, blocked, ROWS):
            product_block(out, i, j, n, begin, coefficients, offset + i * row, row, column, x, inner)
        for i in range(blocked, rows):
            product_row(out, i, j, n, begin, coefficients, offset + i * row, row, column, x, inner)
    for j in range(whole, n, LANES):
        for i in range(0, blocked, ROWS):
            product_block_end(out, i, j, n, begin, coefficients, offset + i * row, row, column, x, inner)
        for i in range(blocked, rows):
            product_row_end(out, i, j, n, begin, coefficients, offset + i * row, row, column, x, inner)


@vectorized
def transpose(x: Floats, rows: int, n: int, out: Floats) -> None:
    """out[:n, :rows] = x[:rows, :n]^T."""
    whole_rows, whole = rows - rows % LANES, n - n % LANES
    for i in range(0, whole_rows, LANES):
        for j in range(0, whole, LANES):
            transpose_block(x, i, j, out)
        for j in range(whole, n):
            for r in range(i, i + LANES):
                out[j, r] = x[r, j]
    for j in range(n):
        for r in range(whole_rows, rows):
            out[j, r] = x[r, j]


@vectorized
def add_outer(out: Floats, offset: int, y: Floats, x: Floats, rows: int, columns: int, n: int) -> None:
    """out[offset + i * columns + j] += sum_b y[i, b] x[j, b]: the gradient of a weight matrix."""
    blocked_rows, blocked_columns = rows - rows % 4, columns - columns % 4
    for i in range(0, blocked_rows, 4):
        for j in range(0, blocked_columns, 4):
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _ZERO
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = _ZERO
            for b in range(n):
                y0, y1, y2, y3 = y[i, b], y[i + 1, b], y[i + 2, b], y[i + 3, b]
                x0, x1, x2, x3 = x[j, b], x[j + 1, b], x[j + 2, b], x[j + 3, b]
                s00 += y0 * x0
                s01 += y0 * x1
                s02 += y0 * x2
                s03 += y0 * x3
                s10 += y1 * x0
                s11 += y1 * x1
                s12 += y1 * x2
                s13 += y1 * x3
                s20 += y2 * x0
                s21 += y2 * x1
                s22 += y2 * x2
                s23 += y2 * x3
                s30 += y3 * x0
                s31 += y3 * x1
                s32 += y3 * x2
                s33 += y3 * x3
            for r, sums in enumerate(
                (
                    (s00, s01, s02, s03),
                    (s10, s11, s12, s13),
                    (s20, s21, s22, s23),
                    (s30, s31, s32, s33),
                )
            ):
                k = offset + (i + r) * columns + j
                out[k] += sums[0]
                out[k + 1] += sums[1]
                out[k + 2] += sums[2]
                out[k + 3] += sums[3]
        for j in range(blocked_columns, columns):
            for r in range(4):
                out[offset + (i + r) * columns + j] += _dot(y, i + r, x, j, n)
    for i in range(blocked_rows, rows):
        for j in range(columns):
            out[offset + i * columns + j] += _dot(y, i, x, j, n)


@vectorized
def _dot(y: Floats, i: int, x: Floats, j: int, n: int) -> Any:  # noqa: ANN401 (a float32)
    total = _ZERO
    for b in range(n):
        total += y[i, b] * x[j, b]
    return total


@vectorized
def add_rows(out: Floats, offset: int, y: Floats, rows: int, n: int) -> None:
    """out[offset + i] += sum_b y[i, b]: the gradient of a bias."""
    for i in range(rows):
        total = _ZERO
        for b in range(n):
            total += y[i, b]
        out[offset + i] += total


@vectorized
def activate(x: Floats, rows: int, n: int, activation: int) -> None:
    """The activation of x[:rows, :n], in place."""
    for i in range(rows):
        if activation == RELU:
            for j in range(n):
                x[i, j] = max(x[i, j], _ZERO)
        else:
            for j in range(n):
                z = min(max(x[i, j], -_BOUND), _BOUND)
                s = z * z
                p = z * (_P0 + s * (_P1 + s * (_P2 + s * (_P3 + s * _P4))))
                q = _ONE + s * (_Q1 + s * (_Q2 + s * (_Q3 + s * _Q4)))
                x[i, j] = min(max(p / q, -_ONE), _ONE)


@vectorized
def scale_by_slope(gradient: Floats, y: Floats, rows: int, n: int, activation: int) -> None:
    """gradient[:rows, :n] times the activation's derivative where its output is ``y``, in place."""
    for i in range(rows):
        if activation == RELU:
            for j in range(n):
                gradient[i, j] = gradient[i, j] if y[i, j] > _ZERO else _ZERO
        else:
            for j in range(n):
                gradient[i, j] *= _ONE - y[i, j] * y[i, j]
