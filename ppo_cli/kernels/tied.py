"""Convolutions whose channels share weights: from what is stored to what a board's kernels read, and back.

A layer stores weights [orbits, inputs * 9]. Channel g of an orbit reads input c at place p with number
``copies[g, 9 * c + p]`` of its orbit's weights (`ppo_cli.networks.symmetric`); without symmetries an orbit is one
channel. What is spread out is [9, inputs, channels], and may have more inputs and channels than the layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, vectorized
from ppo_cli.kernels.linear import NOTHING, Floats, product
from ppo_cli.kernels.tiles import ONE_WAY

Copies = NDArray[np.int64]

PLACES = 9

BOTH_WAYS = np.kron(ONE_WAY, ONE_WAY)
"""From a kernel's places to Winograd's points, [25, 9]."""

_TO_POINTS = BOTH_WAYS.reshape(-1)


@compiled
def spread_weights(weight: Floats, copies: Copies, spread: Floats) -> None:
    """Fill ``spread`` from ``weight``."""
    orbits, (symmetries, numbers) = len(weight), copies.shape
    for row in range(numbers // PLACES):
        for place in range(PLACES):
            channels = spread[place, row]
            for g in range(symmetries):
                number = copies[g, PLACES * row + place]
                for orbit in range(orbits):
                    channels[orbit * symmetries + g] = weight[orbit, number]


@compiled
def gather_weights(spread: Floats, copies: Copies, gradient: Floats) -> None:
    """Add the gradient of what was spread out to that of the weights."""
    orbits, (symmetries, numbers) = len(gradient), copies.shape
    for row in range(numbers // PLACES):
        for place in range(PLACES):
            channels = spread[place, row]
            for g in range(symmetries):
                number = copies[g, PLACES * row + place]
                for orbit in range(orbits):
                    gradient[orbit, number] += channels[orbit * symmetries + g]


@vectorized
def from_points(products: Floats, spread: Floats) -> None:
    """G^T v G: fill the gradient of spread weights [9, n] from that at the points, [25, n]."""
    points, n = products.shape
    product(spread, (NOTHING, 0, 0), _TO_POINTS, 0, 1, PLACES, products, PLACES, points, n)
