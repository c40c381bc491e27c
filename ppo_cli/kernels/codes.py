"""A 3x3 convolution of boards whose cells are codes: what reads a plane for each code is a sum of rows of a table.

The table [9, codes, K] holds what a cell of each code adds to the K results of a neighbour, in each of nine places. The
share of a board's cells that have the first code, hidden, counts as one more plane: so much of ``shares`` [9, K] for
every cell. K fills vectors. Results and their gradients are the bits of bfloat16, sums are in float32.
"""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, in_llvm, inlined
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.vectors import INDEX, LANES, Memory, Vector, cgutils
from ppo_cli.kernels.winograd import Bits

Board = NDArray[np.int8]
"""Codes from -1, hidden, upwards; what lies below reads as hidden."""

SIDE = 3

_ZERO = np.float32(0)


@compiled
def code_of(cell: np.int8) -> int:
    """Counted from 0."""
    return max(int(cell), -1) + 1


@compiled
def hidden_share(board: Board) -> Any:
    """Of the cells of one board [H, W]."""
    hidden = 0
    for cell in board.reshape(-1):
        hidden += code_of(cell) == 0
    return np.float32(hidden) / np.float32(board.size)


@compiled
def rows_around(board: Board, codes: int, y: int, x: int, numbers: NDArray[np.int64]) -> int:
    """Fill in which rows of a table [9 * codes] the cells around y, x stand for; how many of these lie on the board."""
    height, width = board.shape
    count = 0
    for i in range(SIDE):
        for j in range(SIDE):
            row, column = y + i - 1, x + j - 1
            if 0 <= row < height and 0 <= column < width:
                numbers[count] = (SIDE * i + j) * codes + code_of(board[row, column])
                count += 1
    return count


@contextmanager
def each_row(memory: Memory, kinds: Any, table: Any, numbers: Any, count: Any, channel: Any) -> Iterator[Any]:
    """While a kernel is written: the address of each of the first ``count`` rows of a table that ``numbers`` names."""
    of_table, of_numbers = kinds
    with cgutils.for_range(memory.builder, count, intp=INDEX) as loop:
        number = memory.builder.load(memory.address(of_numbers, numbers, loop.index))
        yield memory.address(of_table, table, number, channel)


@in_llvm
def _sum(
    typing_context: Any, table: Any, numbers: Any, count: Any, channel: Any, bias: Any, results: Any, place: Any
) -> Any:
    """The first ``count`` rows of the table that ``numbers`` names, and bias, through a ReLU to results[place]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *rows, bias, results, place = arguments
        memory, channel = Memory(context, builder), rows[-1]
        start = memory.load(memory.address(signature.args[4], bias, channel))
        total = cgutils.alloca_once_value(builder, start.value)
        with each_row(memory, signature.args[:2], *rows) as row:
            builder.store((Vector(builder, builder.load(total)) + memory.load(row)).value, total)
        result = Vector(builder, builder.load(total)).unless_negative()
        memory.store_bits(result, memory.address(signature.args[5], results, place, channel))
        return context.get_dummy_value()

    return types.void(table, numbers, types.int64, types.int64, bias, results, types.int64), generate


@in_llvm
def _spread(
    typing_context: Any, table: Any, numbers: Any, count: Any, channel: Any, gradient: Any, active: Any, place: Any
) -> Any:
    """Add gradient[place], where ``active`` is positive, to the first ``count`` rows that ``numbers`` names."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *rows, gradient, active, place = arguments
        memory, channel = Memory(context, builder), rows[-1]
        kinds = zip(signature.args[4:6], (gradient, active), strict=True)
        own, result = (memory.load_bits(memory.address(kind, array, place, channel)) for kind, array in kinds)
        with each_row(memory, signature.args[:2], *rows) as row:
            memory.store(memory.load(row) + own.where_positive(result), row)
        return context.get_dummy_value()

    return types.void(table, numbers, types.int64, types.int64, gradient, active, types.int64), generate


@inlined
def convolve_codes(boards: Board, table: Floats, shares: Floats, bias: Floats, out: Bits) -> None:
    """Fill ``out`` [N, H, W, C] from ``boards`` [N, H, W] and ``bias`` [C], through a ReLU."""
    num_boards, height, width = boards.shape
    channels = len(bias)
    places, codes, _ = table.shape
    rows = np.empty((places * codes, channels), np.float32)
    numbers = np.empty(SIDE * SIDE, np.int64)
    for n in range(num_boards):
        board, share = boards[n], hidden_share(boards[n])
        for place in range(places):
            for code in range(codes):
                row = rows[place * codes + code]
                for c in range(channels):
                    row[c] = table[place, code, c] + share * shares[place, c]
        results = out[n].reshape((height * width, channels))
        for y in range(height):
            for x in range(width):
                count = rows_around(board, codes, y, x, numbers)
                for c in range(0, channels, LANES):
                    _sum(rows, numbers, count, c, bias, results, y * width + x)


@inlined
def codes_gradient(boards: Board, gradient: Bits, active: Bits, table: Floats, shares: Floats) -> None:
    """Add the gradients of ``table`` and ``shares`` that follow from that of the results [N, H, W, C].

    It counts as zero where ``active`` [N, H, W, C], the results, is not positive.
    """
    num_boards, height, width = boards.shape
    channels = gradient.shape[3]
    places, codes, _ = table.shape
    rows = np.empty((places * codes, channels), np.float32)
    numbers = np.empty(SIDE * SIDE, np.int64)
    for n in range(num_boards):
        board, share = boards[n], hidden_share(boards[n])
        rows[:] = _ZERO
        given, results = gradient[n].reshape((height * width, channels)), active[n].reshape((height * width, channels))
        for y in range(height):
            for x in range(width):
                count = rows_around(board, codes, y, x, numbers)
                for c in range(0, channels, LANES):
                    _spread(rows, numbers, count, c, given, results, y * width + x)
        for place in range(places):
            for code in range(codes):
                row, total = rows[place * codes + code], table[place, code]
                for c in range(channels):
                    total[c] += row[c]
                    shares[place, c] += share * row[c]
