"""Running moments of observations and returns. They live in the training state and in its checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor

from ppo_cli.types import Obs

CLIP = 10.0
"""Normalized observations and rewards stay within this many standard deviations."""


class RunningMoments:
    """Mean and variance of all rows seen so far, in float64 (Chan, Golub and LeVeque 1983, pairwise update)."""

    def __init__(self, shape: tuple[int, ...], device: torch.device | None = None) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.variance = torch.ones(shape, dtype=torch.float64, device=device)

    def update(self, rows: Tensor, valid: Tensor) -> None:
        """Take in ``rows`` [N, ...] where ``valid`` [N]."""
        rows = rows[valid].double()
        if not len(rows):
            return
        mean, variance = rows.mean(dim=0), rows.var(dim=0, correction=0)
        total = self.count + len(rows)
        shift = mean - self.mean
        squares = self.variance * self.count + variance * len(rows) + shift.square() * self.count * len(rows) / total
        self.mean += shift * len(rows) / total
        self.variance = squares / total
        self.count = total

    def to(self, device: torch.device) -> None:
        """Move the moments."""
        self.count, self.mean, self.variance = (x.to(device) for x in (self.count, self.mean, self.variance))

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the moments."""
        return {"count": self.count.clone(), "mean": self.mean.clone(), "variance": self.variance.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up where ``state_dict`` was taken."""
        for name in ("count", "mean", "variance"):
            setattr(self, name, state[name].to(self.mean.device).clone())


class ObsNormalizer:
    """Shifts and scales observations to zero mean and unit variance, element by element, and clips them.

    A dict observation is normalized under its key ``obs``; the action mask is left alone.
    """

    def __init__(self, shape: tuple[int, ...], *, enabled: bool, device: torch.device | None = None) -> None:
        self.enabled = enabled
        self.moments = RunningMoments(shape if enabled else (), device)

    def update(self, obs: Obs, valid: Tensor) -> None:
        """Learn from the rows of ``obs`` [N, *O] where ``valid`` [N]: those that an action will be chosen from."""
        if self.enabled:
            self.moments.update(obs["obs"] if isinstance(obs, dict) else obs, valid)

    def __call__(self, obs: Obs) -> Obs:
        """Normalize with the moments as they stand; any leading shape."""
        if not self.enabled:
            return obs
        if isinstance(obs, dict):
            return obs | {"obs": self.scale(obs["obs"])}
        return self.scale(obs)

    def scale(self, x: Tensor) -> Tensor:
        """(x - mean) / std in float32, within ``CLIP``."""
        std = (self.moments.variance + 1e-8).sqrt()
        return ((x - self.moments.mean.float()) / std.float()).clamp(-CLIP, CLIP)


class RewardNormalizer:
    """Divides rewards by the running standard deviation of the discounted return, so that values are of order 1.

    Only the scale changes: subtracting a mean would change what is worth ending early.
    """

    def __init__(self, num_envs: int, *, gamma: float, enabled: bool, device: torch.device | None = None) -> None:
        self.enabled = enabled
        self.gamma = gamma
        self.moments = RunningMoments((), device)
        self.discounted_return = torch.zeros(num_envs, device=device)

    def __call__(self, reward: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        """Learn from a rollout's ``reward`` [T, N], then scale it.

        The accumulated return restarts with each episode.
        """
        if not self.enabled:
            return reward
        for t in range(len(reward)):
            paid = torch.where(valid[t], reward[t], 0.0)
            self.discounted_return = self.gamma * self.discounted_return + paid
            self.moments.update(self.discounted_return, valid[t])
            self.discounted_return = self.discounted_return * ~done[t]
        return (reward / self.std).clamp(-CLIP, CLIP)

    def begin_episodes(self) -> None:
        """Forget what was paid in episodes that are not played on."""
        self.discounted_return = torch.zeros_like(self.discounted_return)

    @property
    def std(self) -> Tensor:
        """What a normalized reward is multiplied by to be the environment's again, float32; 1 where not enabled."""
        return (self.moments.variance + 1e-8).sqrt().float() if self.enabled else torch.ones(())

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and the returns accumulated so far."""
        return self.moments.state_dict() | {"discounted_return": self.discounted_return.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up where ``state_dict`` was taken."""
        self.moments.load_state_dict(state)
        if self.discounted_return.shape == state["discounted_return"].shape:
            self.discounted_return = state["discounted_return"].to(self.discounted_return.device).clone()
