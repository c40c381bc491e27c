"""3x3 convolutions of boards, forward and backward, by Winograd's way (Lavin and Gray 2016, arXiv:1509.09308).

Each tile of 3x3 results reads 5x5 cells; at 5 points in both directions the 81 products of a tile become 25. With d the
cells read and y the results, for one dimension,

    y = A^T [(G w) * (B^T d)]    and backwards    w <- G^T [(B^T d) * (A y)],    d <- B [(G w) * (A y)].

The points are 1/2, -1/2, 3/2, -3/2 and infinity: of those that are fractions of small numbers they lose the least when
what is multiplied is rounded to bfloat16, half of what the usual 0, 1, -1, 2 lose. They come in pairs of opposite sign,
whose polynomials share their even and odd parts.

Channels are last, and so many that they fill vectors. Cells and results are the bits of bfloat16, as Numba does not
know them; sums are in float32. A tile stays in registers, some channels at a time. Processors multiply bfloat16 in
pairs along the axis that is summed: for the gradient of the weights a pair is the same tile of two boards that follow
each other, elsewhere it is two channels.
"""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, in_llvm, vectorized
from ppo_cli.kernels.linear import Floats, Pairs, add_product
from ppo_cli.kernels.vectors import LANES, Memory, Vector, plus

Bits = NDArray[np.uint16]
"""bfloat16: the upper half of a float32."""

Vectors = list[Vector]
Grid = list[Vectors]
Addresses = list[list[Any]]

TILE = 3
POINTS = 5
NEAR, FAR = 1 / 2, 3 / 2
"""The points but for their signs, and infinity."""

APART = 1
"""Rows between the planes of points: planes a power of two apart push each other out of the cache."""

ONE_WAY = np.array(
    [[-1 / 2, -1 / 4, -1 / 8], [1 / 2, -1 / 4, 1 / 8], [1 / 6, 1 / 4, 3 / 8], [-1 / 6, 1 / 4, -3 / 8], [0, 0, 1]],
    np.float32,
)
"""G: from a kernel's row to the points."""

_INFINITY = np.uint16(0x7F80)
_NOTHING = np.uint16(0)
_ZERO = np.float32(0)


def _from_cells(d: Sequence[Vector]) -> Vectors:
    """B^T d."""
    even, odd = d[2] - NEAR**2 * d[0], d[3] - NEAR**2 * d[1]  # what vanishes at the near points
    far = [odd + FAR * even, odd - FAR * even]
    even, odd = d[2] - FAR**2 * d[0], d[3] - FAR**2 * d[1]
    near = [odd + NEAR * even, odd - NEAR * even]
    return [*near, *far, d[4] - (NEAR**2 + FAR**2) * d[2] + (NEAR * FAR) ** 2 * d[0]]


def _to_cells(v: Sequence[Vector]) -> Vectors:
    """B v."""
    near, far = v[0] + v[1], v[2] + v[3]
    near_odd, far_odd = NEAR * (v[0] - v[1]), FAR * (v[2] - v[3])
    return [
        (NEAR * FAR) ** 2 * v[4] - FAR**2 * near_odd - NEAR**2 * far_odd,
        -(FAR**2) * near - NEAR**2 * far,
        near_odd + far_odd - (NEAR**2 + FAR**2) * v[4],
        near + far,
        v[4],
    ]


def _from_results(y: Sequence[Vector]) -> Vectors:
    """A y."""
    near, far = y[0] + NEAR**2 * y[2], y[0] + FAR**2 * y[2]
    return [near + NEAR * y[1], near - NEAR * y[1], far + FAR * y[1], far - FAR * y[1], y[2]]


def _from_kernel(w: Sequence[Vector]) -> Vectors:
    """G w."""
    near, far = w[0] + NEAR**2 * w[2], w[0] + FAR**2 * w[2]
    near_odd, far_odd = NEAR * w[1], FAR * w[1]
    near_scale, far_scale = 1 / (2 * NEAR * (NEAR**2 - FAR**2)), 1 / (2 * FAR * (FAR**2 - NEAR**2))
    return [
        near_scale * (near + near_odd),
        -near_scale * (near - near_odd),
        far_scale * (far + far_odd),
        -far_scale * (far - far_odd),
        w[2],
    ]


