"""PPO's update of a board network: a few boards at a time forward, into the loss and backward, while a core's cache
holds what they left in every layer.

A minibatch is cut into slices whatever the number of threads, and their gradients are added in their order, so that the
result does not depend on the threads.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.algorithms.ppo import PPO
from ppo_cli.fused.ppo import FusedPPO
from ppo_cli.fused.weights import FlatWeights
from ppo_cli.kernels import heads as head_kernels
from ppo_cli.kernels import trunk
from ppo_cli.kernels.adam import Adam, adam_step, sum_gradients
from ppo_cli.kernels.advantages import Advantages
from ppo_cli.kernels.heads import Heads, HeadsScratch, Pooling, Readings, learn_heads
from ppo_cli.kernels.linear import Floats, Pairs
from ppo_cli.kernels.ppo import COMPLETE, NOT_FINITE, STOPPED, Minibatch, Objective, Samples, advantage_scale
from ppo_cli.kernels.report import K3, NUM_FIGURES, write_report
from ppo_cli.kernels.tied import PLACES, Copies, from_points, gather_weights, spread_weights
from ppo_cli.kernels.vectors import LANES
from ppo_cli.kernels.winograd import Bits, kernels_to_points
from ppo_cli.networks.board import Board, Convolution
from ppo_cli.networks.codes import NUM_CODES, NUM_PLANES
from ppo_cli.networks.symmetric import SymmetricConv
from ppo_cli.networks.trunk import POINTS, boards_together
from ppo_cli.parallel import Threads
from ppo_cli.types import Rollout

SLICE, MAX_SLICES = 64, 16
"""Boards of a slice, the least; and how many slices, the most."""

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

    boards: NDArray[np.int8]  # [n, H, W]
    kept: Bits  # [layers, n, H, W, C]
    of_kept: Bits
    readings: Readings
    of_readings: Readings


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

    def spread_out(self) -> Spread:
        """The weights as they stand now."""
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
        return spread

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
        spread, channels = weights.spread, weights.channels
        self.totals = Totals(
            np.empty_like(spread.table),
            np.empty_like(spread.shares),
            np.empty((len(spread.kernels), POINTS, channels, channels), np.float32),
            np.empty((len(spread.kernels), channels), np.float32),
            np.empty_like(spread.head),
        )

    @cache  # noqa: B019 (as many entries as there are sizes of groups: one or two)
    def group(self, boards: int) -> tuple[Group, HeadsScratch]:
        """Room for so many."""
        cells, channels = (boards, *self.size, self.weights.channels), self.weights.channels
        actions = math.prod(self.size)
        kept, of_kept = (np.zeros((len(self.weights.copies), *cells), np.uint16) for _ in range(2))
        readings, of_readings = (
            Readings(np.zeros((boards, actions), np.float32), np.zeros((boards, channels), np.float32), features[-1])
            for features in (kept, of_kept)
        )
        group = Group(np.zeros((boards, *self.size), np.int8), kept, of_kept, readings, of_readings)
        return group, head_kernels.new_scratch(self.weights.stored.heads, actions, boards)


class PPOOnBoards(FusedPPO):
    """Slices of every minibatch on all threads."""

    def __init__(self, ppo: PPO, weights: BoardWeights, optimizer: torch.optim.AdamW, threads: Threads) -> None:
        super().__init__(ppo, weights, optimizer)
        self.weights = weights
        self.threads = threads
        self.gradient = np.zeros((MAX_SLICES, len(weights.flat)), np.float32)
        self.gradients = [weights.parts_of(gradient) for gradient in self.gradient]
        self.figures = np.zeros((MAX_SLICES, NUM_FIGURES))
        self.boards, self.legal = np.zeros((0, 0, 0), np.int8), np.zeros((0, 0), np.bool_)
        self.rooms: list[Room] = []

    def views(self, rollout: Rollout) -> tuple[Advantages, Samples]:
        """As ``FusedPPO.views``, and the boards themselves."""
        assert isinstance(rollout.obs, dict)
        self.boards = rollout.obs["board"].flatten(0, 1).numpy()
        self.legal = rollout.obs["legal"].flatten(0, 1).numpy()
        self.rooms = [Room(self.weights, self.boards.shape[1:]) for _ in range(self.threads.count)]
        return super().views(rollout)

    def learn(
        self,
        adam: Adam,
        samples: Samples,
        objective: Objective,
        order: NDArray[np.int64],
        minibatch: int,
        report: NDArray[np.float64],
        first_row: int,
    ) -> int:
        """As ``FusedPPO.learn``."""
        starts = range(0, order.shape[1], minibatch)
        pieces = [epoch[start : start + minibatch] for epoch in order for start in starts]
        for row in range(first_row, len(pieces)):
            outcome = self.step(adam, samples, objective, pieces[row], report[row], row + 1 - first_row)
            if outcome != COMPLETE:
                return outcome
        return COMPLETE

    def step(
        self,
        adam: Adam,
        samples: Samples,
        objective: Objective,
        index: NDArray[np.int64],
        report: NDArray[np.float64],
        number: int,
    ) -> int:
        """The minibatch at ``index`` [b]: its row of the report, and Adam's step, so many after those he has taken."""
        mean, scale, count = advantage_scale(samples, index, 0, len(index))
        if not objective.standardizes:
            mean, scale = np.float32(0), np.float32(1)
        weight = np.float32(1 / max(count, 1))
        minibatch = Minibatch(samples, objective, mean, scale, weight)
        spread = self.weights.spread_out()
        slices = np.array_split(index, max(1, min(len(index) // SLICE, MAX_SLICES)))
        self.threads.run([partial(self.learn_slice, s, rows, minibatch, spread) for s, rows in enumerate(slices)])
        gradient, figures = self.gradient[: len(slices)], self.figures[: len(slices)]
        norm = math.sqrt(sum_gradients(gradient, 0, gradient.shape[1]))
        stops = float(figures[:, K3].sum()) * weight > objective.stop_at_kl
        write_report(report, figures, count, math.nan if stops else norm)
        if stops or not math.isfinite(norm):
            return STOPPED if stops else NOT_FINITE
        factor = min(1.0, adam.max_grad_norm / (norm + 1e-6))
        adam_step(adam, self.weights.flat, gradient[0], 0, gradient.shape[1], adam.steps_taken + number, factor)
        return COMPLETE

    def learn_slice(self, number: int, index: NDArray[np.int64], minibatch: Minibatch, spread: Spread) -> None:
        """The gradient and the figures of one slice, in whichever thread."""
        gradient, figures = self.gradients[number], self.figures[number]
        self.gradient[number] = figures[:] = 0
        room = self.rooms.pop()
        for total in room.totals:
            total[:] = 0
        together = boards_together(*room.size)
        for rows in np.array_split(index, -(-len(index) // together)):
            self.learn_group(room, rows, minibatch, spread, gradient, figures)
        self.weights.gather(room.totals, gradient)
        self.rooms.append(room)

    def learn_group(
        self,
        room: Room,
        index: NDArray[np.int64],
        minibatch: Minibatch,
        spread: Spread,
        gradient: Weights,
        figures: NDArray[np.float64],
    ) -> None:
        """Forward and backward."""
        weights, totals = self.weights, room.totals
        group, scratch = room.group(len(index))
        np.take(self.boards, index, axis=0, out=group.boards, mode="clip")
        table, shares, kernels, turned, biases, head = spread
        readings, of_readings = group.readings, group.of_readings
        trunk.forward(
            group.boards, table, shares, kernels, biases, weights.adds, head, group.kept, readings.scores, readings.sums
        )
        group.of_kept[:] = 0
        learn_heads(
            weights.stored.heads,
            gradient.heads,
            scratch,
            minibatch,
            self.legal,
            index,
            weights.pooling,
            readings,
            of_readings,
            figures,
        )
        trunk.backward(
            group.boards,
            turned,
            weights.adds,
            head,
            group.kept,
            of_readings.scores,
            of_readings.sums,
            group.of_kept,
            *totals,
        )
