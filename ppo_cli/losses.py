"""Objectives per element, and the averages that callers take over them."""

from __future__ import annotations

import torch
from torch import Tensor

from ppo_cli.types import Batch, Distribution, Metrics

MAX_LOG_RATIO = 20.0
"""exp(20) is 5e8: far outside any clip, far inside float32."""


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``x`` over the elements where ``valid``; both of one shape. 0-d."""
    return torch.where(valid, x, 0.0).sum() / valid.sum().clamp(min=1)


def probability_ratio(log_ratio: Tensor) -> Tensor:
    """Ratio r = pi / pi_old from log r, held inside float32's range."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def clipped_surrogate(ratio: Tensor, advantage: Tensor, *, clip: Tensor) -> Tensor:
    """min(r A, clip(r, 1 - clip, 1 + clip) A), to be maximized (Schulman et al. 2017, arXiv:1707.06347, eq. 7).

    ``ratio`` and ``advantage`` [B], ``clip`` 0-d. [B].
    """
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def squared_error(value: Tensor, value_target: Tensor) -> Tensor:
    """(V - target)^2, element by element."""
    return (value - value_target).square()


def clipped_value_loss(value: Tensor, old_value: Tensor, value_target: Tensor, *, clip_value: float) -> Tensor:
    """The worse of the two squared errors: of the value, and of the value kept within ``clip_value`` of the old one."""
    clipped = old_value + (value - old_value).clamp(-clip_value, clip_value)
    return torch.maximum(squared_error(value, value_target), squared_error(clipped, value_target))


def kl_k1(log_ratio: Tensor) -> Tensor:
    """-log r: unbiased for KL(old || new) under the old policy's samples, but noisy and of either sign."""
    return -log_ratio


def kl_k3(log_ratio: Tensor) -> Tensor:
    """(r - 1) - log r: unbiased, never negative (Schulman 2020, "Approximating KL Divergence")."""
    return probability_ratio(log_ratio) - 1 - log_ratio


def clip_fraction(ratio: Tensor, *, clip: Tensor) -> Tensor:
    """1 where the ratio has left the interval, else 0."""
    return ((ratio - 1).abs() > clip).to(ratio.dtype)


@torch.no_grad()
def policy_change(policy: Distribution, log_ratio: Tensor, batch: Batch) -> Metrics:
    """How far ``policy`` over [B] has moved from the one that acted; ``log_ratio`` [B] between the two."""
    return {
        "losses/old_approx_kl": masked_mean(kl_k1(log_ratio), batch.valid),
        "losses/approx_kl": masked_mean(kl_k3(log_ratio), batch.valid),
        "losses/kl": masked_mean(batch.policy.kl(policy), batch.valid),
        "losses/ratio_max": torch.where(batch.valid, probability_ratio(log_ratio), 0.0).max(),
    }
