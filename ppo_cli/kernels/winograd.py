"""Between a board and the 25 points at which a 3x3 convolution is a product (Lavin and Gray 2016, arXiv:1509.09308).

Each tile of 3x3 results reads 5x5 cells; at the points 0, 1, -1, 2 and infinity in both directions the 81 products of
a tile become 25. With d the cells read and y the results, for one dimension,

    y = A^T [(G w) * (B^T d)]    and backwards    w <- G^T [(B^T d) * (A y)],    d <- B [(G w) * (A y)].

Here are B^T, A and B in two dimensions, channels last; G and the products are matrix products. Numbers are the bits of
bfloat16, as Numba does not know them; sums are in float32. A tile stays in registers, some channels at a time.
"""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import in_llvm, vectorized
from ppo_cli.kernels.vectors import LANES, Memory, Vector, plus

Bits = NDArray[np.uint16]
"""bfloat16: the upper half of a float32."""

Vectors = list[Vector]
Grid = list[Vectors]

TILE = 3
POINTS = 5

_INFINITY = np.uint16(0x7F80)
_NOTHING = np.uint16(0)


def _from_cells(d: Sequence[Vector]) -> Vectors:
    """B^T d."""
    far, near = d[3] - d[1], d[3] - d[2]
    return [
        2.0 * (d[0] - d[2]) + far,
        near - 2.0 * d[1],
        near + 2.0 * (d[1] - d[2]),
        far,
        (d[4] - d[2]) - 2.0 * far,
    ]


def _from_results(y: Sequence[Vector]) -> Vectors:
    """A y."""
    outer = y[0] + y[2]
    return [y[0], outer + y[1], outer - y[1], y[0] + 2.0 * y[1] + 4.0 * y[2], y[2]]


def _to_cells(v: Sequence[Vector]) -> Vectors:
    """B v."""
    even, odd = v[0] + v[3], v[1] + v[2]
    return [
        2.0 * v[0],
        2.0 * ((v[2] - v[1]) + v[4]) - even,
        -2.0 * (v[0] + v[2]) - (odd + v[4]),
        (even + odd) - 2.0 * v[4],
        v[4],
    ]


def _both_ways(transform: Callable[[Sequence[Vector]], Vectors], grid: Grid) -> Grid:
    """The transform down the columns of a grid, then along its rows."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


class _Tile:
    """A square of vectors in memory, or the same channels of all points: what the transforms read and write."""

    def __init__(self, context: Any, builder: Any, lanes: int) -> None:
        self.memory, self.builder = Memory(context, builder, lanes), builder

    def square(self, kind: Any, array: Any, size: int, top: Any, left: Any, channel: Any) -> list[list[Any]]:
        """Addresses of array [rows, columns, channels] from ``top`` and ``left`` on."""
        return [
            [
                self.memory.address(kind, array, plus(self.builder, top, i), plus(self.builder, left, j), channel)
                for j in range(size)
            ]
            for i in range(size)
        ]

    def points(self, kind: Any, array: Any, tile: Any, channel: Any) -> list[list[Any]]:
        """Addresses of array [25, tiles, channels]."""
        numbers = [[ir.Constant(tile.type, POINTS * i + j) for j in range(POINTS)] for i in range(POINTS)]
        return [[self.memory.address(kind, array, number, tile, channel) for number in row] for row in numbers]

    def read(self, addresses: list[list[Any]]) -> Grid:
        """Vectors from bits."""
        return [[self.memory.load_bits(address) for address in row] for row in addresses]

    def write(self, grid: Grid, addresses: list[list[Any]]) -> None:
        """Vectors to bits."""
        for vectors, row in zip(grid, addresses, strict=True):
            for vector, address in zip(vectors, row, strict=True):
                self.memory.store_bits(vector, address)

    def add(self, grid: Grid, addresses: list[list[Any]]) -> None:
        """Vectors to floats that are there."""
        for vectors, row in zip(grid, addresses, strict=True):
            for vector, address in zip(vectors, row, strict=True):
                self.memory.store(self.memory.load(address) + vector, address)


def _cells_tile(lanes: int) -> Any:
    def convert(typing_context: Any, cells: Any, top: Any, left: Any, channel: Any, points: Any, number: Any) -> Any:
        """B^T d B of the 5x5 cells from ``top`` and ``left`` on, to tile ``number``."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            cells, top, left, channel, points, number = arguments
            tile = _Tile(context, builder, lanes)
            grid = tile.read(tile.square(signature.args[0], cells, POINTS, top, left, channel))
            tile.write(_both_ways(_from_cells, grid), tile.points(signature.args[4], points, number, channel))
            return context.get_dummy_value()

        return types.void(cells, types.int64, types.int64, types.int64, points, types.int64), generate

    return in_llvm(convert)


