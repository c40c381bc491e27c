"""What every actor-critic network is made of, and the contract that the trainer relies on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import pad

from ppo_cli.distributions import ILLEGAL, MOST_CHOICES, Categorical, Gaussian, MultiCategorical
from ppo_cli.types import Distribution, Obs

Activation = Literal["tanh", "relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}

HIDDEN_GAIN = math.sqrt(2)
POLICY_GAIN = 0.01  # nearly uniform at first, so that the first rollouts explore
VALUE_GAIN = 1.0


class ActorCritic(Protocol):
    """obs with one leading dimension -> (policy, value [B]). The constructor takes the two spaces, then settings."""

    def __call__(self, obs: Obs) -> tuple[Any, Tensor]:
        """Policy over [B] and value [B] of ``obs`` [B, *O]."""
        ...


def act(actor_critic: ActorCritic, obs: Obs) -> tuple[Any, Tensor]:
    """The network as a function, for the executor that runs it while acting."""
    return actor_critic(obs)


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float) -> Any:  # noqa: ANN401 (the layer it was given)
    """Orthogonal weights scaled by ``gain``, zero bias. Returns the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def mlp(inputs: int, hidden: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear layers, each followed by the activation; [B, inputs] -> [B, hidden[-1]]."""
    layers: list[nn.Module] = []
    for outputs in hidden:
        layers += [orthogonal(nn.Linear(inputs, outputs), HIDDEN_GAIN), ACTIVATIONS[activation]()]
        inputs = outputs
    return nn.Sequential(*layers)


class CategoricalHead(nn.Module):
    """Features -> one logit for each of A actions."""

    def __init__(self, features: int, num_actions: int) -> None:
        super().__init__()
        self.logits = orthogonal(nn.Linear(features, num_actions), POLICY_GAIN)

    def forward(self, features: Tensor, legal: Tensor | None) -> Distribution:
        """[B, features] -> a policy over [B]; ``legal`` [B, A] bool."""
        return Categorical.from_logits(self.logits(features), legal)


class MultiCategoricalHead(nn.Module):
    """Features -> the logits of each choice in each of D dimensions."""

    def __init__(self, features: int, num_choices: Sequence[int]) -> None:
        super().__init__()
        self.num_choices = list(num_choices)
        self.logits = orthogonal(nn.Linear(features, sum(num_choices)), POLICY_GAIN)

    def forward(self, features: Tensor, legal: Tensor | None) -> Distribution:
        """[B, features] -> a policy over [B]; every choice that a dimension has is legal."""
        parts, most = self.logits(features).float().split(self.num_choices, dim=-1), max(self.num_choices)
        logits = torch.stack([pad(part, (0, most - part.shape[-1]), value=ILLEGAL) for part in parts], dim=-2)
        return MultiCategorical(Categorical.from_logits(logits))


class GaussianHead(nn.Module):
    """Features -> the mean of A normals; one standard deviation for each, the same in every state."""

    def __init__(self, features: int, num_dimensions: int) -> None:
        super().__init__()
        self.mean = orthogonal(nn.Linear(features, num_dimensions), POLICY_GAIN)
        self.log_std = nn.Parameter(torch.zeros(num_dimensions))

    def forward(self, features: Tensor, legal: Tensor | None) -> Distribution:
        """[B, features] -> a policy over [B]; a continuous action is always legal."""
        mean = self.mean(features).float()
        return Gaussian(mean, self.log_std.expand_as(mean))


def policy_head(features: int, action_space: spaces.Space[Any]) -> nn.Module:
    """The head that the action space needs."""
    if isinstance(action_space, spaces.Discrete):
        return CategoricalHead(features, int(action_space.n))
    if isinstance(action_space, spaces.Box):
        return GaussianHead(features, math.prod(action_space.shape))
    if isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim == 1:
        counts = action_space.nvec.tolist()
        if len(counts) * max(counts) > MOST_CHOICES:  # in a stranger's file; an environment's are looked at before
            raise ValueError(f"actions have {len(counts)} dimensions of up to {max(counts)} choices: too many to keep")
        return MultiCategoricalHead(features, counts)
    raise ValueError(f"actions must be Discrete, MultiDiscrete of one row, or Box, got {action_space}")


def num_parameters(network: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def observed(observation_space: spaces.Space[Any], key: str = "obs") -> spaces.Box:
    """The Box that a network reads: the space itself, or what stands under ``key`` beside an action mask."""
    if isinstance(observation_space, spaces.Dict) and key not in observation_space.spaces:
        raise ValueError(f"observations must have {key!r}, got {', '.join(observation_space)}: choose another network")
    space = observation_space[key] if isinstance(observation_space, spaces.Dict) else observation_space
    if not isinstance(space, spaces.Box):
        raise ValueError(f"observations must be a Box, got {space}")
    return space
