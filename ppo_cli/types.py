"""The values that flow through the program.

Shape legend: T time steps, N environments, B training samples, *O one observation, *A one action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Generator, Tensor

Obs = Tensor | dict[str, Tensor]
"""What the network sees. An environment with illegal actions returns a dict whose key ``legal`` is the action mask,
bool, True where the action is allowed."""

Metrics = dict[str, Tensor]
"""Tag to 0-d tensor. Stays on the device until the logger reads it: one host synchronisation per update."""


class Distribution(Protocol):
    """A policy at a batch of states: pi(. | s) for any leading shape [...]. A frozen dataclass of tensors."""

    def noise(self, length: int, generator: Generator | None = None) -> Tensor:
        """Random numbers for ``length`` samples at each state, [length, ...]."""
        ...

    def renew(self, noise: Tensor, generator: Generator | None = None) -> Tensor:
        """Other such numbers in the same memory."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """One action for each state, [..., *A], decided by one row of `noise`."""
        ...

    def mode(self) -> Tensor:
        """The most likely action of each state, [..., *A]."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability log pi(action | s), [...]."""
        ...

    def entropy(self) -> Tensor:
        """Nats, [...]."""
        ...

    def kl(self, other: Self) -> Tensor:
        """KL(self || other) in closed form, nats, [...]."""
        ...


class Step(NamedTuple):
    """What a batch of environments answers to one batch of actions."""

    obs: Obs  # [N, *O] what the next action is chosen from: first observation of the next episode where done
    reward: Tensor  # [N] float32
    terminated: Tensor  # [N] bool the task ended: nothing comes after
    truncated: Tensor  # [N] bool we stopped watching: the successor still has a value
    final_obs: Obs  # [N, *O] true successor of the action; the same as obs where not done


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments under one policy. Names never rebind; the collector fills the tensors in place."""

    obs: Obs  # [T, N, *O] s_t, normalized if the run normalizes
    action: Tensor  # [T, N, *A] a_t as sampled, before any clipping to the action space
    log_prob: Tensor  # [T, N] log pi_old(a_t | s_t)
    value: Tensor  # [T, N] V(s_t)
    next_value: Tensor  # [T, N] V of the true successor, never of an auto-reset state; 0 where terminated
    reward: Tensor  # [T, N] r_{t+1}, as the environment paid it (over the running return scale if normalized)
    terminated: Tensor  # [T, N] bool
    truncated: Tensor  # [T, N] bool
    valid: Tensor  # [T, N] bool False on dead auto-reset steps and padding; those are excluded from every mean
    policy: Distribution  # [T, N] pi_old(. | s_t), for the exact KL

    @property
    def done(self) -> Tensor:
        """[T, N] bool, True where the sum over an episode's rewards stops."""
        return self.terminated | self.truncated


@dataclass(frozen=True)
class Batch:
    """Training samples of one update, or a part of them."""

    obs: Obs  # [B, *O]
    action: Tensor  # [B, *A]
    log_prob: Tensor  # [B] under the policy that acted
    value: Tensor  # [B] the old critic's estimate
    advantage: Tensor  # [B]
    value_target: Tensor  # [B]
    valid: Tensor  # [B] bool
    policy: Distribution  # [B] the policy that acted


def training_batch(rollout: Rollout, advantage: Tensor) -> Batch:
    """The rollout's transitions as one batch of B = T * N samples; ``advantage`` [T, N].

    The critic's target is advantage + value: the lambda-return when the advantage is GAE.
    """
    batch = Batch(
        rollout.obs,
        rollout.action,
        rollout.log_prob,
        rollout.value,
        advantage,
        advantage + rollout.value,
        rollout.valid,
        rollout.policy,
    )
    return map_tensors(lambda x: x.flatten(0, 1), batch)


def take(batch: Batch, index: Tensor) -> Batch:
    """The samples at ``index`` [b]."""
    return map_tensors(lambda x: x[index], batch)


Tree = TypeVar("Tree")


def take_rows(obs: Obs, rows: Tensor, device: torch.device) -> Obs:
    """The observations at ``rows`` [b], on ``device``."""
    return map_tensors(lambda x: x[rows.to(x.device)].to(device), obs)


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply ``function`` to every tensor of a tensor, a dict or a dataclass, keeping the structure."""
    if isinstance(tree, Tensor):
        return function(tree)  # type: ignore[return-value]
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}  # type: ignore[return-value]
    if is_dataclass(tree) and not isinstance(tree, type):
        parts: dict[str, Any] = {f.name: map_tensors(function, getattr(tree, f.name)) for f in fields(tree)}
        return type(tree)(**parts)
    raise TypeError(f"expected a tensor, a dict or a dataclass of tensors, got {type(tree).__name__}")


def write_row(storage: Any, t: int, row: Any) -> None:  # noqa: ANN401 (any tree of tensors)
    """Copy ``row`` into ``storage[t]``, tensor by tensor; both have the same structure."""
    if isinstance(storage, Tensor):
        storage[t].copy_(row)
    elif isinstance(storage, dict):
        for key, value in storage.items():
            write_row(value, t, row[key])
    else:
        for f in fields(storage):
            write_row(getattr(storage, f.name), t, getattr(row, f.name))


def legal_actions(obs: Obs) -> Tensor | None:
    """The action mask that travels with the observation, [..., A] bool, or None where every action is always legal."""
    return obs.get("legal") if isinstance(obs, dict) else None


def num_rows(obs: Obs) -> int:
    """Length of the leading dimension."""
    return len(next(iter(obs.values())) if isinstance(obs, dict) else obs)


def mean_metrics(collected: list[Metrics]) -> Metrics:
    """Tag by tag mean; every element has the same tags. Empty where nothing was collected."""
    if not collected:
        return {}
    rows = torch.stack([torch.stack(list(metrics.values())) for metrics in collected])
    return dict(zip(collected[0], rows.mean(dim=0).unbind(), strict=True))
