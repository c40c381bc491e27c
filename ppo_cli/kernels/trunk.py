"""All convolutions of a board network and what its heads read, forward and backward, for boards that share a cache.

A layer finds there what the one before it left. All layers have the same number of channels, C, which fills vectors.
Features are the bits of bfloat16, ``kept`` [layers, N, H, W, C] behind each layer's ReLU.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.cells import cells_gradient, read_cells
from ppo_cli.kernels.codes import Board, codes_gradient, convolve_codes
from ppo_cli.kernels.compiled import inlined, vectorized
from ppo_cli.kernels.linear import Floats, Pairs
from ppo_cli.kernels.winograd import Bits, convolution_gradient, convolve, is_positive, raised, rounded

Flags = NDArray[np.bool_]

_ZERO = np.float32(0)


@partial(vectorized, allocates=True)
def forward(
    boards: Board, table: Floats, shares: Floats, kernels: Pairs, biases: Floats, adds: Flags, head: Floats, kept: Bits,
    scores: Floats, sums: Floats,
) -> None:  # fmt: skip
    """Fill ``kept``, ``scores`` [N, H * W] and ``sums`` [N, C] from boards [N, H, W].

    The first layer has ``table`` and ``shares`` (`ppo_cli.kernels.codes`), the others ``kernels`` at all points,
    [layers - 1, 25, C in pairs, C]; all have ``biases`` [layers, C]. Where ``adds`` [layers], what went into the layer
    before is added before the ReLU.
    """
    nothing = np.empty((0, *boards.shape[1:], len(head)), np.uint16)
    convolve_codes(boards, table, shares, biases[0], kept[0])
    for layer in range(1, len(kept)):
        added = kept[layer - 2] if adds[layer] else nothing
        convolve(kept[layer - 1], kernels[layer - 1], biases[layer], added, kept[layer])
    read_cells(kept[-1], head, scores, sums)


@partial(vectorized, allocates=True)
def backward(
    boards: Board, turned: Pairs, adds: Flags, head: Floats, kept: Bits, of_scores: Floats, of_sums: Floats,
    gradients: Bits, table: Floats, shares: Floats, products: Floats, of_biases: Floats, of_head: Floats,
) -> None:  # fmt: skip
    """Add the gradients of all weights, from those of scores, sums and features.

    ``gradients``, like ``kept``, hold those of the last features and are filled with the others'.
    ``turned`` are the kernels at all points from results to cells, ``products`` [layers - 1, 25, C, C] their gradient,
    from cells to results; ``of_biases`` [layers - 1, C] leaves out the first layer, whose table holds its bias.
    """
    cells_gradient(kept[-1], head, of_scores, of_sums, gradients[-1], of_head)
    for layer in range(len(kept) - 1, 0, -1):
        below = layer - 1
        convolution_gradient(
            kept[below], gradients[layer], kept[layer], turned[below], gradients[below], products[below],
            of_biases[below],
        )  # fmt: skip
        above = layer + 1
        if above < len(kept) and adds[above]:
            add_active(gradients[below], gradients[above], kept[above])
    codes_gradient(boards, gradients[0], kept[0], table, shares)


@inlined
def add_active(total: Bits, x: Bits, active: Bits) -> None:
    """Add x to ``total`` where ``active`` is positive."""
    totals, others, results = total.reshape(-1), x.reshape(-1), active.reshape(-1)
    for i in range(len(totals)):
        other = raised(others[i]) if is_positive(results[i]) else _ZERO
        totals[i] = rounded(raised(totals[i]) + other)
