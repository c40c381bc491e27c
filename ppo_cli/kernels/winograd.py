"""Between a board and the 25 points at which a 3x3 convolution is a product (Lavin and Gray 2016, arXiv:1509.09308).

Each tile of 3x3 results reads 5x5 cells; at the points 0, 1, -1, 2 and infinity in both directions the 81 products of
a tile become 25. With d the cells read and y the results, for one dimension,

    y = A^T [(G w) * (B^T d)]    and backwards    w <- G^T [(B^T d) * (A y)],    d <- B [(G w) * (A y)].

Here are B^T, A and B in two dimensions, channels last; G and the products are matrix products. Numbers are the bits of
bfloat16, as Numba does not know them; sums are in float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import vectorized

Bits = NDArray[np.uint16]
"""bfloat16: the upper half of a float32."""

TILE = 3
POINTS = 5

ZERO, TWO, THREE, FOUR = np.float32(0), np.float32(2), np.float32(3), np.float32(4)


@vectorized
def number(bits: np.uint16) -> np.float32:
    """The float32 of the same value."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@vectorized
def rounded(value: np.float32) -> np.uint16:
    """The nearest bfloat16, ties to even."""
    bits = np.float32(value).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@vectorized
def cells_to_points(cells: Bits, points: Bits) -> None:
    """B^T d B: cells [N, H, W, C] -> points [25, N * tiles, C], tiles row by row; zero beyond the board."""
    boards, height, width, channels = cells.shape
    rows, columns = (height + 2) // TILE, (width + 2) // TILE
    length = (TILE * columns + 2) * channels
    padded = np.zeros((TILE * rows + 2, length), np.float32)
    half = np.empty((POINTS, length), np.float32)
    for board in range(boards):
        for i in range(height):
            source, target = cells[board, i].reshape(width * channels), padded[i + 1, channels:]
            for c in range(width * channels):
                target[c] = number(source[c])
        for row in range(rows):
            top = TILE * row
            d0, d1, d2, d3, d4 = padded[top], padded[top + 1], padded[top + 2], padded[top + 3], padded[top + 4]
            # One target a loop, here and below: with more, the compiler cannot tell that they do not overlap.
            for c in range(length):
                half[0, c] = TWO * (d0[c] - d2[c]) - d1[c] + d3[c]
            for c in range(length):
                half[1, c] = d3[c] - d2[c] - TWO * d1[c]
            for c in range(length):
                half[2, c] = TWO * d1[c] - THREE * d2[c] + d3[c]
            for c in range(length):
                half[3, c] = d3[c] - d1[c]
            for c in range(length):
                half[4, c] = TWO * (d1[c] - d3[c]) - d2[c] + d4[c]
            for column in range(columns):
                tile = (board * rows + row) * columns + column
                left = TILE * column * channels
                for i in range(POINTS):
                    e0, e1, e2 = half[i, left:], half[i, left + channels :], half[i, left + 2 * channels :]
                    e3, e4 = half[i, left + 3 * channels :], half[i, left + 4 * channels :]
                    point = points[POINTS * i, tile]
                    for c in range(channels):
                        point[c] = rounded(TWO * (e0[c] - e2[c]) - e1[c] + e3[c])
                    point = points[POINTS * i + 1, tile]
                    for c in range(channels):
                        point[c] = rounded(e3[c] - e2[c] - TWO * e1[c])
                    point = points[POINTS * i + 2, tile]
                    for c in range(channels):
                        point[c] = rounded(TWO * e1[c] - THREE * e2[c] + e3[c])
                    point = points[POINTS * i + 3, tile]
                    for c in range(channels):
                        point[c] = rounded(e3[c] - e1[c])
                    point = points[POINTS * i + 4, tile]
                    for c in range(channels):
                        point[c] = rounded(TWO * (e1[c] - e3[c]) - e2[c] + e4[c])


