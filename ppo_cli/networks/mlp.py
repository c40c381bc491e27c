"""Multilayer perceptrons for vector observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.networks.base import VALUE_GAIN, Activation, mlp, observed, orthogonal, policy_head
from ppo_cli.types import Distribution, Obs, legal_actions


class MLP(nn.Module):
    """Actor and critic of the same shape, with weights of their own or one trunk."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        shared: bool = False,
    ) -> None:
        """Build the network.

        Args:
            observation_space: A Box, or a Dict of a Box ``obs`` and the action mask ``legal``.
            action_space: Discrete, MultiDiscrete of one row, or Box.
            hidden: Widths of the hidden layers.
            activation: Function after each hidden layer.
            shared: One trunk for actor and critic instead of one each.
        """
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"network.hidden must list at least one width of at least 1, got {list(hidden)}")
        inputs = math.prod(observed(observation_space).shape)
        self.actor = mlp(inputs, hidden, activation)
        self.critic = self.actor if shared else mlp(inputs, hidden, activation)
        self.policy_head = policy_head(hidden[-1], action_space)
        self.value_head = orthogonal(nn.Linear(hidden[-1], 1), VALUE_GAIN)

    def forward(self, obs: Obs) -> tuple[Distribution, Tensor]:
        """[B, *O] -> a policy over [B] and the value [B]."""
        x = (obs["obs"] if isinstance(obs, dict) else obs).flatten(1).float()
        actor_features = self.actor(x)
        critic_features = actor_features if self.critic is self.actor else self.critic(x)
        value = self.value_head(critic_features).float().squeeze(-1)
        return self.policy_head(actor_features, legal_actions(obs)), value
