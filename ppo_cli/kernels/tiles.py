"""Winograd's transforms of one tile: between 5x5 cells or 3x3 results and 25 points (`ppo_cli.kernels.winograd`).

A tile stays in registers, `LANES` channels at a time. Channels are last and contiguous; cells and results are the bits
of bfloat16, points are bits, pairs of bits or floats, by what multiplies them.
"""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from ppo_cli.kernels.compiled import in_llvm
from ppo_cli.kernels.vectors import Memory, Vector, plus

Vectors = list[Vector]
Grid = list[Vectors]
Addresses = list[list[Any]]

TILE = 3
POINTS = 5
NEAR, FAR = 1 / 2, 3 / 2
"""The points but for their signs, and infinity."""

ONE_WAY = np.array(
    [[-1 / 2, -1 / 4, -1 / 8], [1 / 2, -1 / 4, 1 / 8], [1 / 6, 1 / 4, 3 / 8], [-1 / 6, 1 / 4, -3 / 8], [0, 0, 1]],
    np.float32,
)
"""G: from a kernel's row to the points."""


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

    def square(self, kind: Any, array: Any, board: int, size: int, top: Any, left: Any, channel: Any) -> Addresses:
        """Of array [boards, rows, columns, channels] from ``top`` and ``left`` on."""
        number = ir.Constant(top.type, board)
        rows = [plus(self.builder, top, i) for i in range(size)]
        columns = [plus(self.builder, left, j) for j in range(size)]
        return [[self.memory.address(kind, array, number, i, j, channel) for j in columns] for i in rows]

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
def cells_tile(typing_context: Any, cells: Any, top: Any, left: Any, channel: Any, points: Any, number: Any) -> Any:
    """B^T d B of the 5x5 cells from ``top`` and ``left`` on, to tile ``number``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cells, top, left, channel, points, number = arguments
        tile = _Tile(context, builder)
        grid = tile.read_bits(tile.square(signature.args[0], cells, 0, POINTS, top, left, channel))
        tile.write_bits(_both_ways(_from_cells, grid), tile.points(signature.args[4], points, number, channel))
        return context.get_dummy_value()

    return types.void(cells, *[types.int64] * 3, points, types.int64), generate


@in_llvm
def cell_pairs_tile(typing_context: Any, cells: Any, top: Any, left: Any, channel: Any, pairs: Any, number: Any) -> Any:
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
def results_tile(
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
def to_cells_tile(typing_context: Any, points: Any, number: Any, channel: Any, cells: Any, top: Any, left: Any) -> Any:
    """B v B^T of tile ``number``, added to the 5x5 cells from ``top`` and ``left`` on; all floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        points, number, channel, cells, top, left = arguments
        tile = _Tile(context, builder)
        grid = tile.read(tile.points(signature.args[0], points, number, channel))
        tile.add(_both_ways(_to_cells, grid), tile.square(signature.args[3], cells, 0, POINTS, top, left, channel))
        return context.get_dummy_value()

    return types.void(points, *[types.int64] * 2, cells, *[types.int64] * 2), generate


@in_llvm
def to_results_tile(
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
def kernels_tile(typing_context: Any, kernels: Any, pairs: Any, number: Any, column: Any) -> Any:
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
