"""Trust region policy optimization (Schulman et al. 2015, arXiv:1502.05477, eq. 14 and appendix C).

Maximize E[r A] subject to E[KL(old, new)] <= max_kl. To first order the answer points along x = F^-1 g, with g the
gradient of the surrogate and F the Fisher matrix, the Hessian of the KL; the length at which the quadratic model of the
KL reaches max_kl is sqrt(2 max_kl / x F x). A line search back from there holds the real KL to the constraint.

The critic learns on its own (``learning_rate`` and ``optimizer`` are the critic's), and only weights that the policy
does not depend on: of a shared trunk that leaves the value head. The trunk belongs to the policy and moves by the
natural step only; a value loss that reached into it would change the policy with no bound on the KL, and no update
could be said to keep to its trust region.

The policy's step runs uncompiled and in float32 whatever the network's precision: second derivatives of small KLs need
it.

Differs from the paper: GAE instead of returns; advantages are standardized; F has ``damping`` added to its diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ppo_cli.advantages import explained_variance, gae, standardize
from ppo_cli.algorithms.base import measured_change
from ppo_cli.algorithms.natural_gradient import (
    Search,
    backtracking,
    conjugate_gradient,
    flatten,
    hessian_product,
    write_flat,
)
from ppo_cli.faults import GRADIENT_STEPS, NonFiniteError
from ppo_cli.losses import masked_mean, probability_ratio, squared_error
from ppo_cli.networks.base import ActorCritic
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout, map_tensors, mean_metrics, take, training_batch


@dataclass(frozen=True, kw_only=True)
class TRPO:
    """Fields are hyperparameters, methods are equations; nothing changes here while training."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    gae_lambda: Annotated[float, Range(at_least=0, at_most=1)] = 0.95
    """Bias against variance of the advantage: 0 is the one-step TD error, 1 the Monte Carlo return."""
    max_kl: Annotated[float, Range(above=0)] = 0.01
    """Radius of the trust region: no update moves the policy by a larger mean KL, in nats."""
    num_cg_iterations: Annotated[int, Range(at_least=1)] = 10
    """Most iterations of conjugate gradient, one product with the Fisher matrix each."""
    damping: Annotated[float, Range(at_least=0)] = 0.1
    """Added to the diagonal of the Fisher matrix."""
    fisher_fraction: Annotated[float, Range(above=0, at_most=1)] = 1.0
    """Share of the samples that the Fisher matrix is the mean over; the products cost that much less."""
    num_line_search_steps: Annotated[int, Range(at_least=1)] = 10
    """Most candidates of the line search; where none is accepted the policy stays as it was."""
    line_search_shrink: Annotated[float, Range(above=0, below=1)] = 0.8
    """Each candidate is this share of the one before."""
    critic_epochs: Annotated[int, Range(at_least=1)] = 10
    """Passes of the critic over each rollout."""
    num_minibatches: Annotated[int, Range(at_least=1)] = 4
    """Parts that each pass of the critic is split into."""
    standardize_advantage: bool = True
    """Zero mean and unit standard deviation of the advantage over the rollout."""
    max_grad_norm: Annotated[float, Range(above=0)] = 0.5
    """Largest norm of the critic's gradient; a longer one is scaled down to it."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def update(self, state: TrainState, rollout: Rollout) -> Metrics:
        """One natural step of the policy, then epochs of minibatch steps of the critic."""
        batch = training_batch(rollout, gae(rollout, gamma=self.gamma, gae_lambda=self.gae_lambda))
        try:
            metrics, policy_parameters = self.improve_policy(state.actor_critic, batch)
        except NonFiniteError as error:
            state.faults.skip(GRADIENT_STEPS, error)
            return {}  # the critic learns nothing from such samples either
        return {
            **metrics,
            **self.fit_critic(state, batch, policy_parameters),
            "losses/explained_variance": explained_variance(batch.value, batch.value_target, batch.valid),
        }

    def improve_policy(self, actor_critic: torch.nn.Module, batch: Batch) -> tuple[Metrics, list[Tensor]]:
        """Take the natural step, as far as the line search lets it; also the parameters that the policy depends on."""
        policy = map_tensors(lambda x: x.detach().clone(), actor_critic(batch.obs)[0])  # may show a parameter itself
        advantage = standardize(batch.advantage, batch.valid) if self.standardize_advantage else batch.advantage
        batch = replace(batch, policy=policy, log_prob=policy.log_prob(batch.action), advantage=advantage)
        surrogate, _ = self.objective(actor_critic, batch)
        parameters, gradient = dependencies(surrogate, actor_critic)
        if not gradient.isfinite().all():
            raise NonFiniteError("the surrogate's gradient is not finite: the step was not taken")

        step, residual = self.natural_step(actor_critic, batch, parameters, gradient)
        search = self.line_search(actor_critic, batch, parameters, step)
        with torch.no_grad():
            improved, _ = self.objective(actor_critic, batch)
        return {
            "losses/policy_loss": -improved,
            "losses/entropy": masked_mean(policy.entropy(), batch.valid),
            **measured_change(actor_critic, batch),
            "losses/grad_norm": gradient.norm(),
            "trpo/cg_residual": residual,
            "trpo/line_search_steps": residual.new_tensor(search.num_steps),
            "trpo/accepted": residual.new_tensor(search.accepted),
        }, parameters

    def natural_step(
        self, actor_critic: ActorCritic, batch: Batch, parameters: list[Tensor], gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """F^-1 g [P], as long as the KL's quadratic model allows; and how far from g F times it is, relative, 0-d."""
        num_samples = len(batch.valid)
        count = max(1, round(self.fisher_fraction * num_samples))
        rows = torch.linspace(0, num_samples - 1, count, dtype=torch.float64).round().long()
        _, kl = self.objective(actor_critic, take(batch, rows.to(batch.valid.device)))
        fisher = hessian_product(kl, parameters, damping=self.damping)
        x, residual = conjugate_gradient(fisher, gradient, num_iterations=self.num_cg_iterations)
        curvature = x.dot(fisher(x)).clamp(min=torch.finfo(x.dtype).tiny)
        return x * (2 * self.max_kl / curvature).sqrt(), residual

    @torch.no_grad()
    def line_search(self, actor_critic: ActorCritic, batch: Batch, parameters: list[Tensor], step: Tensor) -> Search:
        """Shorten ``step`` until the surrogate improves and the KL keeps to ``max_kl``, or put everything back."""
        start = flatten(parameters)
        surrogate, _ = self.objective(actor_critic, batch)

        def accepts(scale: float) -> bool:
            write_flat(parameters, start + scale * step)
            improved, kl = self.objective(actor_critic, batch)
            return bool((improved > surrogate) & (kl <= self.max_kl))

        search = backtracking(accepts, num_steps=self.num_line_search_steps, shrink=self.line_search_shrink)
        if not search.accepted:
            write_flat(parameters, start)
        return search

    def objective(self, actor_critic: ActorCritic, batch: Batch) -> tuple[Tensor, Tensor]:
        """The surrogate E[r A] and the mean KL(old, new), both 0-d (eq. 14)."""
        policy, _ = actor_critic(batch.obs)
        ratio = probability_ratio(policy.log_prob(batch.action) - batch.log_prob)
        return masked_mean(ratio * batch.advantage, batch.valid), masked_mean(batch.policy.kl(policy), batch.valid)

    def fit_critic(self, state: TrainState, batch: Batch, policy_parameters: list[Tensor]) -> Metrics:
        """Regress the values on their targets, with what the policy does not depend on."""
        of_policy = set(policy_parameters)
        parameters = [p for p in state.actor_critic.parameters() if p.requires_grad and p not in of_policy]
        collected: list[Metrics] = []
        for _ in range(self.critic_epochs):
            for minibatch in state.shuffled(batch, self.num_minibatches):
                loss = state.evaluate(value_loss, minibatch)
                state.descend(loss, self.max_grad_norm, parameters)
                if not state.left_out:
                    collected.append({"losses/value_loss": loss.detach()})
        return mean_metrics(collected)


def value_loss(actor_critic: ActorCritic, batch: Batch) -> Tensor:
    """(V - target)^2, averaged over the minibatch, 0-d."""
    _, value = actor_critic(batch.obs)
    return masked_mean(squared_error(value, batch.value_target), batch.valid)


def dependencies(scalar: Tensor, network: torch.nn.Module) -> tuple[list[Tensor], Tensor]:
    """The network's parameters that ``scalar`` depends on, and its gradient by them [P]."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(scalar, parameters, allow_unused=True)
    used = [(parameter, part) for parameter, part in zip(parameters, gradients, strict=True) if part is not None]
    return [parameter for parameter, _ in used], flatten([part for _, part in used])
