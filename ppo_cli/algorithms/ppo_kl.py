"""Proximal policy optimization with a KL penalty (Schulman et al. 2017, arXiv:1707.06347, section 4, eq. 8).

The ratio is not clipped; moving away from the old policy costs beta KL(old, new) instead. Beta (``kl_coef``) is fixed
or adaptive: after an update it is halved if the KL came out below d_targ / 1.5, and doubled if above 1.5 d_targ
(``target_kl``). It is kept in the training state, so that a resumed run goes on with it.

Differs from the paper: beta stays within bounds; and as in ``ppo.py`` advantages are standardized in each minibatch,
the gradient's global norm is clipped, and actor and critic share one loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from ppo_cli.advantages import explained_variance, gae, standardize
from ppo_cli.algorithms.base import measured_change
from ppo_cli.losses import masked_mean, policy_change, probability_ratio, squared_error
from ppo_cli.networks.base import ActorCritic
from ppo_cli.schedules import Schedule, schedule_factor
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout, mean_metrics, training_batch

KL_COEF_RANGE = (1e-4, 1e4)
"""Bounds of the adaptive coefficient: a run of tiny steps must not drive it to where no doubling brings it back."""


@dataclass(frozen=True, kw_only=True)
class PPOKL:
    """Fields are hyperparameters, methods are equations; nothing changes here while training."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    gae_lambda: Annotated[float, Range(at_least=0, at_most=1)] = 0.95
    """Bias against variance of the advantage: 0 is the one-step TD error, 1 the Monte Carlo return."""
    kl_coef: Annotated[float, Range(at_least=0)] = 1.0
    """Weight of the KL penalty, beta; where an adaptive one starts."""
    kl_coef_schedule: Literal["fixed", "adaptive"] = "adaptive"
    """Whether the weight stays, or moves so that each update's KL comes near target_kl."""
    target_kl: Annotated[float, Range(above=0)] = 0.01
    """KL of an update that the adaptive weight keeps to, d_targ."""
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
        """Epochs of minibatch steps on one rollout; then the weight is adapted to the KL that they caused."""
        batch = training_batch(rollout, gae(rollout, gamma=self.gamma, gae_lambda=self.gae_lambda))
        kl_coef = state.scalar(self.current_kl_coef(state.algorithm_state))
        entropy_coef = state.scalar(self.entropy_coef * schedule_factor(self.entropy_schedule, state.progress))
        collected: list[Metrics] = []
        for _ in range(self.num_epochs):
            for minibatch in state.shuffled(batch, self.num_minibatches):
                loss, metrics = state.evaluate(self.loss, minibatch, kl_coef, entropy_coef)
                grad_norm = state.descend(loss, self.max_grad_norm)
                if not state.left_out:
                    collected.append(metrics | {"losses/grad_norm": grad_norm})
        after = state.evaluate(measured_change, batch)
        if self.kl_coef_schedule == "adaptive":
            state.algorithm_state["kl_coef"] = self.adapted(kl_coef.item(), after["losses/kl"].item())
            state.algorithm_state["first_kl_coef"] = self.kl_coef
        return mean_metrics(collected) | {
            "losses/explained_variance": explained_variance(batch.value, batch.value_target, batch.valid),
            "losses/kl_after_update": after["losses/kl"],
            "charts/kl_coef": kl_coef,
            "charts/entropy_coef": entropy_coef,
        }

    def current_kl_coef(self, moved: Mapping[str, float]) -> float:
        """The weight as it was ``moved``; the setting itself where it is fixed, or was changed since it moved."""
        if self.kl_coef_schedule == "fixed" or moved.get("first_kl_coef", self.kl_coef) != self.kl_coef:
            return self.kl_coef
        return moved.get("kl_coef", self.kl_coef)

    def adapted(self, kl_coef: float, kl: float) -> float:
        """The weight for the next update, after one that moved the policy by ``kl`` nats."""
        if kl < self.target_kl / 1.5:
            kl_coef /= 2
        elif kl > self.target_kl * 1.5:
            kl_coef *= 2
        low, high = KL_COEF_RANGE
        return min(max(kl_coef, low), high)

    def loss(
        self, actor_critic: ActorCritic, batch: Batch, kl_coef: Tensor, entropy_coef: Tensor
    ) -> tuple[Tensor, Metrics]:
        """-E[r A - beta KL(old, new)] + c1 L_VF - c2 H of one minibatch; ``kl_coef`` and ``entropy_coef`` 0-d."""
        policy, value = actor_critic(batch.obs)
        log_ratio = policy.log_prob(batch.action) - batch.log_prob
        advantage = standardize(batch.advantage, batch.valid) if self.standardize_advantage else batch.advantage

        policy_loss = -masked_mean(probability_ratio(log_ratio) * advantage, batch.valid)
        kl = masked_mean(batch.policy.kl(policy), batch.valid)
        value_loss = masked_mean(squared_error(value, batch.value_target), batch.valid)
        entropy = masked_mean(policy.entropy(), batch.valid)
        loss = policy_loss + kl_coef * kl + self.value_coef * value_loss - entropy_coef * entropy
        return loss, {
            "losses/policy_loss": policy_loss.detach(),
            "losses/value_loss": value_loss.detach(),
            "losses/entropy": entropy.detach(),
            **policy_change(policy, log_ratio, batch),
        }
