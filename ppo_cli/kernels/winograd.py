"""3x3 convolutions of boards, forward and backward, by Winograd's way (Lavin and Gray 2016, arXiv:1509.09308).

Each tile of 3x3 results reads 5x5 cells; at 5 points in both directions the 81 products of a tile become 25. With d the
cells read and y the results, for one dimension,

    y = A^T [(G w) * (B^T d)]    and backwards    w <- G^T [(B^T d) * (A y)],    d <- B [(G w) * (A y)].

The points are 1/2, -1/2, 3/2, -3/2 and infinity: when what is multiplied is rounded to bfloat16 they lose half of what
the usual 0, 1, -1, 2 and infinity lose. They come in pairs of opposite sign, whose polynomials share their even and odd
parts.

Channels are last, and so many that they fill vectors. Cells and results are the bits of bfloat16, as Numba does not
know them; sums are in float32. A tile stays in registers, some channels at a time. Processors multiply bfloat16 in
pairs along the axis that is summed: for the gradient of the weights a pair is the same tile of two boards that follow
each other, elsewhere it is two channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, inlined, vectorized
from ppo_cli.kernels.linear import NOTHING, Floats, Pairs, product
from ppo_cli.kernels.tiles import (
    TILE,
    cell_pairs_tile,
    cells_tile,
    kernels_tile,
    results_tile,
    to_cells_tile,
    to_results_tile,
)
from ppo_cli.kernels.vectors import LANES

Bits = NDArray[np.uint16]
"""bfloat16: the upper half of a float32."""

APART = 1
"""Rows between the planes of points: planes a power of two apart push each other out of the cache."""

CELLS_TOGETHER = 660
"""Of the boards that are transformed and multiplied together: with 64 channels their points stay in a core's cache."""

_INFINITY = np.uint16(0x7F80)
_NOTHING = np.uint16(0)
_ZERO = np.float32(0)


@vectorized
def raised(bits: np.uint16) -> np.float32:
    """The number that is written in bfloat16."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@vectorized
def rounded(value: np.float32) -> np.uint16:
    """The nearest bfloat16, ties to even."""
    bits = np.float32(value).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled
def is_positive(bits: np.uint16) -> bool:
    """Whether a bfloat16 is: not zero, negative or NaN."""
    return bool(_NOTHING < bits <= _INFINITY)


@compiled
def tiles_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover a board."""
    return (height + TILE - 1) // TILE, (width + TILE - 1) // TILE


@inlined
def _pad(cells: Bits, padded: Bits) -> None:
    """One board's cells into the middle."""
    height, width, channels = cells.shape
    for i in range(height):
        source, target = cells[i].reshape(-1), padded[i + 1, 1:].reshape(-1)
        for c in range(width * channels):
            target[c] = source[c]


@inlined
def cells_to_points(cells: Bits, points: Bits) -> None:
    """B^T d B: cells [N, H, W, C] -> points [25, at least N * tiles, C], tiles row by row; zero beyond the board."""
    boards, height, width, channels = cells.shape
    rows, columns = tiles_of(height, width)
    padded = np.zeros((1, TILE * rows + 2, TILE * columns + 2, channels), np.uint16)
    for board in range(boards):
        _pad(cells[board], padded[0])
        for row in range(rows):
            for column in range(columns):
                number = (board * rows + row) * columns + column
                for channel in range(0, channels, LANES):
                    cells_tile(padded, TILE * row, TILE * column, channel, points, number)