def _results_tile(lanes: int) -> Any:
    def convert(
        typing_context: Any, results: Any, top: Any, left: Any, channel: Any, points: Any, number: Any, total: Any
    ) -> Any:
        """A y A^T of the 3x3 results from ``top`` and ``left`` on, to tile ``number``; their sum to ``total``."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            results, top, left, channel, points, number, total = arguments
            tile = _Tile(context, builder, lanes)
            grid = tile.read(tile.square(signature.args[0], results, TILE, top, left, channel))
            tile.write(_both_ways(_from_results, grid), tile.points(signature.args[4], points, number, channel))
            rows = [row[0] + row[1] + row[2] for row in grid]
            tile.add([[rows[0] + rows[1] + rows[2]]], [[tile.memory.address(signature.args[6], total, channel)]])
            return context.get_dummy_value()

        return types.void(results, *[types.int64] * 3, points, types.int64, total), generate

    return in_llvm(convert)


def _points_tile(lanes: int) -> Any:
    def convert(typing_context: Any, points: Any, number: Any, channel: Any, cells: Any, top: Any, left: Any) -> Any:
        """B v B^T of tile ``number``, added to the 5x5 cells, floats, from ``top`` and ``left`` on."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            points, number, channel, cells, top, left = arguments
            tile = _Tile(context, builder, lanes)
            grid = tile.read(tile.points(signature.args[0], points, number, channel))
            tile.add(_both_ways(_to_cells, grid), tile.square(signature.args[3], cells, POINTS, top, left, channel))
            return context.get_dummy_value()

        return types.void(points, types.int64, types.int64, cells, types.int64, types.int64), generate

    return in_llvm(convert)


_cells_block, _cells_one = _cells_tile(LANES), _cells_tile(1)
_results_block, _results_one = _results_tile(LANES), _results_tile(1)
_points_block, _points_one = _points_tile(LANES), _points_tile(1)


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
    rows, columns, whole = (height + 2) // TILE, (width + 2) // TILE, channels - channels % LANES
    padded = np.zeros((TILE * rows + 2, TILE * columns + 2, channels), np.uint16)
    for board in range(boards):
        for i in range(height):
            source, target = cells[board, i].reshape(width * channels), padded[i + 1, 1:].reshape(-1)
            for c in range(width * channels):
                target[c] = source[c]
        for row in range(rows):
            for column in range(columns):
                tile = (board * rows + row) * columns + column
                for channel in range(0, whole, LANES):
                    _cells_block(padded, TILE * row, TILE * column, channel, points, tile)
                for channel in range(whole, channels):
                    _cells_one(padded, TILE * row, TILE * column, channel, points, tile)


@vectorized
def results_to_points(results: Bits, active: Bits, points: Bits, total: NDArray[np.float32]) -> None:
    """A y A^T: results [N, H, W, C] -> points [25, N * tiles, C]; adds the sum over all cells to ``total`` [C].

    Results count as zero where ``active`` [N, H, W, C], unless it is empty, is not positive.
    """
    boards, height, width, channels = results.shape
    rows, columns, whole = (height + 2) // TILE, (width + 2) // TILE, channels - channels % LANES
    padded = np.zeros((TILE * rows, TILE * columns, channels), np.uint16)
    for board in range(boards):
        for i in range(height):
            source, target = results[board, i].reshape(width * channels), padded[i].reshape(-1)
            if len(active):
                rectified = active[board, i].reshape(width * channels)
                for c in range(width * channels):
                    is_positive = _NOTHING < rectified[c] <= _INFINITY
                    target[c] = source[c] if is_positive else _NOTHING
            else:
                for c in range(width * channels):
                    target[c] = source[c]
        for row in range(rows):
            for column in range(columns):
                tile = (board * rows + row) * columns + column
                for channel in range(0, whole, LANES):
                    _results_block(padded, TILE * row, TILE * column, channel, points, tile, total)
                for channel in range(whole, channels):
                    _results_one(padded, TILE * row, TILE * column, channel, points, tile, total)


@vectorized
def points_to_cells(points: Bits, cells: Bits) -> None:
    """B v B^T, added where tiles overlap: points [25, N * tiles, C] -> cells [N, H, W, C]."""
    boards, height, width, channels = cells.shape
    rows, columns, whole = (height + 2) // TILE, (width + 2) // TILE, channels - channels % LANES
    padded = np.empty((TILE * rows + 2, TILE * columns + 2, channels), np.float32)
    for board in range(boards):
        padded[:] = np.float32(0)
        for row in range(rows):
            for column in range(columns):
                tile = (board * rows + row) * columns + column
                for channel in range(0, whole, LANES):
                    _points_block(points, tile, channel, padded, TILE * row, TILE * column)
                for channel in range(whole, channels):
                    _points_one(points, tile, channel, padded, TILE * row, TILE * column)
        for i in range(height):
            source, result = padded[i + 1, 1:].reshape(-1), cells[board, i].reshape(width * channels)
            for c in range(width * channels):
                result[c] = rounded(source[c])
