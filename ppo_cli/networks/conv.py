"""Convolutional network for image observations (Mnih et al. 2015, "Human-level control ...", Methods).

Differs from the paper: images smaller than its filters need (36 pixels) get three 3x3 convolutions of stride 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.networks.base import HIDDEN_GAIN, VALUE_GAIN, observed, orthogonal, policy_head
from ppo_cli.types import Distribution, Obs, legal_actions

NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride
SMALL_LAYERS = ((32, 3, 1), (64, 3, 1), (64, 3, 1))
NATURE_MIN_SIZE = 36
SMALL_MIN_SIZE = 7


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an image is [H, W, C] rather than [C, H, W]: the channels are the smallest of the three."""
    return shape[-1] <= min(shape[0], shape[1])


class Conv(nn.Module):
    """Convolutions and one dense layer, for actor and critic together or one each. uint8 images are divided by 255."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        features: int = 512,
        shared: bool = True,
    ) -> None:
        """Build the network.

        Args:
            observation_space: A Box [H, W, C], [C, H, W] or [H, W], or a Dict of it as ``obs`` and the mask ``legal``.
            action_space: Discrete, MultiDiscrete of one row, or Box.
            features: Width of the dense layer.
            shared: One trunk for actor and critic instead of one each.
        """
        super().__init__()
        space = observed(observation_space)
        shape = tuple(space.shape) if len(space.shape) == 3 else (1, *space.shape)
        if len(shape) != 3:
            raise ValueError(f"network=conv reads images of 2 or 3 dimensions, got observations of shape {space.shape}")
        self.channels_last = has_channels_last(shape)
        channels, height, width = (shape[2], shape[0], shape[1]) if self.channels_last else shape
        if min(height, width) < SMALL_MIN_SIZE:
            raise ValueError(f"network=conv needs images of at least 7x7, got {height}x{width}: use network=mlp")
        self.scale = 1 / 255 if space.dtype == "uint8" else 1.0
        layers = NATURE_LAYERS if min(height, width) >= NATURE_MIN_SIZE else SMALL_LAYERS
        self.actor = trunk(channels, (height, width), layers, features)
        self.critic = self.actor if shared else trunk(channels, (height, width), layers, features)
        self.policy_head = policy_head(features, action_space)
        self.value_head = orthogonal(nn.Linear(features, 1), VALUE_GAIN)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        """[B, *O] -> a policy over [B] and the value [B]."""
        x = obs["obs"] if isinstance(obs, dict) else obs
        if x.dim() == 3:
            x = x.unsqueeze(1)
        elif self.channels_last:
            x = x.permute(0, 3, 1, 2)
        x = x.float() * self.scale
        actor_features = self.actor(x)
        critic_features = actor_features if self.critic is self.actor else self.critic(x)
        value = self.value_head(critic_features).float().squeeze(-1)
        return self.policy_head(actor_features, legal_actions(obs)), value


def trunk(channels: int, size: tuple[int, int], layers: Sequence[tuple[int, int, int]], features: int) -> nn.Sequential:
    """Convolutions with ReLU, flattened, then a dense layer: [B, channels, *size] -> [B, features]."""
    modules: list[nn.Module] = []
    inputs = channels
    for outputs, kernel, stride in layers:
        modules += [orthogonal(nn.Conv2d(inputs, outputs, kernel, stride), HIDDEN_GAIN), nn.ReLU()]
        inputs = outputs
    with torch.no_grad():
        flat = nn.Sequential(*modules)(torch.zeros(1, channels, *size)).numel()
    modules += [nn.Flatten(), orthogonal(nn.Linear(flat, features), HIDDEN_GAIN), nn.ReLU()]
    return nn.Sequential(*modules)
