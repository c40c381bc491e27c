"""PPO's update of an MLP: one call of `ppo_cli.kernels.ppo` on each thread."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_cli.algorithms.ppo import PPO
from ppo_cli.fused.ppo import FusedPPO
from ppo_cli.fused.weights import MLPWeights
from ppo_cli.fused.workers import Workers
from ppo_cli.kernels.adam import Adam
from ppo_cli.kernels.mlp import Network, new_scratch
from ppo_cli.kernels.ppo import Exchange, Objective, Samples, update
from ppo_cli.kernels.report import NUM_FIGURES
from ppo_cli.kernels.threads import new_barrier

MAX_SLICES = 16
MAX_SLICED = 1 << 22
"""Numbers in the gradients of all slices: 16 MB."""


class PPOOnMLP(FusedPPO):
    """All epochs in one call."""

    def __init__(self, ppo: PPO, weights: MLPWeights, optimizer: torch.optim.AdamW, workers: Workers) -> None:
        super().__init__(ppo, weights, optimizer)
        self.network = weights.network
        self.workers = workers
        self.scratch = [new_scratch(self.network) for _ in range(workers.num_threads)]
        self.barrier = new_barrier()

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
        """The kernel on every thread, this one included."""
        shared = (samples, objective, adam, self.exchange(minibatch), order, minibatch, report, first_row)
        return self.workers.run_timed(partial(self.work, shared))

    def work(self, shared: tuple[Any, ...], thread: int, num_threads: int) -> int:
        """One thread's part of the kernel; how the update ended."""
        outcome: int = update(thread, num_threads, self.network, self.scratch[thread], *shared)
        return outcome

    @cache  # noqa: B019 (as many entries as there are sizes of minibatches: one)
    def exchange(self, minibatch: int) -> Exchange:
        """Room for the units of a minibatch."""
        network = self.network
        slices = num_slices(network, minibatch)
        units = slices if network.is_shared else 2 * slices
        return Exchange(
            barrier=self.barrier,
            gradient=np.zeros((slices, len(network.parameters)), np.float32),
            sums=np.zeros((2, units, NUM_FIGURES)),
            squares=np.zeros((2, units)),
        )


def num_slices(network: Network, minibatch: int) -> int:
    """Into how many parts a minibatch is cut: whole tiles, no more than threads will want, and memory allows.

    Separate networks are two units of work for each slice, so that half as many slices do.
    """
    tiles = minibatch // (network.tile if network.is_shared else 2 * network.tile)
    return max(1, min(tiles, MAX_SLICES, MAX_SLICED // len(network.parameters)))
