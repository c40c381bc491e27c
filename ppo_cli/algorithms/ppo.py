"""Proximal policy optimization, clipped objective (Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9, algorithm 1).

Differs from the paper: advantages are standardized in each minibatch; the gradient's global norm is clipped; the
coefficients can be annealed; an update can stop early on the KL. The value loss is the plain squared error unless
``clip_value`` is set.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ppo_cli.advantages import explained_variance, gae, standardize
from ppo_cli.losses import (
    clip_fraction,
    clipped_surrogate,
    clipped_value_loss,
    masked_mean,
    policy_change,
    probability_ratio,
    squared_error,
)
from ppo_cli.networks.base import ActorCritic
from ppo_cli.schedules import Schedule, schedule_factor
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout, mean_metrics, training_batch

EARLY_STOP_FACTOR = 1.5
"""An update stops when a minibatch's KL is this many times ``target_kl``: single minibatches are noisy."""

LAST_EPOCH = ("losses/approx_kl", "losses/kl", "losses/clipfrac")
"""Figures that are shown for an update's last epoch, too."""


@dataclass(frozen=True, kw_only=True)
class PPO:
    """Fields are hyperparameters, methods are equations; nothing changes here while training."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    gae_lambda: Annotated[float, Range(at_least=0, at_most=1)] = 0.95
    """Bias against variance of the advantage: 0 is the one-step TD error, 1 the Monte Carlo return."""
    clip: Annotated[float, Range(above=0)] = 0.2
    """Half-width of the interval of the probability ratio beyond which there is nothing left to gain."""
    clip_schedule: Schedule = "constant"
    """How the clip moves over the run."""
    clip_value: Annotated[float, Range(at_least=0)] = 0.0
    """How far the value may move from the old one before its loss stops improving, in units of return; 0 is off."""
    target_kl: Annotated[float, Range(at_least=0)] = 0.0
    """Skip the rest of the update once a minibatch's KL (k3) exceeds 1.5 times this; 0 is off."""
    entropy_coef: Annotated[float, Range(at_least=0)] = 0.01
    """Weight of the entropy bonus, against turning deterministic too early."""
    entropy_schedule: Schedule = "constant"
    """How the entropy bonus moves over the run."""
    value_coef: Annotated[float, Range(at_least=0)] = 0.5
    """Weight of the value loss, the mean squared error of the critic."""
    num_epochs: Annotated[int, Range(at_least=1)] = 4
    """Passes over each rollout."""
    num_minibatches: Annotated[int, Range(at_least=1)] = 4
    """Parts that each pass is split into, reshuffled for every pass."""
    standardize_advantage: bool = True
    """Zero mean and unit standard deviation of the advantage in each minibatch."""
    max_grad_norm: Annotated[float, Range(above=0)] = 0.5
    """Largest global norm of the gradient; a longer one is scaled down to it."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def update(self, state: TrainState, rollout: Rollout) -> Metrics:
        """Epochs of minibatch steps on one rollout. Metrics are means over the minibatches that were looked at.

        A minibatch whose step is left out for NaN or infinity counts as not looked at.
        """
        batch = training_batch(rollout, gae(rollout, gamma=self.gamma, gae_lambda=self.gae_lambda))
        clip = state.scalar(self.clip * schedule_factor(self.clip_schedule, state.progress))
        entropy_coef = state.scalar(self.entropy_coef * schedule_factor(self.entropy_schedule, state.progress))
        epochs: dict[int, list[Metrics]] = defaultdict(list)
        grad_norms: list[Tensor] = []
        for epoch, minibatch in self.minibatches(batch, state):
            loss, metrics = state.evaluate(self.loss, minibatch, clip, entropy_coef)
            if self.target_kl and metrics["losses/approx_kl"] > EARLY_STOP_FACTOR * self.target_kl:
                epochs[epoch].append(metrics)
                break  # before the step: this one would only lead further away
            grad_norm = state.descend(loss, self.max_grad_norm)
            if not state.left_out:
                epochs[epoch].append(metrics)
                grad_norms.append(grad_norm)
        last_epoch = mean_metrics(epochs[max(epochs)]) if epochs else {}
        return mean_metrics([*itertools.chain(*epochs.values())]) | {
            "losses/grad_norm": torch.stack(grad_norms).mean() if grad_norms else state.scalar(math.nan),
            "losses/explained_variance": explained_variance(batch.value, batch.value_target, batch.valid),
            **{f"{tag}_last_epoch": last_epoch[tag] for tag in LAST_EPOCH if last_epoch},
            "charts/clip": clip,
            "charts/entropy_coef": entropy_coef,
            "charts/gradient_steps": state.scalar(len(grad_norms)),
        }

    def minibatches(self, batch: Batch, state: TrainState) -> Iterator[tuple[int, Batch]]:
        """Every epoch's minibatches with the number of their epoch, shuffled anew for each."""
        for epoch in range(self.num_epochs):
            for minibatch in state.shuffled(batch, self.num_minibatches):
                yield epoch, minibatch

    def loss(
        self, actor_critic: ActorCritic, batch: Batch, clip: Tensor, entropy_coef: Tensor
    ) -> tuple[Tensor, Metrics]:
        """-L_CLIP + c1 L_VF - c2 H (eq. 9) of one minibatch; ``clip`` and ``entropy_coef`` 0-d."""
        policy, value = actor_critic(batch.obs)
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        ratio = probability_ratio(log_ratio)
        advantage = standardize(batch.advantage, batch.valid) if self.standardize_advantage else batch.advantage

        policy_loss = -masked_mean(clipped_surrogate(ratio, advantage, clip=clip), batch.valid)
        value_loss = masked_mean(self.value_error(value, batch), batch.valid)
        entropy = masked_mean(policy.entropy(), batch.valid)
        loss = policy_loss + self.value_coef * value_loss - entropy_coef * entropy
        with torch.no_grad():
            return loss, {
                "losses/policy_loss": policy_loss.detach(),
                "losses/value_loss": value_loss.detach(),
                "losses/entropy": entropy.detach(),
                "losses/clipfrac": masked_mean(clip_fraction(ratio, clip=clip), batch.valid),
                **policy_change(policy, log_ratio, batch),
            }

    def value_error(self, value: Tensor, batch: Batch) -> Tensor:
        """Squared error of the critic per sample, [B]."""
        if self.clip_value:
            return clipped_value_loss(value, batch.value, batch.value_target, clip_value=self.clip_value)
        return squared_error(value, batch.value_target)
