"""Fully convolutional network for boards: one logit per cell, so that it plays a board of any size.

No pooling in the trunk and no dense layer over cells: what is learned about a pattern in one place holds everywhere.
The critic pools the board's features by mean and maximum.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.distributions import Categorical
from ppo_cli.networks.base import HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN, observed, orthogonal
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Distribution, Obs

HIDDEN_CODE = -1
NUM_CODES = 10  # -1 hidden, 0 to 8 shown; -2, a mine that was hit, ends the game and reads as hidden
NUM_PLANES = NUM_CODES + 2  # and: on the board (the padding around it is not), share of the cells still hidden


class Board(nn.Module):
    """3x3 convolutions on one plane per cell code; actor and critic share them."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        channels: Annotated[int, Range(at_least=1)] = 32,
        num_layers: Annotated[int, Range(at_least=1)] = 5,
        residual: bool = True,
    ) -> None:
        """Build the network.

        Args:
            observation_space: A Dict of ``board``, int8 cell codes [H, W], and the action mask ``legal`` [H * W].
            action_space: Discrete, one action for each cell.
            channels: Feature planes of each convolution.
            num_layers: Convolutions; a logit sees this many cells in every direction.
            residual: Add what goes into each pair of convolutions after the first to what comes out of it.
        """
        check_arguments(Board.__init__, locals())
        super().__init__()
        space = observed(observation_space, "board")
        num_cells = math.prod(space.shape)
        if len(space.shape) != 2 or not isinstance(action_space, spaces.Discrete) or action_space.n != num_cells:
            raise ValueError(
                f"network=board needs a board [H, W] and one action for each cell, got {space} and {action_space}"
            )
        self.residual = residual
        inputs = [NUM_PLANES] + [channels] * (num_layers - 1)
        self.convolutions = nn.ModuleList(
            orthogonal(nn.Conv2d(planes, channels, 3, padding=1), HIDDEN_GAIN) for planes in inputs
        )
        self.policy_head = orthogonal(nn.Conv2d(channels, 1, 1), POLICY_GAIN)
        self.critic_hidden = orthogonal(nn.Linear(channels, 64), HIDDEN_GAIN)
        self.value_head = orthogonal(nn.Linear(64, 1), VALUE_GAIN)
        self.to(memory_format=torch.channels_last)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        """{board [B, H, W] int8, legal [B, H * W]} -> a policy over [B] and the value [B]."""
        assert isinstance(obs, dict)
        x = self.features(planes(obs["board"]))
        logits = self.policy_head(x).flatten(1)
        pooled = self.critic_hidden(x.mean(dim=(2, 3))).relu()
        return Categorical.from_logits(logits, obs["legal"]), self.value_head(pooled).float().squeeze(-1)

    def features(self, x: Tensor) -> Tensor:
        """[B, planes, H, W] -> [B, channels, H, W]."""
        first, *rest = self.convolutions
        x = first(x).relu()
        if not self.residual:
            for convolution in rest:
                x = convolution(x).relu()
            return x
        while rest:
            pair, rest = rest[:2], rest[2:]
            y = x
            for number, convolution in enumerate(pair):
                y = convolution(y)
                y = y.relu() if number < len(pair) - 1 else y
            x = (x + y).relu()
        return x


def planes(board: Tensor) -> Tensor:
    """Cell codes [B, H, W] int8 -> planes [B, NUM_PLANES, H, W] float32 in channels-last order."""
    code = board.clamp(min=HIDDEN_CODE).long() - HIDDEN_CODE
    x = torch.zeros((*board.shape, NUM_PLANES), dtype=torch.float32, device=board.device)
    x.scatter_(-1, code.unsqueeze(-1), 1.0)
    x[..., NUM_CODES] = 1.0
    x[..., NUM_CODES + 1] = (code == 0).float().mean(dim=(1, 2), keepdim=True)
    return x.permute(0, 3, 1, 2)
