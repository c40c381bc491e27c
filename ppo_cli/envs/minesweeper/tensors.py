"""The arrays of N games as tensors, on the host or a device: what the training environment reads, saves and loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppo_cli.envs.minesweeper.rules import HIDDEN, Boards

STATE = ("seed", "episode", "placed", "mines", "board")
"""What the future depends on; the other tensors follow from these."""


class BoardTensors(NamedTuple):
    """`rules.Boards`, field for field; unsigned words are stored in the same 64 bits of an int64."""

    seed: Tensor  # [N] int64
    episode: Tensor  # [N] int64
    placed: Tensor  # [N] bool
    num_shown: Tensor  # [N] int64
    mines: Tensor  # [N, A] bool
    board: Tensor  # [N, A] int8
    legal: Tensor  # [N, A] bool
    final_board: Tensor  # [N, A] int8
    final_legal: Tensor  # [N, A] bool
    reward: Tensor  # [N] float32
    terminated: Tensor  # [N] bool
    won: Tensor  # [N] float32
    revealed: Tensor  # [N] float32

    @classmethod
    def sharing(cls, boards: Boards) -> BoardTensors:
        """The same memory as ``boards``."""
        signed = boards._replace(seed=boards.seed.view(np.int64), episode=boards.episode.view(np.int64))
        return cls(*(torch.from_numpy(array) for array in signed))

    def state(self) -> dict[str, Tensor]:
        """Copies of all that the future depends on."""
        return {name: getattr(self, name).clone() for name in STATE}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue, in place, from what `state` returned, bit for bit and whichever backend it came from.

        Raises:
            ValueError: where the tensors belong to another number of games or another board; nothing has changed then.
        """
        for name in STATE:
            expected, given = tuple(getattr(self, name).shape), tuple(state[name].shape)
            if given != expected:
                raise ValueError(f"the saved {name} has shape {given}, this environment needs {expected}")
        for name in STATE:
            getattr(self, name).copy_(state[name])
        self.num_shown.copy_((self.board >= 0).sum(dim=1))
        self.legal.copy_(self.board == HIDDEN)
        self.final_board.copy_(self.board)
        self.final_legal.copy_(self.legal)
        self.terminated.zero_()
