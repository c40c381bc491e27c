"""What two heads read of a board's cells: of each cell its product with a weight, and of the board the sum over cells.

Cells and their gradient are the bits of bfloat16; what is read of them is float32.
"""

from __future__ import annotations

import numpy as np

from ppo_cli.kernels.compiled import inlined
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.winograd import Bits, raised, rounded

_ZERO = np.float32(0)


@inlined
def read_cells(cells: Bits, weight: Floats, scores: Floats, sums: Floats) -> None:
    """Fill ``scores`` [N, H * W] and ``sums`` [N, C] from cells [N, H, W, C] and ``weight`` [C]."""
    boards, height, width, channels = cells.shape
    for n in range(boards):
        board, total = cells[n].reshape((height * width, channels)), sums[n]
        total[:] = _ZERO
        for p in range(height * width):
            cell, score = board[p], _ZERO
            for c in range(channels):
                value = raised(cell[c])
                score += value * weight[c]
                total[c] += value
            scores[n, p] = score


@inlined
def cells_gradient(
    cells: Bits, weight: Floats, of_scores: Floats, of_sums: Floats, gradient: Bits, of_weight: Floats
) -> None:
    """Add the gradient of ``cells`` [N, H, W, C] to ``gradient``, and that of ``weight`` to ``of_weight`` [C]."""
    boards, height, width, channels = cells.shape
    for n in range(boards):
        of_sum = of_sums[n]
        board = cells[n].reshape((height * width, channels))
        results = gradient[n].reshape((height * width, channels))
        for p in range(height * width):
            cell, result, of_score = board[p], results[p], of_scores[n, p]
            for c in range(channels):
                result[c] = rounded(raised(result[c]) + of_score * weight[c] + of_sum[c])
                of_weight[c] += of_score * raised(cell[c])
