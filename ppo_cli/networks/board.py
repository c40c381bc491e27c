"""Fully convolutional network for boards: one logit per cell, so that it plays a board of any size.

No pooling in the trunk and no dense layer over cells: what is learned about a pattern in one place holds everywhere.
The critic pools the features over the board.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from ppo_cli.distributions import Categorical
from ppo_cli.networks.base import HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN, observed, orthogonal
from ppo_cli.networks.convolution import Convolution
from ppo_cli.networks.symmetric import NUM_SYMMETRIES, SymmetricConv
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Distribution, Obs

HIDDEN_CODE = -1
NUM_CODES = 10  # -1 hidden, 0 to 8 shown; -2, a mine that was hit, ends the game and reads as hidden
NUM_PLANES = NUM_CODES + 2  # and: on the board (the padding around it is not), share of the cells still hidden


class Board(nn.Module):
    """3x3 convolutions on one plane per cell code; actor and critic share them.

    With ``symmetric`` the network plays a rotated or mirrored board in the rotated or mirrored way, exactly: it need
    not learn each pattern eight times.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        channels: Annotated[int, Range(at_least=8)] = 64,
        num_layers: Annotated[int, Range(at_least=1)] = 4,
        residual: bool = False,
        symmetric: bool = True,
        pooling: Literal["mean", "mean_max"] = "mean",
    ) -> None:
        """Build the network.

        Args:
            observation_space: A Dict of ``board``, int8 cell codes [H, W], and the action mask ``legal`` [H * W].
            action_space: Discrete, one action for each cell.
            channels: Feature planes of each convolution, a multiple of 8 if symmetric.
            num_layers: Convolutions; a logit sees this many cells in every direction.
            residual: Add what goes into each pair of convolutions after the first to what comes out of it.
            symmetric: Tie the weights so that the eight symmetries of the square are built in.
            pooling: What the critic sees of the features over the board: their mean, or their maximum too.
        """
        check_arguments(Board.__init__, locals())
        super().__init__()
        space = observed(observation_space, "board")
        num_cells = math.prod(space.shape)
        if len(space.shape) != 2 or not isinstance(action_space, spaces.Discrete) or action_space.n != num_cells:
            raise ValueError(
                f"network=board needs a board [H, W] and one action for each cell, got {space} and {action_space}"
            )
        if symmetric and channels % NUM_SYMMETRIES:
            raise ValueError(f"network.channels must be a multiple of 8 if network.symmetric, got {channels}")
        self.residual = residual
        self.pooling = pooling
        self.channels_of_orbit = NUM_SYMMETRIES if symmetric else 1
        layers: list[nn.Module] = []
        for number in range(num_layers):
            inputs = channels if number else NUM_PLANES
            if symmetric:
                layers.append(SymmetricConv(inputs, channels, HIDDEN_GAIN, lifts=number == 0))
            else:
                layers.append(orthogonal(Convolution(inputs, channels, 3, padding=1), HIDDEN_GAIN))
        self.convolutions = nn.ModuleList(layers)
        features = channels // self.channels_of_orbit
        self.policy_head = orthogonal(nn.Linear(features, 1), POLICY_GAIN)
        self.critic_hidden = orthogonal(nn.Linear(features * (2 if pooling == "mean_max" else 1), 64), HIDDEN_GAIN)
        self.value_head = orthogonal(nn.Linear(64, 1), VALUE_GAIN)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        """{board [B, H, W] int8, legal [B, H * W]} -> a policy over [B] and the value [B]."""
        assert isinstance(obs, dict)
        x = self.features(planes(obs["board"]))
        cells = x.permute(0, 2, 3, 1).flatten(1, 2)
        # Averaging over the channels of an orbit leaves what no symmetry changes; for the logits, their weights do it.
        weight = self.policy_head.weight.repeat_interleave(self.channels_of_orbit, dim=1) / self.channels_of_orbit
        logits = functional.linear(cells, weight, self.policy_head.bias).squeeze(-1)
        value = self.value_head(self.critic_hidden(self.pooled(cells)).relu())
        return Categorical.from_logits(logits, obs["legal"]), value.float().squeeze(-1)

    def pooled(self, cells: Tensor) -> Tensor:
        """What the critic sees of the features [B, H * W, channels] over the board."""
        total = torch.bmm(torch.ones_like(cells[:, :1, :1]).expand(-1, 1, cells.shape[1]), cells).squeeze(1)
        pooled = self.over_orbits(total / cells.shape[1])
        if self.pooling == "mean_max":
            pooled = torch.cat([pooled, self.over_orbits(cells).amax(dim=1)], dim=-1)
        return pooled

    def over_orbits(self, x: Tensor) -> Tensor:
        """[..., channels] -> [..., features]."""
        orbit = self.channels_of_orbit
        return x.view(*x.shape[:-1], x.shape[-1] // orbit, orbit).mean(-1) if orbit > 1 else x

    def features(self, x: Tensor) -> Tensor:
        """[B, planes, H, W] -> [B, channels, H, W]."""
        first, *rest = self.convolutions
        x = first(x, rectifies=True)
        while rest:
            if self.residual and len(rest) > 1:
                x = (x + rest[1](rest[0](x, rectifies=True))).relu()
                rest = rest[2:]
            else:
                x = rest.pop(0)(x, rectifies=True)
        return x


def planes(board: Tensor) -> Tensor:
    """Cell codes [B, H, W] int8 -> planes [B, NUM_PLANES, H, W] float32 in channels-last order."""
    code = board.clamp(min=HIDDEN_CODE).long() - HIDDEN_CODE
    x = torch.zeros((*board.shape, NUM_PLANES), dtype=torch.float32, device=board.device)
    x.scatter_(-1, code.unsqueeze(-1), 1.0)
    x[..., NUM_CODES] = 1.0
    share = (code == 0).float().mean(dim=(1, 2), keepdim=True)
    x.select(-1, NUM_CODES + 1).copy_(share.expand_as(code))  # so written, an exported graph keeps the sizes open
    return x.permute(0, 3, 1, 2)
