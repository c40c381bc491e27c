"""What the trainer asks of an algorithm, and what several algorithms report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ppo_cli.losses import policy_change
from ppo_cli.networks.base import ActorCritic
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout


class Algorithm(Protocol):
    """A frozen dataclass: fields are hyperparameters, methods are equations.

    It keeps no state of its own; numbers that it moves over the run are in ``TrainState.algorithm_state``.
    """

    @property
    def gamma(self) -> float:
        """Discount, which the running scale of returns needs too."""
        ...

    def update(self, state: TrainState, rollout: Rollout) -> Mapping[str, Tensor | float]:
        """Learn from one rollout, through ``state.evaluate`` and ``state.descend``; the update's metrics by tag."""
        ...


@torch.no_grad()
def measured_change(actor_critic: ActorCritic, batch: Batch) -> Metrics:
    """How far an update has moved the policy from the one that collected ``batch``: a pass of its own, after the step.

    A large KL followed by a fall of the return is how a policy collapses.
    """
    policy, _ = actor_critic(batch.obs)
    return policy_change(policy, policy.log_prob(batch.action) - batch.log_prob, batch)
