"""A board network's weights as they are stored and as kernels read them, and the memory that its threads work in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.fused.weights import FlatWeights
from ppo_cli.kernels import trunk
from ppo_cli.kernels.heads import Heads, HeadsScratch, Pooling, Readings, new_scratch
from ppo_cli.kernels.linear import Floats, Pairs
from ppo_cli.kernels.threads import share
from ppo_cli.kernels.tied import PLACES, Copies, from_points, gather_weights, spread_weights
from ppo_cli.kernels.vectors import LANES
from ppo_cli.kernels.winograd import Bits, kernels_to_points
from ppo_cli.networks.board import Board, Convolution
from ppo_cli.networks.codes import NUM_CODES, NUM_PLANES
from ppo_cli.networks.symmetric import SymmetricConv
from ppo_cli.networks.trunk import POINTS, boards_together

Boards = NDArray[np.int8]

_CENTRE = PLACES // 2


class Weights(NamedTuple):
    """A board network's parameters, or their gradients, as they are stored."""

    layers: list[Floats]  # [orbits, inputs * 9] each
    biases: list[Floats]  # [orbits] each
    policy: Floats  # [features]
    heads: Heads


class Spread(NamedTuple):
    """The same as the trunk's kernels read them; C channels fill vectors."""

    table: Floats  # [9, codes, C]
    shares: Floats  # [9, C]
    kernels: Pairs  # [layers - 1, 25, C in pairs, C]
    turned: Pairs  # [layers - 1, 25, C in pairs, C] from results to cells
    biases: Floats  # [layers, C]
    head: Floats  # [C]


class Totals(NamedTuple):
    """The gradients of a slice as the trunk's kernels leave them."""

    table: Floats
    shares: Floats
    products: Floats  # [layers - 1, 25, C, C]
    biases: Floats  # [layers - 1, C]
    head: Floats


class Group(NamedTuple):
    """Room for n boards that go through the network together."""

    boards: Boards  # [n, H, W]
    kept: Bits  # [layers, n, H, W, C]
    of_kept: Bits
    readings: Readings
    of_readings: Readings
    scratch: HeadsScratch