def _to_results(v: Sequence[Vector]) -> Vectors:
    """A^T v."""
    near, far = v[0] + v[1], v[2] + v[3]
    return [near + far, NEAR * (v[0] - v[1]) + FAR * (v[2] - v[3]), NEAR**2 * near + FAR**2 * far + v[4]]


def _both_ways(transform: Callable[[Sequence[Vector]], Vectors], grid: Grid) -> Grid:
    """The transform down the columns of a grid, then along its rows."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


class _Tile:
    """A square of cells or results in memory, or the same channels at all points: what transforms read and write."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.memory, self.builder = Memory(context, builder), builder

    def square(self, kind: Any, array: Any, board: Any, size: int, top: Any, left: Any, channel: Any) -> Addresses:
        """Of array [boards, rows, columns, channels] from ``top`` and ``left`` on."""
        board = ir.Constant(top.type, board) if isinstance(board, int) else board
        rows = [plus(self.builder, top, i) for i in range(size)]
        columns = [plus(self.builder, left, j) for j in range(size)]
        return [[self.memory.address(kind, array, board, i, j, channel) for j in columns] for i in rows]

    def points(self, kind: Any, array: Any, tile: Any, channel: Any) -> Addresses:
        """Of array [25, tiles, channels]."""
        numbers = [[ir.Constant(tile.type, POINTS * i + j) for j in range(POINTS)] for i in range(POINTS)]
        return [[self.memory.address(kind, array, number, tile, channel) for number in row] for row in numbers]

    def read(self, addresses: Addresses) -> Grid:
        """Vectors from floats."""
        return [[self.memory.load(address) for address in row] for row in addresses]

    def read_bits(self, addresses: Addresses) -> Grid:
        """Vectors from bits."""
        return [[self.memory.load_bits(address) for address in row] for row in addresses]

    def write(self, grid: Grid, addresses: Addresses) -> None:
        """Vectors to floats."""
        self._each(self.memory.store, grid, addresses)

    def write_bits(self, grid: Grid, addresses: Addresses) -> None:
        """Vectors to bits."""
        self._each(self.memory.store_bits, grid, addresses)

    def write_pairs(self, grids: Sequence[Grid], addresses: Addresses) -> None:
        """Two grids to pairs of bits."""
        self._each(self.memory.store_pairs, *grids, addresses)

    def add(self, grid: Grid, addresses: Addresses) -> None:
        """Vectors to floats that are there."""
        self._each(
            lambda vector, address: self.memory.store(self.memory.load(address) + vector, address), grid, addresses
        )

    @staticmethod
    def _each(do: Callable[..., None], *grids: Sequence[Sequence[Any]]) -> None:
        for rows in zip(*grids, strict=True):
            for items in zip(*rows, strict=True):
                do(*items)


@in_llvm
def _cells_tile(
    typing_context: Any, cells: Any, board: Any, top: Any, left: Any, channel: Any, points: Any, number: Any
) -> Any:
    """B^T d B of the 5x5 cells from ``top`` and ``left`` on, to tile ``number``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cells, board, top, left, channel, points, number = arguments
        tile = _Tile(context, builder)
        grid = tile.read_bits(tile.square(signature.args[0], cells, board, POINTS, top, left, channel))
        tile.write_bits(_both_ways(_from_cells, grid), tile.points(signature.args[5], points, number, channel))
        return context.get_dummy_value()

    return types.void(cells, *[types.int64] * 4, points, types.int64), generate


@in_llvm
def _cell_pairs_tile(
    typing_context: Any, cells: Any, top: Any, left: Any, channel: Any, pairs: Any, number: Any
) -> Any:
    """B^T d B of the 5x5 cells of two boards from ``top`` and ``left`` on, to pair ``number``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cells, top, left, channel, pairs, number = arguments
        tile = _Tile(context, builder)
        squares = [tile.square(signature.args[0], cells, b, POINTS, top, left, channel) for b in range(2)]
        grids = [_both_ways(_from_cells, tile.read_bits(square)) for square in squares]
        tile.write_pairs(grids, tile.points(signature.args[4], pairs, number, channel))
        return context.get_dummy_value()

    return types.void(cells, *[types.int64] * 3, pairs, types.int64), generate


