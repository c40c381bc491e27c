"""Vanilla policy gradient on complete returns: REINFORCE (Williams 1992; Sutton and Barto 2018, sections 13.3, 13.4).

The gradient of J is E[grad log pi(a | s) A] with A the discounted reward to go, less V(s) under ``baseline=value``.

An episode that the rollout's end or a time limit cuts off has no complete return: what lies beyond the cut is replaced
by the critic's value of the state it stopped in, under either baseline. Leaving such episodes out would favour short
ones, and counting the rest as 0 would punish long ones.

Differs from the books: samples are averaged over the rollout, without the weight gamma^t; advantages are standardized;
the gradient's global norm is clipped; the critic learns from the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from ppo_cli.advantages import explained_variance, monte_carlo, standardize
from ppo_cli.algorithms.base import measured_change
from ppo_cli.losses import masked_mean, squared_error
from ppo_cli.networks.base import ActorCritic
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout, training_batch


@dataclass(frozen=True, kw_only=True)
class VPG:
    """Fields are hyperparameters, methods are equations; nothing changes here while training."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    baseline: Literal["none", "value"] = "value"
    """What is subtracted from the return: nothing, or the critic's value."""
    value_coef: Annotated[float, Range(at_least=0)] = 0.5
    """Weight of the value loss, the mean squared error of the critic."""
    standardize_advantage: bool = True
    """Zero mean and unit standard deviation of the advantage over the rollout."""
    max_grad_norm: Annotated[float, Range(above=0)] = 0.5
    """Largest global norm of the gradient; a longer one is scaled down to it."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def update(self, state: TrainState, rollout: Rollout) -> Metrics:
        """One gradient step on one rollout; KL and ratio are measured after it."""
        batch = training_batch(rollout, monte_carlo(rollout, gamma=self.gamma) - rollout.value)
        loss, metrics = state.evaluate(self.loss, batch)
        grad_norm = state.descend(loss, self.max_grad_norm)
        return {
            **metrics,
            **state.evaluate(measured_change, batch),
            "losses/grad_norm": grad_norm,
            "losses/explained_variance": explained_variance(batch.value, batch.value_target, batch.valid),
        }

    def loss(self, actor_critic: ActorCritic, batch: Batch) -> tuple[Tensor, Metrics]:
        """-log pi(a | s) A + c1 (V - return)^2, averaged over the rollout."""
        policy, value = actor_critic(batch.obs)
        advantage = batch.advantage if self.baseline == "value" else batch.value_target
        if self.standardize_advantage:
            advantage = standardize(advantage, batch.valid)

        policy_loss = -masked_mean(policy.log_prob(batch.action) * advantage, batch.valid)
        value_loss = masked_mean(squared_error(value, batch.value_target), batch.valid)
        return policy_loss + self.value_coef * value_loss, {
            "losses/policy_loss": policy_loss.detach(),
            "losses/value_loss": value_loss.detach(),
            "losses/entropy": masked_mean(policy.entropy(), batch.valid).detach(),
        }
