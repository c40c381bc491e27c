"""Noise and bias of the policy gradient under one fixed policy, for returns and for GAE over lambda, on equal data.

The run learns with PPO first; then the critic alone learns, on the fixed policy; then nothing moves, and each rollout
is one measurement. The trajectories of its environments are independent samples g_i of the gradient, so that

    E|g - E g|^2 = E|g_i|^2 - E[g_i . g_j]    and    |E[g - g']|^2 = E[(g_i - g_i') . (g_j - g_j')],    i != j,

have unbiased estimates in every single rollout. The bias is that against lambda = 1, which asks the critic only for
what lies beyond the rollout's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import Annotated, Any

import torch
from torch import Tensor

from ppo_cli.advantages import explained_variance, gae, monte_carlo
from ppo_cli.algorithms.natural_gradient import flatten
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.algorithms.trpo import value_loss
from ppo_cli.losses import masked_mean
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Metrics, Rollout, map_tensors, training_batch

LAMBDAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0)
RETURNS = "returns"
ESTIMATORS = (RETURNS, *(f"lambda_{gae_lambda:g}" for gae_lambda in LAMBDAS))
"""Names in the tags ``noise/<estimator>/...``; the returns are complete ones, without a baseline."""
UNBIASED = ESTIMATORS[-1]

Share = Annotated[float, Range(at_least=0, at_most=1)]


@dataclass(frozen=True, kw_only=True)
class GradientNoise:
    """Fields are hyperparameters; the network must give actor and critic weights of their own."""

    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""
    policy_until: Share = 0.25
    """Share of the run after which the policy stays as it is."""
    critic_until: Share = 0.75
    """Share of the run after which the critic stays as it is, too."""
    num_epochs: Annotated[int, Range(at_least=1)] = 10
    """Passes over each rollout while something learns."""
    num_minibatches: Annotated[int, Range(at_least=1)] = 8
    """Parts that each pass is split into."""
    max_grad_norm: Annotated[float, Range(above=0)] = 0.5
    """Largest global norm of the gradient while something learns."""
    ppo: PPO = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_ranges(self)
        shared = {name: getattr(self, name) for name in ("gamma", "num_epochs", "num_minibatches", "max_grad_norm")}
        object.__setattr__(self, "ppo", PPO(**shared))

    def update(self, state: TrainState, rollout: Rollout) -> Metrics:
        """Learn, or measure, as the progress of the run has it."""
        if state.progress < self.policy_until:
            return self.ppo.update(state, rollout)
        batch = training_batch(rollout, gae(rollout, gamma=self.gamma, gae_lambda=1.0))
        metrics = {"losses/explained_variance": explained_variance(batch.value, batch.value_target, batch.valid)}
        if state.progress < self.critic_until:
            return metrics | self.fit_critic(state, batch)
        return metrics | self.measure(state.actor_critic, rollout)

    def fit_critic(self, state: TrainState, batch: Batch) -> Metrics:
        """Regress the values on the returns of the fixed policy, which has no part in the loss."""
        for _ in range(self.num_epochs):
            for minibatch in state.shuffled(batch, self.num_minibatches):
                loss = state.evaluate(value_loss, minibatch)
                state.descend(loss, self.max_grad_norm)
        return {"losses/value_loss": loss.detach()}

    def measure(self, actor_critic: torch.nn.Module, rollout: Rollout) -> Metrics:
        """Noise, bias and signal of each estimator's gradient, and the variance of its advantages."""
        returns = monte_carlo(rollout, gamma=self.gamma)
        estimates = [returns, *(gae(rollout, gamma=self.gamma, gae_lambda=gae_lambda) for gae_lambda in LAMBDAS)]
        gradients = trajectory_gradients(actor_critic, rollout, estimates)
        unbiased = gradients[ESTIMATORS.index(UNBIASED)]
        metrics: Metrics = {}
        for name, advantage, gradient in zip(ESTIMATORS, estimates, gradients, strict=True):
            metrics |= {
                f"noise/{name}/variance": gradient.square().sum(dim=1).mean() - squared_mean(gradient),
                f"noise/{name}/signal": squared_mean(gradient),
                f"noise/{name}/bias": squared_mean(gradient - unbiased),
                f"noise/{name}/advantage_variance": advantage[rollout.valid].var(),
            }
        return metrics


def trajectory_gradients(actor_critic: torch.nn.Module, rollout: Rollout, estimates: list[Tensor]) -> Tensor:
    """The gradient of the mean of log pi A over each environment's trajectory, for K advantages [T, N]: [K, N, P]."""
    parameters = list(actor_critic.parameters())
    options: Any = {"retain_graph": True, "materialize_grads": True}  # the critic's part is 0
    gradients = []
    for n in range(rollout.reward.shape[1]):
        policy, _ = actor_critic(map_tensors(itemgetter((slice(None), n)), rollout.obs))
        log_prob = policy.log_prob(rollout.action[:, n])
        means = [masked_mean(log_prob * advantage[:, n], rollout.valid[:, n]) for advantage in estimates]
        gradients.append([flatten(torch.autograd.grad(mean, parameters, **options)) for mean in means])
    return torch.stack([torch.stack(of_env) for of_env in gradients], dim=1)


def squared_mean(samples: Tensor) -> Tensor:
    """|E x|^2 without bias from independent ``samples`` [N, P]: the mean of x_i . x_j over i != j; 0-d."""
    count = len(samples)
    return (samples.sum(dim=0).square().sum() - samples.square().sum()) / (count * (count - 1))