@vectorized
def results_to_points(results: Bits, active: Bits, points: Bits, total: NDArray[np.float32]) -> None:
    """A y A^T: results [N, H, W, C] -> points [25, N * tiles, C]; adds the sum over all cells to ``total`` [C].

    Results count as zero where ``active`` [N, H, W, C], unless it is empty, is not positive.
    """
    boards, height, width, channels = results.shape
    rows, columns = (height + 2) // TILE, (width + 2) // TILE
    length = TILE * columns * channels
    padded = np.zeros((TILE * rows, length), np.float32)
    half = np.empty((POINTS, length), np.float32)
    column_sums = np.zeros(length, np.float32)
    for board in range(boards):
        for i in range(height):
            source, target = results[board, i].reshape(width * channels), padded[i]
            for c in range(width * channels):
                target[c] = number(source[c])
            if len(active):
                rectified = active[board, i].reshape(width * channels)
                for c in range(width * channels):
                    target[c] = target[c] if number(rectified[c]) > ZERO else ZERO
            for c in range(width * channels):
                column_sums[c] += target[c]
        for row in range(rows):
            y0, y1, y2 = padded[TILE * row], padded[TILE * row + 1], padded[TILE * row + 2]
            for c in range(length):
                half[0, c] = y0[c]
            for c in range(length):
                half[1, c] = y0[c] + y1[c] + y2[c]
            for c in range(length):
                half[2, c] = y0[c] - y1[c] + y2[c]
            for c in range(length):
                half[3, c] = y0[c] + TWO * y1[c] + FOUR * y2[c]
            for c in range(length):
                half[4, c] = y2[c]
            for column in range(columns):
                tile = (board * rows + row) * columns + column
                left = TILE * column * channels
                for i in range(POINTS):
                    e0, e1, e2 = half[i, left:], half[i, left + channels :], half[i, left + 2 * channels :]
                    point = points[POINTS * i, tile]
                    for c in range(channels):
                        point[c] = rounded(e0[c])
                    point = points[POINTS * i + 1, tile]
                    for c in range(channels):
                        point[c] = rounded(e0[c] + e1[c] + e2[c])
                    point = points[POINTS * i + 2, tile]
                    for c in range(channels):
                        point[c] = rounded(e0[c] - e1[c] + e2[c])
                    point = points[POINTS * i + 3, tile]
                    for c in range(channels):
                        point[c] = rounded(e0[c] + TWO * e1[c] + FOUR * e2[c])
                    point = points[POINTS * i + 4, tile]
                    for c in range(channels):
                        point[c] = rounded(e2[c])
    for j in range(width):
        for c in range(channels):
            total[c] += column_sums[j * channels + c]


@vectorized
def points_to_cells(points: Bits, cells: Bits) -> None:
    """B v B^T, added where tiles overlap: points [25, N * tiles, C] -> cells [N, H, W, C]."""
    boards, height, width, channels = cells.shape
    rows, columns = (height + 2) // TILE, (width + 2) // TILE
    length = (TILE * columns + 2) * channels
    padded = np.empty((TILE * rows + 2, length), np.float32)
    half = np.empty((POINTS, length), np.float32)
    for board in range(boards):
        padded[:] = np.float32(0)
        for row in range(rows):
            half[:] = np.float32(0)
            for column in range(columns):
                tile = (board * rows + row) * columns + column
                left = TILE * column * channels
                for i in range(POINTS):
                    v0, v1, v2 = points[POINTS * i, tile], points[POINTS * i + 1, tile], points[POINTS * i + 2, tile]
                    v3, v4 = points[POINTS * i + 3, tile], points[POINTS * i + 4, tile]
                    target = half[i, left:]
                    for c in range(channels):
                        target[c] += TWO * number(v0[c])
                    target = half[i, left + channels :]
                    for c in range(channels):
                        twice = TWO * (number(v2[c]) - number(v1[c]) + number(v4[c]))
                        target[c] += twice - number(v0[c]) - number(v3[c])
                    target = half[i, left + 2 * channels :]
                    for c in range(channels):
                        target[c] -= TWO * number(v0[c]) + number(v1[c]) + THREE * number(v2[c]) + number(v4[c])
                    target = half[i, left + 3 * channels :]
                    for c in range(channels):
                        plain = number(v0[c]) + number(v1[c]) + number(v2[c]) + number(v3[c])
                        target[c] += plain - TWO * number(v4[c])
                    target = half[i, left + 4 * channels :]
                    for c in range(channels):
                        target[c] += number(v4[c])
            e0, e1, e2, e3, e4 = half[0], half[1], half[2], half[3], half[4]
            target = padded[TILE * row]
            for c in range(length):
                target[c] += TWO * e0[c]
            target = padded[TILE * row + 1]
            for c in range(length):
                target[c] += TWO * (e2[c] - e1[c] + e4[c]) - e0[c] - e3[c]
            target = padded[TILE * row + 2]
            for c in range(length):
                target[c] -= TWO * e0[c] + e1[c] + THREE * e2[c] + e4[c]
            target = padded[TILE * row + 3]
            for c in range(length):
                target[c] += e0[c] + e1[c] + e2[c] + e3[c] - TWO * e4[c]
            target = padded[TILE * row + 4]
            for c in range(length):
                target[c] += e4[c]
        for i in range(height):
            source, result = padded[i + 1, channels:], cells[board, i].reshape(width * channels)
            for c in range(width * channels):
                result[c] = rounded(source[c])