class BoardWeights(FlatWeights):
    """The weights of a board network, stored and spread."""

    def __init__(self, network: Board) -> None:
        super().__init__(network.parameters())
        self.network = network
        self.layers = [layer for layer in network.convolutions if isinstance(layer, Convolution | SymmetricConv)]
        self.stored = self.parts_of(self.flat)
        self.copies = [copies_of(layer) for layer in self.layers]
        self.pooling = Pooling(
            network.channels_of_orbit,
            network.channels // network.channels_of_orbit,
            network.pooling == "mean_max",
        )
        self.adds = np.array(network.adds)
        channels, depth = -(-network.channels // LANES) * LANES, len(self.copies)
        self.channels = channels
        points = (depth - 1, POINTS, channels // 2, channels)
        self.spread = Spread(
            table=np.zeros((PLACES, NUM_CODES, channels), np.float32),
            shares=np.zeros((PLACES, channels), np.float32),
            kernels=np.zeros(points, np.uint32),
            turned=np.zeros(points, np.uint32),
            biases=np.zeros((depth, channels), np.float32),
            head=np.zeros(channels, np.float32),
        )
        self.planes = np.zeros((PLACES, NUM_PLANES, channels), np.float32)
        self.places = np.zeros((PLACES, channels, channels), np.float32)

    def parts_of(self, flat: Floats) -> Weights:
        """A vector [P] laid out like this one, by its parts: the same memory."""

        def part(parameter: Tensor | None, *shape: int) -> Floats:
            assert parameter is not None
            array: Floats = self.view(flat, parameter).numpy()
            return array.reshape(shape or -1)

        network = self.network
        hidden, value = network.critic_hidden, network.value_head
        return Weights(
            layers=[part(layer.weight, len(layer.weight), -1) for layer in self.layers],
            biases=[part(layer.bias) for layer in self.layers],
            policy=part(network.policy_head.weight),
            heads=Heads(
                part(network.policy_head.bias),
                part(hidden.weight),
                part(hidden.bias),
                part(value.weight),
                part(value.bias),
            ),
        )

    def spread_out(self) -> None:
        """Fill ``spread`` from the weights as they stand now."""
        spread, orbit, (first, *rest) = self.spread, self.pooling.orbit, self.stored.layers
        for layer, bias in enumerate(self.stored.biases):
            spread.biases[layer, : self.network.channels] = np.repeat(bias, orbit)
        spread.head[: self.network.channels] = np.repeat(self.stored.policy / np.float32(orbit), orbit)
        spread_weights(first, self.copies[0], self.planes)
        np.add(self.planes[:, :NUM_CODES], self.planes[:, NUM_CODES : NUM_CODES + 1], out=spread.table)
        spread.shares[:] = self.planes[:, NUM_CODES + 1]
        square = (3, 3, self.channels, self.channels)
        for layer, weight in enumerate(rest):
            spread_weights(weight, self.copies[layer + 1], self.places)
            kernels_to_points(self.places.reshape(square), spread.kernels[layer])
            kernels_to_points(self.places.transpose(0, 2, 1).copy().reshape(square), spread.turned[layer])

    def gather(self, totals: Totals, gradient: Weights) -> None:
        """Add what follows from ``totals`` to the gradient of what is stored."""
        orbit, channels = self.pooling.orbit, self.network.channels
        any_code = totals.table.sum(axis=1)
        planes = np.concatenate([totals.table, any_code[:, None], totals.shares[:, None]], axis=1)
        gather_weights(planes, self.copies[0], gradient.layers[0])
        biases = [any_code[_CENTRE], *totals.biases]
        for bias, total in zip(gradient.biases, biases, strict=True):
            bias += total[:channels].reshape(-1, orbit).sum(axis=1)
        gradient.policy[:] += totals.head[:channels].reshape(-1, orbit).sum(axis=1) / np.float32(orbit)
        places = np.empty_like(self.places)
        for layer, products in enumerate(totals.products):
            from_points(products.reshape(POINTS, -1), places.reshape(PLACES, -1))
            gather_weights(places, self.copies[layer + 1], gradient.layers[layer + 1])


def copies_of(layer: Convolution | SymmetricConv) -> Copies:
    """Which of its stored weights each channel of an orbit has where."""
    copies = layer.copies if isinstance(layer, SymmetricConv) else torch.arange(layer.in_channels * PLACES).unsqueeze(0)
    assert isinstance(copies, Tensor)
    numbers: Copies = copies.contiguous().numpy()
    return numbers


class Room:
    """Working memory of one thread."""

    def __init__(self, weights: BoardWeights, size: tuple[int, int]) -> None:
        self.weights = weights
        self.size = size
        self.groups: dict[int, Group] = {}
        spread, channels = weights.spread, weights.channels
        self.totals = Totals(
            table=np.empty_like(spread.table),
            shares=np.empty_like(spread.shares),
            products=np.empty((len(spread.kernels), POINTS, channels, channels), np.float32),
            biases=np.empty((len(spread.kernels), channels), np.float32),
            head=np.empty_like(spread.head),
        )

    def parts(self, total: int) -> Iterator[slice]:
        """So many boards, in groups of nearly the same size that go through the network together."""
        number = -(-total // boards_together(*self.size))
        return (slice(*share(total, part, number)) for part in range(number))

    def read(self, boards: Boards) -> Group:
        """Forward through all layers, with the weights as they were spread out last."""
        if len(boards) not in self.groups:
            self.groups[len(boards)] = self.new_group(len(boards))
        group, spread = self.groups[len(boards)], self.weights.spread
        group.boards[:] = boards
        trunk.forward(
            group.boards,
            spread.table,
            spread.shares,
            spread.kernels,
            spread.biases,
            self.weights.adds,
            spread.head,
            group.kept,
            group.readings.scores,
            group.readings.sums,
        )
        return group

    def pull_back(self, group: Group) -> None:
        """From the gradient of what was read back through all layers, added to ``totals``."""
        of_readings, spread = group.of_readings, self.weights.spread
        trunk.backward(
            group.boards,
            spread.turned,
            self.weights.adds,
            spread.head,
            group.kept,
            of_readings.scores,
            of_readings.sums,
            group.of_kept,
            *self.totals,
        )

    def new_group(self, boards: int) -> Group:
        """Room for so many."""
        cells, actions = (boards, *self.size, self.weights.channels), math.prod(self.size)
        kept, of_kept = (np.zeros((len(self.weights.layers), *cells), np.uint16) for _ in range(2))
        readings, of_readings = (
            Readings(
                np.zeros((boards, actions), np.float32),
                np.zeros((boards, self.weights.channels), np.float32),
                features[-1],
            )
            for features in (kept, of_kept)
        )
        scratch = new_scratch(self.weights.stored.heads, actions, boards)
        return Group(np.zeros((boards, *self.size), np.int8), kept, of_kept, readings, of_readings, scratch)
