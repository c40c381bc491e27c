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
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ppo_cli.distributions import Categorical
from ppo_cli.networks.base import HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN, observed, orthogonal
from ppo_cli.networks.codes import NUM_PLANES, convolve_board
from ppo_cli.networks.convolution import Convolution, computes_in_bfloat16
from ppo_cli.networks.symmetric import NUM_SYMMETRIES, SymmetricConv
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Distribution, Obs


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
        x = self.features(obs["board"])
        cells = x.permute(0, 2, 3, 1).flatten(1, 2)
        # Averaging over the channels of an orbit leaves what no symmetry changes; for the logits, their weights do it.
        weight = self.policy_head.weight.repeat_interleave(self.channels_of_orbit, dim=1) / self.channels_of_orbit
        scores, total = read(cells, weight.squeeze(0))
        value = self.value_head(self.critic_hidden(self.pooled(cells, total)).relu())
        logits = scores + self.policy_head.bias
        return Categorical.from_logits(logits, obs["legal"]), value.float().squeeze(-1)

    def pooled(self, cells: Tensor, total: Tensor) -> Tensor:
        """What the critic sees of the features [B, H * W, channels] over the board, whose sum is ``total``."""
        pooled = self.over_orbits(total / cells.shape[1])
        if self.pooling == "mean_max":
            pooled = torch.cat([pooled, self.over_orbits(cells).amax(dim=1)], dim=-1)
        return pooled

    def over_orbits(self, x: Tensor) -> Tensor:
        """[..., channels] -> [..., features]."""
        orbit = self.channels_of_orbit
        return x.view(*x.shape[:-1], x.shape[-1] // orbit, orbit).mean(-1) if orbit > 1 else x

    def features(self, board: Tensor) -> Tensor:
        """[B, H, W] -> [B, channels, H, W]."""
        first, *rest = self.convolutions
        assert isinstance(first, Convolution | SymmetricConv)
        x = convolve_board(board, *first.weights(), may_shorten=first.may_shorten)
        while rest:
            if self.residual and len(rest) > 1:
                x = (x + rest[1](rest[0](x, rectifies=True))).relu()
                rest = rest[2:]
            else:
                x = rest.pop(0)(x, rectifies=True)
        return x


def read(cells: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the cells [B, P, C] with ``weight`` [C], [B, P], and their sum over P, [B, C]."""
    if computes_in_bfloat16(cells):
        return Reading.apply(cells, weight.to(cells.dtype))  # type: ignore[no-untyped-call, no-any-return]
    return functional.linear(cells, weight.unsqueeze(0)).squeeze(-1), sum_of(cells)


def sum_of(cells: Tensor) -> Tensor:
    """[B, P, C] -> [B, C], as a product: it is faster than a sum along the middle."""
    return torch.bmm(torch.ones_like(cells[:, :1, :1]).expand(-1, 1, cells.shape[1]), cells).squeeze(1)


class Reading(torch.autograd.Function):
    """`read`, whose gradient writes each cell's features once, not twice and a third time for the sum of the two."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """As ``read``."""
        ctx.save_for_backward(cells, weight)
        return functional.linear(cells, weight.unsqueeze(0)).squeeze(-1), sum_of(cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_scores: Tensor, of_total: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """[B, P] and [B, C] -> the gradients of cells and weight."""
        cells, weight = ctx.saved_tensors
        left = torch.stack([of_scores, torch.ones_like(of_scores)], dim=2)
        right = torch.stack([weight.expand_as(of_total), of_total], dim=1)
        return torch.bmm(left, right), of_scores.flatten() @ cells.flatten(0, 1)
