"""Advantage actor-critic, synchronous (Sutton and Barto 2018, section 13.5; Mnih et al. 2016, arXiv:1602.01783).

The critic takes the place of the return: A = r + gamma V(s') - V(s), the one-step TD error, with the default
``gae_lambda`` 0. With ``gae_lambda`` 1 and ``rollout_length`` n it is Mnih et al.'s n-step return, minus the value; in
between it is GAE. Their optimizer is ``optimizer=rmsprop``.

Differs from Mnih et al.: environments step in turn, not asynchronously; advantages are standardized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ppo_cli.advantages import explained_variance, gae, standardize
from ppo_cli.algorithms.base import measured_change
from ppo_cli.losses import masked_mean, squared_error
from ppo_cli.networks.base import ActorCritic
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout, training_batch


@dataclass(frozen=True, kw_only=True)
class A2C:
    """Fields are hyperparameters, methods are equations; nothing changes here while training."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    gae_lambda: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """Bias against variance of the advantage: 0 is the one-step TD error, 1 the n-step return of the whole rollout."""
    entropy_coef: Annotated[float, Range(at_least=0)] = 0.01
    """Weight of the entropy bonus, against turning deterministic too early."""
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
        batch = training_batch(rollout, gae(rollout, gamma=self.gamma, gae_lambda=self.gae_lambda))
        loss, metrics = state.evaluate(self.loss, batch)
        grad_norm = state.descend(loss, self.max_grad_norm)
        return {
            **metrics,
            **state.evaluate(measured_change, batch),
            "losses/grad_norm": grad_norm,
            "losses/explained_variance": explained_variance(batch.value, batch.value_target, batch.valid),
        }

    def loss(self, actor_critic: ActorCritic, batch: Batch) -> tuple[Tensor, Metrics]:
        """-log pi(a | s) A + c1 (V - target)^2 - c2 H, averaged over the rollout."""
        policy, value = actor_critic(batch.obs)
        advantage = standardize(batch.advantage, batch.valid) if self.standardize_advantage else batch.advantage

        policy_loss = -masked_mean(policy.log_prob(batch.action) * advantage, batch.valid)
        value_loss = masked_mean(squared_error(value, batch.value_target), batch.valid)
        entropy = masked_mean(policy.entropy(), batch.valid)
        return policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy, {
            "losses/policy_loss": policy_loss.detach(),
            "losses/value_loss": value_loss.detach(),
            "losses/entropy": entropy.detach(),
        }
