"""A 3x3 convolution of boards whose cells are codes: what reads a plane for each code is a sum of rows of a table.

The table [9, codes, K] holds what a cell of each code adds to the K results of a neighbour, in each of nine places. The
share of a board's cells that have the first code, hidden, counts as one more plane: so much of ``shares`` [9, K] for
every cell. Results and their gradients are the bits of bfloat16, sums are in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, vectorized
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.winograd import Bits, rounded

Board = NDArray[np.int8]
"""Codes from -1, hidden, upwards; what lies below reads as hidden."""

SIDE = 3

_ZERO = np.float32(0)
_INFINITY = np.uint16(0x7F80)


@compiled
def code_of(cell: np.int8) -> int:
    """Counted from 0."""
    return max(int(cell), -1) + 1


@compiled
def hidden_share(board: Board) -> Any:  # noqa: ANN401 (a float32)
    """Of the cells of one board [H, W]."""
    hidden = 0
    for cell in board.reshape(-1):
        hidden += code_of(cell) == 0
    return np.float32(hidden) / np.float32(board.size)


@compiled
def around(at: int, size: int) -> tuple[int, int]:
    """First and end of the three places before, at and after ``at`` that lie on the board."""
    return (1 if at == 0 else 0), (SIDE - 1 if at == size - 1 else SIDE)


@vectorized
def convolve_codes(boards: NDArray[np.int8], table: Floats, shares: Floats, bias: Floats, out: Bits) -> None:
    """Fill ``out`` [N, H, W, K] from ``boards`` [N, H, W] and ``bias`` [K], through a ReLU."""
    num_boards, height, width = boards.shape
    channels = len(bias)
    rows, total = np.empty_like(table), np.empty_like(bias)
    for n in range(num_boards):
        board, share = boards[n], hidden_share(boards[n])
        for place in range(len(table)):
            for code in range(table.shape[1]):
                for c in range(channels):
                    rows[place, code, c] = table[place, code, c] + share * shares[place, c]
        for y in range(height):
            first_row, end_row = around(y, height)
            for x in range(width):
                first_column, end_column = around(x, width)
                for c in range(channels):
                    total[c] = bias[c]
                for i in range(first_row, end_row):
                    for j in range(first_column, end_column):
                        row = rows[SIDE * i + j, code_of(board[y + i - 1, x + j - 1])]
                        for c in range(channels):
                            total[c] += row[c]
                result = out[n, y, x]
                for c in range(channels):
                    result[c] = rounded(max(total[c], _ZERO))


@vectorized
def codes_gradient(boards: NDArray[np.int8], gradient: Bits, active: Bits, table: Floats, shares: Floats) -> None:
    """Add the gradients of ``table`` and ``shares`` that follow from that of the results [N, H, W, K].

    It counts as zero where ``active`` [N, H, W, K], the results, is not positive.
    """
    num_boards, height, width = boards.shape
    channels = gradient.shape[3]
    rows, own = np.empty_like(table), np.empty(channels, np.float32)
    for n in range(num_boards):
        board, share = boards[n], hidden_share(boards[n])
        rows[:] = _ZERO
        for y in range(height):
            first_row, end_row = around(y, height)
            for x in range(width):
                first_column, end_column = around(x, width)
                given = gradient[n, y, x]
                for c in range(channels):
                    own[c] = np.uint32(np.uint32(given[c]) << np.uint32(16)).view(np.float32)
                result = active[n, y, x]
                for c in range(channels):
                    own[c] = own[c] if np.uint16(0) < result[c] <= _INFINITY else _ZERO
                for i in range(first_row, end_row):
                    for j in range(first_column, end_column):
                        row = rows[SIDE * i + j, code_of(board[y + i - 1, x + j - 1])]
                        for c in range(channels):
                            row[c] += own[c]
        for place in range(len(table)):
            for code in range(table.shape[1]):
                for c in range(channels):
                    table[place, code, c] += rows[place, code, c]
                for c in range(channels):
                    shares[place, c] += share * rows[place, code, c]
