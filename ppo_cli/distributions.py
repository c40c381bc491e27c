"""The policy's distributions, without the checks and allocations of ``torch.distributions``.

Each is a frozen dataclass of tensors with any leading shape, so that it can be stored, flattened and indexed like data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

ILLEGAL = -1e8
"""Log-probability of an action that the rules forbid: its probability is exactly 0 and p log p stays finite."""

MOST_CHOICES = 2**16
"""Of an action that is several choices, each dimension counted as the one with most: so much is kept of each step."""


@dataclass(frozen=True)
class Categorical:
    """One of A actions."""

    log_probs: Tensor  # [..., A] normalized

    @classmethod
    def from_logits(cls, logits: Tensor, legal: Tensor | None = None) -> Categorical:
        """Normalize ``logits`` [..., A] over the actions where ``legal`` [..., A] is True (all, without it)."""
        logits = logits.float()
        if legal is not None:
            logits = torch.where(legal, logits, ILLEGAL)
        return cls(logits.log_softmax(dim=-1))

    def noise(self, length: int, generator: Generator | None = None) -> Tensor:
        """[length, ..., A] waiting times, exponential with mean 1."""
        return self.renew(self.log_probs.new_empty((length, *self.log_probs.shape)), generator)

    def renew(self, noise: Tensor, generator: Generator | None = None) -> Tensor:
        """Other such numbers in the memory of ``noise``."""
        return noise.exponential_(generator=generator)

    def sample(self, noise: Tensor) -> Tensor:
        """[...] int64. The first arrival of exponential races at rates p: exact, and never an action of p = 0."""
        return (self.log_probs.exp() / noise).argmax(dim=-1)

    def mode(self) -> Tensor:
        """[...] int64."""
        return self.log_probs.argmax(dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] for ``action`` [...] int64."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...] nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(dim=-1)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self || other), [...] nats."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(dim=-1)


@dataclass(frozen=True)
class MultiCategorical:
    """In each of D dimensions one of A choices; log-probability, entropy and KL are sums over the dimensions."""

    dimensions: Categorical  # [..., D], with an illegal choice where a dimension has fewer than A

    def noise(self, length: int, generator: Generator | None = None) -> Tensor:
        """[length, ..., D, A] waiting times, exponential with mean 1."""
        return self.dimensions.noise(length, generator)

    def renew(self, noise: Tensor, generator: Generator | None = None) -> Tensor:
        """Other such numbers in the memory of ``noise``."""
        return self.dimensions.renew(noise, generator)

    def sample(self, noise: Tensor) -> Tensor:
        """[..., D] int64."""
        return self.dimensions.sample(noise)

    def mode(self) -> Tensor:
        """[..., D] int64."""
        return self.dimensions.mode()

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] for ``action`` [..., D] int64."""
        return self.dimensions.log_prob(action).sum(dim=-1)

    def entropy(self) -> Tensor:
        """[...] nats."""
        return self.dimensions.entropy().sum(dim=-1)

    def kl(self, other: MultiCategorical) -> Tensor:
        """KL(self || other), [...] nats."""
        return self.dimensions.kl(other.dimensions).sum(dim=-1)


@dataclass(frozen=True)
class Gaussian:
    """Independent normals in A dimensions; log-probability, entropy and KL are sums over the dimensions."""

    mean: Tensor  # [..., A]
    log_std: Tensor  # [..., A]

    def noise(self, length: int, generator: Generator | None = None) -> Tensor:
        """[length, ..., A] standard normals."""
        return self.renew(self.mean.new_empty((length, *self.mean.shape)), generator)

    def renew(self, noise: Tensor, generator: Generator | None = None) -> Tensor:
        """Other such numbers in the memory of ``noise``."""
        return noise.normal_(generator=generator)

    def sample(self, noise: Tensor) -> Tensor:
        """[..., A]."""
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """[..., A]."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] for ``action`` [..., A]."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def entropy(self) -> Tensor:
        """[...] nats."""
        return (self.log_std + 0.5 * (1 + math.log(2 * math.pi))).sum(dim=-1)

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other), [...] nats."""
        variance_ratio = (2 * (self.log_std - other.log_std)).exp()
        distance = ((self.mean - other.mean) * (-other.log_std).exp()).square()
        return (0.5 * (variance_ratio + distance - 1) + other.log_std - self.log_std).sum(dim=-1)
