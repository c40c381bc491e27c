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
from ppo_cli.networks.codes import NUM_PLANES, planes
from ppo_cli.networks.symmetric import NUM_SYMMETRIES, SymmetricConv
from ppo_cli.networks.trunk import MIN_CHANNELS, WeightsAtPoints, computes_in_bfloat16, through_trunk
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Distribution, Obs


class Convolution(nn.Conv2d):
    """3x3 with padding 1, [B, inputs, H, W] -> [B, outputs, H, W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def weights(self) -> tuple[Tensor, Tensor]:
        """[outputs, inputs, 3, 3] and [outputs]."""
        assert self.bias is not None
        return self.weight, self.bias


class Board(nn.Module):
    """3x3 convolutions on one plane per cell code; actor and critic share them.

    With ``symmetric`` the network plays a rotated or mirrored board in the rotated or mirrored way, exactly: it need
    not learn each pattern eight times.
    """

    may_use_kernels = True
    """Off in runs too short to compile the kernels of `ppo_cli.networks.trunk` for."""

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
        self.channels = channels
        self.pooling = pooling
        self.channels_of_orbit = NUM_SYMMETRIES if symmetric else 1
        layers: list[nn.Module] = []
        for number in range(num_layers):
            inputs = channels if number else NUM_PLANES
            if symmetric:
                layers.append(SymmetricConv(inputs, channels, HIDDEN_GAIN, lifts=number == 0))
            else:
                layers.append(orthogonal(Convolution(inputs, channels), HIDDEN_GAIN))
        self.convolutions = nn.ModuleList(layers)
        self.at_points = WeightsAtPoints()
        self.adds = [residual and number > 0 and number % 2 == 0 for number in range(num_layers)]
        features = channels // self.channels_of_orbit
        self.policy_head = orthogonal(nn.Linear(features, 1), POLICY_GAIN)
        self.critic_hidden = orthogonal(nn.Linear(features * (2 if pooling == "mean_max" else 1), 64), HIDDEN_GAIN)
        self.value_head = orthogonal(nn.Linear(64, 1), VALUE_GAIN)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        """{board [B, H, W] int8, legal [B, H * W]} -> a policy over [B] and the value [B]."""
        assert isinstance(obs, dict)
        # Averaging over the channels of an orbit leaves what no symmetry changes; for the logits, their weights do it.
        weight = self.policy_head.weight.repeat_interleave(self.channels_of_orbit, dim=1) / self.channels_of_orbit
        scores, total, cells = self.read(obs["board"], weight.squeeze(0))
        value = self.value_head(self.critic_hidden(self.pooled(cells, total)).relu())
        logits = scores + self.policy_head.bias
        return Categorical.from_logits(logits, obs["legal"]), value.float().squeeze(-1)

    def read(self, board: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the features of every cell the product with ``weight`` [C], their sum over the board, and themselves.

        [B, H, W] -> [B, H * W], [B, C] and [B, H * W, C]; of these none where nobody needs them.
        """
        if self.may_use_kernels and computes_in_bfloat16(board) and self.channels >= MIN_CHANNELS:
            layers = [layer.weights() for layer in self.convolutions if isinstance(layer, Convolution | SymmetricConv)]
            reads_cells = self.pooling == "mean_max"
            return through_trunk(board, weight, layers, adds=self.adds, returns_cells=reads_cells, known=self.at_points)
        cells = self.features(planes(board)).permute(0, 2, 3, 1).flatten(1, 2)
        ones = torch.ones_like(cells[:, :1, :1]).expand(-1, 1, cells.shape[1])
        return functional.linear(cells, weight.unsqueeze(0)).squeeze(-1), torch.bmm(ones, cells).squeeze(1), cells

    def pooled(self, cells: Tensor, total: Tensor) -> Tensor:
        """What the critic sees of the features [B, H * W, C] over the board, whose sum is ``total`` [B, C]."""
        pooled = self.over_orbits(total / cells.shape[1])
        if self.pooling == "mean_max":
            pooled = torch.cat([pooled, self.over_orbits(cells).amax(dim=1)], dim=-1)
        return pooled

    def over_orbits(self, x: Tensor) -> Tensor:
        """[..., channels] -> [..., features]."""
        orbit = self.channels_of_orbit
        return x.view(*x.shape[:-1], x.shape[-1] // orbit, orbit).mean(-1) if orbit > 1 else x

    def features(self, x: Tensor) -> Tensor:
        """[B, planes, H, W] -> [B, C, H, W]."""
        inputs: list[Tensor] = []
        for layer, adds in zip(self.convolutions, self.adds, strict=True):
            inputs.append(x)
            x = layer(x)
            x = (x + inputs[-2] if adds else x).relu()
        return x
