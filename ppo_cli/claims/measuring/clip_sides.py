"""PPO that looks at its rollout once more after each update: which samples have left the clip interval, and where.

For each sample the gradient of the shipped objective by the ratio is taken, to see whether anything is left to gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ppo_cli.advantages import gae, standardize
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.losses import clipped_surrogate, masked_mean, probability_ratio
from ppo_cli.networks.base import ActorCritic
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout, training_batch


@dataclass(frozen=True, kw_only=True)
class ClipSides:
    """Fields are hyperparameters of PPO; what is not named here has PPO's default."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    clip: Annotated[float, Range(above=0)] = 0.2
    """Half-width of the interval of the probability ratio."""
    num_epochs: Annotated[int, Range(at_least=1)] = 10
    """Passes over each rollout."""
    num_minibatches: Annotated[int, Range(at_least=1)] = 4
    """Parts that each pass is split into."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def update(self, state: TrainState, rollout: Rollout) -> Metrics:
        """PPO's update, then the look at every sample."""
        ppo = PPO(gamma=self.gamma, clip=self.clip, num_epochs=self.num_epochs, num_minibatches=self.num_minibatches)
        batch = training_batch(rollout, gae(rollout, gamma=self.gamma, gae_lambda=ppo.gae_lambda))
        metrics = ppo.update(state, rollout)
        ratio = state.evaluate(ratio_after, batch)
        advantage = standardize(batch.advantage, batch.valid)
        return metrics | sides(ratio, advantage, batch.valid, state.scalar(self.clip))


@torch.no_grad()
def ratio_after(actor_critic: ActorCritic, batch: Batch) -> Tensor:
    """Ratio of the policy as it is now to the one that acted, [B]."""
    policy, _ = actor_critic(batch.obs)
    return probability_ratio(policy.log_prob(batch.action) - batch.log_prob)


def incentive(ratio: Tensor, advantage: Tensor, clip: Tensor) -> Tensor:
    """d/dr of the clipped objective, through the shipped function; ``ratio`` and ``advantage`` [B]. [B]."""
    ratio = ratio.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(clipped_surrogate(ratio, advantage, clip=clip).sum(), ratio)
    return gradient


def sides(ratio: Tensor, advantage: Tensor, valid: Tensor, clip: Tensor) -> Metrics:
    """Shares of the samples beyond the interval by side and sign, and counts of those at odds with the claim."""
    above, below = ratio > 1 + clip, ratio < 1 - clip
    good, bad = advantage > 0, advantage < 0
    favoured = (good & above) | (bad & below)
    pushed = incentive(ratio, advantage, clip) != 0
    judged = valid & (good | bad)
    parts = {"good_above": good & above, "good_below": good & below, "bad_above": bad & above, "bad_below": bad & below}
    return {
        **{f"clip/{name}": masked_mean(part.float(), valid) for name, part in parts.items()},
        "clip/samples": judged.sum().float(),
        "clip/pushed_further": (judged & favoured & pushed).sum().float(),
        "clip/silenced_elsewhere": (judged & ~favoured & ~pushed).sum().float(),
    }
