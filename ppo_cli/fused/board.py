"""PPO's update of a board network: a few boards at a time go forward, into the loss and back, and so share a cache.

A minibatch is cut into slices whatever the number of threads, and their gradients are added in their order, so that the
result does not depend on the threads.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_cli.algorithms.ppo import PPO
from ppo_cli.fused.board_weights import BoardWeights, Room
from ppo_cli.fused.ppo import FusedPPO
from ppo_cli.kernels.adam import Adam, adam_step, sum_gradients
from ppo_cli.kernels.advantages import Advantages
from ppo_cli.kernels.heads import learn_heads
from ppo_cli.kernels.ppo import COMPLETE, NOT_FINITE, STOPPED, Minibatch, Objective, Samples, advantage_scale
from ppo_cli.kernels.report import K3, NUM_FIGURES, write_report
from ppo_cli.parallel import Threads
from ppo_cli.types import Rollout

SLICE, MAX_SLICES = 64, 16
"""Boards of a slice, the least; and how many slices, the most."""


class PPOOnBoards(FusedPPO):
    """Slices of every minibatch on all threads."""

    def __init__(
        self,
        ppo: PPO,
        weights: BoardWeights,
        optimizer: torch.optim.AdamW,
        threads: Threads,
        rooms: list[Room],
    ) -> None:
        super().__init__(ppo, weights, optimizer)
        self.weights = weights
        self.threads = threads
        self.gradient = np.zeros((MAX_SLICES, len(weights.flat)), np.float32)
        self.gradients = [weights.parts_of(gradient) for gradient in self.gradient]
        self.figures = np.zeros((MAX_SLICES, NUM_FIGURES))
        self.boards, self.legal = np.zeros((0, 0, 0), np.int8), np.zeros((0, 0), np.bool_)
        self.rooms = rooms

    def views(self, rollout: Rollout) -> tuple[Advantages, Samples]:
        """As ``FusedPPO.views``, and the boards themselves."""
        assert isinstance(rollout.obs, dict)
        self.boards = rollout.obs["board"].flatten(0, 1).numpy()
        self.legal = rollout.obs["legal"].flatten(0, 1).numpy()
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
        """The minibatch at ``index`` [b]: its row of the report, and Adam's step, so many after those already taken."""
        mean, scale, count = advantage_scale(samples, index, 0, len(index))
        if not objective.standardizes:
            mean, scale = np.float32(0), np.float32(1)
        weight = np.float32(1 / max(count, 1))
        minibatch = Minibatch(samples, objective, mean, scale, weight)
        self.weights.spread_out()
        slices = np.array_split(index, max(1, min(len(index) // SLICE, MAX_SLICES)))
        self.threads.run([partial(self.learn_slice, s, rows, minibatch) for s, rows in enumerate(slices)])
        gradient, figures = self.gradient[: len(slices)], self.figures[: len(slices)]
        norm = math.sqrt(sum_gradients(gradient, 0, gradient.shape[1]))
        stops = float(figures[:, K3].sum()) * weight > objective.stop_at_kl
        write_report(report, figures, count, math.nan if stops else norm)
        if stops or not math.isfinite(norm):
            return STOPPED if stops else NOT_FINITE
        factor = min(1.0, adam.max_grad_norm / (norm + 1e-6))
        adam_step(adam, self.weights.flat, gradient[0], 0, gradient.shape[1], adam.steps_taken + number, factor)
        return COMPLETE

    def learn_slice(self, number: int, index: NDArray[np.int64], minibatch: Minibatch) -> None:
        """The gradient and the figures of one slice, in whichever thread."""
        room, gradient, figures = self.rooms.pop(), self.gradients[number], self.figures[number]
        for total in (*room.totals, self.gradient[number], figures):
            total[...] = 0
        for part in room.parts(len(index)):
            rows = index[part]
            group = room.read(self.boards[rows])
            group.of_kept[-1] = 0
            learn_heads(
                self.weights.stored.heads,
                gradient.heads,
                group.scratch,
                minibatch,
                self.legal,
                rows,
                self.weights.pooling,
                group.readings,
                group.of_readings,
                figures,
            )
            room.pull_back(group)
        self.weights.gather(room.totals, gradient)
        self.rooms.append(room)
