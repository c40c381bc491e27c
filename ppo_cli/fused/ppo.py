"""PPO's update through kernels: the same metrics from the same minibatches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.algorithms.ppo import EARLY_STOP_FACTOR, LAST_EPOCH, PPO
from ppo_cli.distributions import Categorical, Gaussian
from ppo_cli.faults import GRADIENT_STEPS, NonFiniteError
from ppo_cli.fused.weights import NO_FLOATS, FlatMoments, FlatWeights, rows_of
from ppo_cli.kernels import advantages
from ppo_cli.kernels.adam import Adam
from ppo_cli.kernels.advantages import Advantages
from ppo_cli.kernels.ppo import COMPLETE, NOT_FINITE, STOPPED, Objective, Samples
from ppo_cli.kernels.report import (
    CLIPFRAC,
    COUNT,
    ENTROPY,
    GRAD_NORM,
    K1,
    K3,
    KL,
    NUM_FIGURES,
    POLICY_LOSS,
    RATIO_MAX,
    VALUE_LOSS,
    averages,
)
from ppo_cli.losses import MAX_LOG_RATIO
from ppo_cli.schedules import schedule_factor
from ppo_cli.train_state import TrainState
from ppo_cli.types import Rollout

FIGURES = {
    "losses/policy_loss": POLICY_LOSS,
    "losses/value_loss": VALUE_LOSS,
    "losses/entropy": ENTROPY,
    "losses/clipfrac": CLIPFRAC,
    "losses/old_approx_kl": K1,
    "losses/approx_kl": K3,
    "losses/kl": KL,
    "losses/ratio_max": RATIO_MAX,
}


class FusedPPO(ABC):
    """An algorithm for the trainer: ``ppo``'s update on the weights of one run."""

    def __init__(self, ppo: PPO, weights: FlatWeights, optimizer: torch.optim.AdamW) -> None:
        self.ppo = ppo
        self.moments = FlatMoments(weights, optimizer)
        self.seen: tuple[Rollout, tuple[Advantages, Samples]] | None = None  # the last rollout, and its memory

    @abstractmethod
    def learn(
        self,
        adam: Adam,
        samples: Samples,
        objective: Objective,
        order: NDArray[np.int64],
        minibatch: int,
        report: NDArray[np.float64],
        first_row: int,
    ) -> int:
        """As `ppo_cli.kernels.ppo.update`, on all threads."""

    @property
    def gamma(self) -> float:
        """The discount."""
        return self.ppo.gamma

    def update(self, state: TrainState, rollout: Rollout) -> dict[str, float]:
        """As ``PPO.update``.

        Raises:
            NonFiniteError: a gradient is NaN or infinite, and no such step may be left out; the weights are as before
                its minibatch.
        """
        ppo = self.ppo
        samples = self.samples(rollout)
        clip = ppo.clip * schedule_factor(ppo.clip_schedule, state.progress)
        entropy_coef = ppo.entropy_coef * schedule_factor(ppo.entropy_schedule, state.progress)
        objective = Objective(
            clip=np.float32(clip),
            clip_value=np.float32(ppo.clip_value),
            entropy_coef=np.float32(entropy_coef),
            value_coef=np.float32(ppo.value_coef),
            max_log_ratio=np.float32(MAX_LOG_RATIO),
            standardizes=ppo.standardize_advantage,
            stop_at_kl=EARLY_STOP_FACTOR * ppo.target_kl if ppo.target_kl else math.inf,
        )
        batch = len(samples.valid)
        minibatch = -(-batch // ppo.num_minibatches)
        per_epoch = -(-batch // minibatch)
        report = np.full((ppo.num_epochs * per_epoch, NUM_FIGURES), np.nan)
        generator = state.minibatch_generator
        before = generator.get_state() if ppo.target_kl else None
        epochs, order = self.orders(batch)
        shuffle(epochs, generator)
        reached = self.run(state, samples, objective, order, minibatch, report)
        begun = -(-reached // per_epoch)
        if before is not None and begun < ppo.num_epochs:  # an early stop: as if asked before each epoch
            generator.set_state(before)
            shuffle(epochs[:begun], generator)
        return self.metrics(report, samples, clip, entropy_coef)

    def run(
        self,
        state: TrainState,
        samples: Samples,
        objective: Objective,
        order: NDArray[np.int64],
        minibatch: int,
        report: NDArray[np.float64],
    ) -> int:
        """All minibatches; fills ``report`` and moves the weights.

        Returns how many minibatches were reached. Where a step may be left out, learning goes on behind it.
        """
        group = self.moments.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        adam = Adam(
            first=self.moments.first,
            second=self.moments.second,
            steps_taken=self.moments.steps_taken,
            learning_rate=float(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            max_grad_norm=self.ppo.max_grad_norm,
        )
        row = 0
        while True:
            outcome = self.learn(adam, samples, objective, order, minibatch, report, row)
            is_complete = outcome == COMPLETE
            steps_taken = len(report) - row if is_complete else int(np.isfinite(report[row:, GRAD_NORM]).sum())
            self.moments.steps_taken += steps_taken
            row += steps_taken
            if outcome != NOT_FINITE:
                return row + (outcome == STOPPED)
            figures = report[row].tolist()
            loss = (figures[POLICY_LOSS] + self.ppo.value_coef * figures[VALUE_LOSS]) / max(figures[COUNT], 1)
            error = NonFiniteError.of(figures[GRAD_NORM], loss, state.updates + 1, row + 1)
            state.faults.skip(GRADIENT_STEPS, error)
            report[row] = np.nan
            row += 1
            adam = adam._replace(steps_taken=self.moments.steps_taken)

    @cache  # noqa: B019 (as many entries as there are sizes of batches: one)
    def orders(self, batch: int) -> tuple[list[Tensor], NDArray[np.int64]]:
        """Room for the order of the samples in each epoch, [B] each, and the same memory as a whole."""
        order = torch.empty((self.ppo.num_epochs, batch), dtype=torch.int64)
        return list(order), order.numpy()

    def samples(self, rollout: Rollout) -> Samples:
        """The rollout as the kernel reads it, with advantages and value targets."""
        if self.seen is None or self.seen[0] is not rollout:  # a collector writes into the same memory every time
            self.seen = rollout, self.views(rollout)
        estimator, samples = self.seen[1]
        advantages.gae(estimator, np.float32(self.ppo.gamma), np.float32(self.ppo.gamma * self.ppo.gae_lambda))
        return samples

    def views(self, rollout: Rollout) -> tuple[Advantages, Samples]:
        """The memory of a rollout, [T, N] as the estimator reads it and [T * N] as the samples of the update."""
        policy = rollout.policy
        is_gaussian = isinstance(policy, Gaussian)
        assert isinstance(policy, Categorical | Gaussian)
        estimator = Advantages(
            reward=rollout.reward.numpy(),
            value=rollout.value.numpy(),
            next_value=rollout.next_value.numpy(),
            terminated=rollout.terminated.numpy(),
            truncated=rollout.truncated.numpy(),
            valid=rollout.valid.numpy(),
            advantage=np.empty(rollout.reward.shape, np.float32),
            value_target=np.empty(rollout.reward.shape, np.float32),
        )
        return estimator, Samples(
            obs=rows_of(rollout.obs) if isinstance(rollout.obs, Tensor) else NO_FLOATS,
            choice=np.zeros(0, np.int64) if is_gaussian else rollout.action.view(-1).numpy(),
            action=rows_of(rollout.action) if is_gaussian else NO_FLOATS,
            log_prob=rollout.log_prob.view(-1).numpy(),
            value=rollout.value.view(-1).numpy(),
            advantage=estimator.advantage.reshape(-1),
            value_target=estimator.value_target.reshape(-1),
            valid=rollout.valid.view(-1).numpy(),
            policy=rows_of(policy.mean if isinstance(policy, Gaussian) else policy.log_probs),
            log_std=rows_of(policy.log_std) if isinstance(policy, Gaussian) else NO_FLOATS,
        )

    def metrics(
        self, report: NDArray[np.float64], samples: Samples, clip: float, entropy_coef: float
    ) -> dict[str, float]:
        """Means over the minibatches that were looked at, as ``PPO.update`` takes them."""
        means, steps = averages(report, len(report) // self.ppo.num_epochs)
        overall, last_epoch = means.tolist()
        return {
            **{tag: overall[column] for tag, column in FIGURES.items()},
            "losses/grad_norm": overall[GRAD_NORM],
            "losses/explained_variance": advantages.explained_variance(
                samples.value, samples.value_target, samples.valid
            ),
            **{f"{tag}_last_epoch": last_epoch[FIGURES[tag]] for tag in LAST_EPOCH},
            "charts/clip": clip,
            "charts/entropy_coef": entropy_coef,
            "charts/gradient_steps": float(steps),
        }


def shuffle(epochs: list[Tensor], generator: torch.Generator) -> None:
    """A new order for each epoch, [B] each."""
    for epoch in epochs:
        torch.randperm(len(epoch), generator=generator, out=epoch)