@in_llvm
def _results_tile(
    typing_context: Any, results: Any, top: Any, left: Any, channel: Any, pairs: Any, points: Any, number: Any,
    total: Any,
) -> Any:  # fmt: skip
    """A y A^T of the 3x3 results of two boards from ``top`` and ``left`` on; their sum to ``total``.

    To pair ``number``, and one after the other to ``points``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        results, top, left, channel, pairs, points, number, total = arguments
        tile = _Tile(context, builder)
        grids = []
        for board in range(2):
            grid = tile.read_bits(tile.square(signature.args[0], results, board, TILE, top, left, channel))
            grids.append(_both_ways(_from_results, grid))
            row = plus(builder, builder.add(number, number), board)
            tile.write_bits(grids[-1], tile.points(signature.args[5], points, row, channel))
            rows = [row[0] + row[1] + row[2] for row in grid]
            tile.add([[rows[0] + rows[1] + rows[2]]], [[tile.memory.address(signature.args[7], total, channel)]])
        tile.write_pairs(grids, tile.points(signature.args[4], pairs, number, channel))
        return context.get_dummy_value()

    return types.void(results, *[types.int64] * 3, pairs, points, types.int64, total), generate


@in_llvm
def _to_cells_tile(typing_context: Any, points: Any, number: Any, channel: Any, cells: Any, top: Any, left: Any) -> Any:
    """B v B^T of tile ``number``, added to the 5x5 cells from ``top`` and ``left`` on; all floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        points, number, channel, cells, top, left = arguments
        tile = _Tile(context, builder)
        grid = tile.read(tile.points(signature.args[0], points, number, channel))
        tile.add(_both_ways(_to_cells, grid), tile.square(signature.args[3], cells, 0, POINTS, top, left, channel))
        return context.get_dummy_value()

    return types.void(points, *[types.int64] * 2, cells, *[types.int64] * 2), generate


@in_llvm
def _to_results_tile(
    typing_context: Any, points: Any, number: Any, channel: Any, results: Any, top: Any, left: Any
) -> Any:
    """A^T v A of tile ``number``, the 3x3 results from ``top`` and ``left`` on; all floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        points, number, channel, results, top, left = arguments
        tile = _Tile(context, builder)
        grid = tile.read(tile.points(signature.args[0], points, number, channel))
        square = tile.square(signature.args[3], results, 0, TILE, top, left, channel)
        tile.write(_both_ways(_to_results, grid), square)
        return context.get_dummy_value()

    return types.void(points, *[types.int64] * 2, results, *[types.int64] * 2), generate


@in_llvm
def _kernels_tile(typing_context: Any, kernels: Any, pairs: Any, number: Any, column: Any) -> Any:
    """G w G^T of two rows of kernels [3, 3, rows, columns], to pair ``number``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kernels, pairs, number, column = arguments
        tile, sides = _Tile(context, builder), [ir.Constant(number.type, side) for side in range(TILE)]
        grids = []
        for b in range(2):
            row = plus(builder, builder.add(number, number), b)
            address = partial(tile.memory.address, signature.args[0], kernels)
            grid = tile.read([[address(i, j, row, column) for j in sides] for i in sides])
            grids.append(_both_ways(_from_kernel, grid))
        tile.write_pairs(grids, tile.points(signature.args[1], pairs, number, column))
        return context.get_dummy_value()

    return types.void(kernels, pairs, types.int64, types.int64), generate


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
def tiles_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover a board."""
    return (height + TILE - 1) // TILE, (width + TILE - 1) // TILE


@vectorized
def _pad(cells: Bits, padded: Bits) -> None:
    """One board's cells into the middle."""
    height, width, channels = cells.shape
    for i in range(height):
        source, target = cells[i].reshape(-1), padded[i + 1, 1:].reshape(-1)
        for c in range(width * channels):
            target[c] = source[c]


@vectorized
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
                    _cells_tile(padded, 0, TILE * row, TILE * column, channel, points, number)


@vectorized
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
                    _cell_pairs_tile(padded, TILE * row, TILE * column, channel, pairs, number)