@inlined
def cells_to_pairs(cells: Bits, pairs: Pairs) -> None:
    """The same in pairs of boards, [25, at least (N + 1) / 2 * tiles, C]; behind an odd number comes an empty board."""
    boards, height, width, channels = cells.shape
    rows, columns = tiles_of(height, width)
    padded = np.zeros((2, TILE * rows + 2, TILE * columns + 2, channels), np.uint16)
    for first in range(0, boards, 2):
        _pad(cells[first], padded[0])
        if first + 1 < boards:
            _pad(cells[first + 1], padded[1])
        else:
            padded[1] = _NOTHING
        for row in range(rows):
            for column in range(columns):
                number = (first // 2 * rows + row) * columns + column
                for channel in range(0, channels, LANES):
                    cell_pairs_tile(padded, TILE * row, TILE * column, channel, pairs, number)


@inlined
def results_to_points(results: Bits, active: Bits, pairs: Pairs, points: Bits, total: Floats) -> None:
    """A y A^T: results [N, H, W, C] -> pairs as of cells, and points [25, 2 * pairs, C], one of a pair after the other.

    Adds the sum over all cells to ``total`` [C]. Results count as zero where ``active`` [N, H, W, C] is not positive.
    """
    boards, height, width, channels = results.shape
    rows, columns = tiles_of(height, width)
    padded = np.zeros((2, TILE * rows, TILE * columns, channels), np.uint16)
    for first in range(0, boards, 2):
        for b in range(2):
            if first + b >= boards:
                padded[b] = _NOTHING
                break
            for i in range(height):
                source, target = results[first + b, i].reshape(-1), padded[b, i].reshape(-1)
                rectified = active[first + b, i].reshape(-1)
                for c in range(width * channels):
                    target[c] = source[c] if is_positive(rectified[c]) else _NOTHING
        for row in range(rows):
            for column in range(columns):
                number = (first // 2 * rows + row) * columns + column
                for channel in range(0, channels, LANES):
                    results_tile(padded, TILE * row, TILE * column, channel, pairs, points, number, total)


@inlined
def points_to_cells(points: Floats, cells: Bits) -> None:
    """B v B^T: points [25, 2 * pairs, C] as of `results_to_points` -> cells [N, H, W, C]; tiles overlap."""
    boards, height, width, channels = cells.shape
    rows, columns = tiles_of(height, width)
    padded = np.empty((1, TILE * rows + 2, TILE * columns + 2, channels), np.float32)
    for board in range(boards):
        padded[:] = _ZERO
        for row in range(rows):
            for column in range(columns):
                number = 2 * ((board // 2 * rows + row) * columns + column) + board % 2
                for channel in range(0, channels, LANES):
                    to_cells_tile(points, number, channel, padded, TILE * row, TILE * column)
        for i in range(height):
            source, result = padded[0, i + 1, 1:].reshape(-1), cells[board, i].reshape(-1)
            for c in range(width * channels):
                result[c] = rounded(source[c])


@inlined
def points_to_results(points: Floats, bias: Floats, added: Bits, results: Bits) -> None:
    """A^T v A through a ReLU: points [25, at least N * tiles, C] and ``bias`` [C] -> results [N, H, W, C].

    ``added`` [N, H, W, C] is added before the ReLU, unless it is empty.
    """
    boards, height, width, channels = results.shape
    rows, columns = tiles_of(height, width)
    padded = np.empty((1, TILE * rows, TILE * columns, channels), np.float32)
    for board in range(boards):
        for row in range(rows):
            for column in range(columns):
                number = (board * rows + row) * columns + column
                for channel in range(0, channels, LANES):
                    to_results_tile(points, number, channel, padded, TILE * row, TILE * column)
        for i in range(height):
            for j in range(width):
                source, result = padded[0, i, j], results[board, i, j]
                if len(added):
                    other = added[board, i, j]
                    for c in range(channels):
                        source[c] += raised(other[c])
                for c in range(channels):
                    value = source[c] + bias[c]
                    result[c] = rounded(_ZERO if value < _ZERO else value)  # so written, NaN stays NaN


@vectorized
def kernels_to_points(kernels: Floats, pairs: Pairs) -> None:
    """G w G^T: kernels [3, 3, C, K] -> [25, C in pairs, K]."""
    _, half, columns = pairs.shape
    for number in range(half):
        for column in range(0, columns, LANES):
            kernels_tile(kernels, pairs, number, column)


@compiled
def together(cells: Bits) -> int:
    """How many boards [N, H, W, C] are transformed and multiplied together: an even number, of pairs."""
    boards, height, width, _ = cells.shape
    return int(min(boards, max(2, CELLS_TOGETHER // (height * width) // 2 * 2)))


@inlined
def convolve(cells: Bits, kernels: Pairs, bias: Floats, added: Bits, results: Bits) -> None:
    """Fill ``results`` [N, H, W, K]: cells [N, H, W, C] under kernels at all points, [25, C in pairs, K], and a ReLU.

    ``bias`` [K] and, unless it is empty, ``added`` [N, H, W, K] come before the ReLU.
    """
    boards, height, width, inputs = cells.shape
    num_points, half, outputs = kernels.shape
    rows, columns = tiles_of(height, width)
    size = together(cells)
    room = size * rows * columns + APART
    read = np.empty((num_points, room, inputs), np.uint16)
    channel_pairs = read.view(np.uint32)
    points = np.empty((num_points, room, outputs), np.float32)
    for first in range(0, boards, size):
        end = min(first + size, boards)
        tiles = (end - first) * rows * columns
        cells_to_points(cells[first:end], read)
        for point in range(num_points):
            source = channel_pairs[point].reshape(-1)
            product(points[point], (NOTHING, 0, 0), source, 0, half, 1, kernels[point], tiles, half, outputs)
        points_to_results(points, bias, added[first:end], results[first:end])


@inlined
def convolution_gradient(
    cells: Bits, results: Bits, active: Bits, turned: Pairs, cells_gradient: Bits, products: Floats, total: Floats
) -> None:  # fmt: skip
    """Fill the gradient of cells [N, H, W, C] and add those of kernels and bias, from that of the results [N, H, W, K].

    Results count as zero where ``active`` is not positive. ``turned`` are the kernels at all points,
    [25, K in pairs, C]; their gradient goes to ``products`` [25, C, K], the bias's to ``total`` [K].
    """
    boards, height, width, inputs = cells.shape
    num_points, half, _ = turned.shape
    outputs = results.shape[3]
    rows, columns = tiles_of(height, width)
    size = together(cells)
    room = (size + 1) // 2 * rows * columns
    read = np.empty((num_points, room + APART, inputs), np.uint32)
    wanted = np.empty((num_points, room + APART, outputs), np.uint32)
    points = np.empty((num_points, 2 * room + APART, outputs), np.uint16)
    channel_pairs = points.view(np.uint32)
    gradient = np.empty((num_points, 2 * room + APART, inputs), np.float32)
    for first in range(0, boards, size):
        end = min(first + size, boards)
        pairs = (end - first + 1) // 2 * rows * columns
        cells_to_pairs(cells[first:end], read)
        results_to_points(results[first:end], active[first:end], wanted, points, total)
        for point in range(num_points):
            source = read[point].reshape(-1)
            product(products[point], None, source, 0, 1, inputs, wanted[point], inputs, pairs, outputs)
            source = channel_pairs[point].reshape(-1)
            product(gradient[point], (NOTHING, 0, 0), source, 0, half, 1, turned[point], 2 * pairs, half, inputs)
        points_to_cells(gradient, cells_gradient[first:end])
