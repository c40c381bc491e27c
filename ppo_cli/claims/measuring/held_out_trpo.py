"""TRPO that learns from one half of its environments and measures the KL of each update on the other half, too.

The line search keeps the KL on the states that it looks at; what it is on other states of the same policy is a question
to the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ppo_cli.algorithms.base import measured_change
from ppo_cli.algorithms.trpo import TRPO
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Metrics, Rollout, map_tensors, training_batch


@dataclass(frozen=True, kw_only=True)
class HeldOutTRPO:
    """Fields are hyperparameters of TRPO; what is not named here has TRPO's default."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    gae_lambda: Annotated[float, Range(at_least=0, at_most=1)] = 0.95
    """Bias against variance of the advantage: 0 is the one-step TD error, 1 the Monte Carlo return."""
    max_kl: Annotated[float, Range(above=0)] = 0.01
    """Radius of the trust region, in nats."""
    critic_epochs: Annotated[int, Range(at_least=1)] = 10
    """Passes of the critic over each rollout."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def update(self, state: TrainState, rollout: Rollout) -> Metrics:
        """TRPO's update on the first half of the environments, then the KL on the second half."""
        half = rollout.reward.shape[1] // 2
        seen = map_tensors(lambda x: x[:, :half], rollout)
        unseen = map_tensors(lambda x: x[:, half:], rollout)
        trpo = TRPO(gamma=self.gamma, gae_lambda=self.gae_lambda, max_kl=self.max_kl, critic_epochs=self.critic_epochs)
        metrics = trpo.update(state, seen)
        change = state.evaluate(measured_change, training_batch(unseen, unseen.reward))
        return metrics | {"trpo/held_out_kl": change["losses/kl"]}