@vectorized
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
                    is_positive = _NOTHING < rectified[c] <= _INFINITY
                    target[c] = source[c] if is_positive else _NOTHING
        for row in range(rows):
            for column in range(columns):
                number = (first // 2 * rows + row) * columns + column
                for channel in range(0, channels, LANES):
                    _results_tile(padded, TILE * row, TILE * column, channel, pairs, points, number, total)


@vectorized
def points_to_cells(points: Floats, cells: Bits) -> None:
    """Add B v B^T to cells [N, H, W, C], from points [25, 2 * pairs, C] as of `results_to_points`; tiles overlap."""
    boards, height, width, channels = cells.shape
    rows, columns = tiles_of(height, width)
    padded = np.empty((1, TILE * rows + 2, TILE * columns + 2, channels), np.float32)
    for board in range(boards):
        padded[:] = _ZERO
        for row in range(rows):
            for column in range(columns):
                number = 2 * ((board // 2 * rows + row) * columns + column) + board % 2
                for channel in range(0, channels, LANES):
                    _to_cells_tile(points, number, channel, padded, TILE * row, TILE * column)
        for i in range(height):
            source, result = padded[0, i + 1, 1:].reshape(-1), cells[board, i].reshape(-1)
            for c in range(width * channels):
                result[c] = rounded(raised(result[c]) + source[c])


@vectorized
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
                    _to_results_tile(points, number, channel, padded, TILE * row, TILE * column)
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
            _kernels_tile(kernels, pairs, number, column)


@vectorized
def convolve(cells: Bits, kernels: Pairs, bias: Floats, added: Bits, results: Bits) -> None:
    """Fill ``results`` [N, H, W, K]: cells [N, H, W, C] under kernels at all points, [25, C in pairs, K], and a ReLU.

    ``bias`` [K] and, unless it is empty, ``added`` [N, H, W, K] come before the ReLU. All tiles should fit in a cache.
    """
    boards, height, width, inputs = cells.shape
    num_points, half, outputs = kernels.shape
    rows, columns = tiles_of(height, width)
    tiles = boards * rows * columns
    read = np.empty((num_points, tiles + APART, inputs), np.uint16)
    channel_pairs = read.view(np.uint32)
    points = np.empty((num_points, tiles + APART, outputs), np.float32)
    cells_to_points(cells, read)
    for point in range(num_points):
        source = channel_pairs[point].reshape(-1)
        points[point, :tiles] = _ZERO
        add_product(points[point], source, 0, half, 1, kernels[point], tiles, half, outputs)
    points_to_results(points, bias, added, results)


@vectorized
def convolution_gradient(
    cells: Bits, results: Bits, active: Bits, turned: Pairs, cells_gradient: Bits, products: Floats, total: Floats
) -> None:  # fmt: skip
    """Add the gradients of cells [N, H, W, C], kernels and bias, from that of the results [N, H, W, K].

    Results count as zero where ``active`` is not positive. ``turned`` are the kernels at all points,
    [25, K in pairs, C]; their gradient goes to ``products`` [25, C, K], the bias's to ``total`` [K].
    All tiles should fit in a cache.
    """
    boards, height, width, inputs = cells.shape
    num_points, half, _ = turned.shape
    outputs = results.shape[3]
    rows, columns = tiles_of(height, width)
    pairs = (boards + 1) // 2 * rows * columns
    read = np.empty((num_points, pairs + APART, inputs), np.uint32)
    wanted = np.empty((num_points, pairs + APART, outputs), np.uint32)
    points = np.empty((num_points, 2 * pairs + APART, outputs), np.uint16)
    channel_pairs = points.view(np.uint32)
    gradient = np.empty((num_points, 2 * pairs + APART, inputs), np.float32)
    cells_to_pairs(cells, read)
    results_to_points(results, active, wanted, points, total)
    for point in range(num_points):
        product, source = products[point], read[point].reshape(-1)
        add_product(product, source, 0, 1, inputs, wanted[point], inputs, pairs, outputs)
        source = channel_pairs[point].reshape(-1)
        gradient[point, : 2 * pairs] = _ZERO
        add_product(gradient[point], source, 0, half, 1, turned[point], 2 * pairs, half, inputs)
    points_to_cells(gradient, cells_gradient)
