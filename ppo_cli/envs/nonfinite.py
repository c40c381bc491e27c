"""Steps with NaN or infinity in them: which environments they come from, and the same steps without them."""

from __future__ import annotations

import torch
from torch import Tensor

from ppo_cli.types import Obs, Step


def nonfinite_rows(step: Step) -> Tensor:
    """[N] bool, True where a number that something would be learnt from is none.

    What an episode terminated on is never looked at.
    """
    successor = rows_with_nonfinite(step.final_obs) & ~step.terminated
    return ~step.reward.isfinite() | rows_with_nonfinite(step.obs) | successor


def rows_with_nonfinite(obs: Obs) -> Tensor:
    """[N] bool of observations [N, *O]."""
    values = obs["obs"] if isinstance(obs, dict) else obs
    return ~values.isfinite().flatten(1).all(dim=1)


def describe(step: Step, row: int) -> str:
    """What number environment ``row`` gave, as a clause."""
    for name, obs in (("a reward", step.reward), ("an observation", step.obs), ("an observation", step.final_obs)):
        values = (obs["obs"] if isinstance(obs, dict) else obs)[row].flatten()
        if not (finite := values.isfinite()).all():
            return f"gave {name} of {values[~finite][0].item()}"
    raise ValueError(f"every number of environment {row} is finite")


def voided(step: Step, rows: Tensor, obs: Obs) -> Step:
    """The step with those of ``rows`` [N] undone: nothing paid, nothing ended; ``obs`` begins fresh episodes there."""
    obs = replaced(rows, obs, step.obs)
    final_obs = obs if step.final_obs is step.obs else replaced(rows, obs, step.final_obs)
    return Step(obs, step.reward.masked_fill(rows, 0.0), step.terminated & ~rows, step.truncated & ~rows, final_obs)


def replaced(rows: Tensor, obs: Obs, old: Obs) -> Obs:
    """``obs`` where ``rows`` [N], otherwise ``old``."""
    if isinstance(obs, dict) and isinstance(old, dict):
        return {key: replaced(rows, obs[key], old[key]) for key in obs}  # type: ignore[misc]
    assert isinstance(obs, Tensor) and isinstance(old, Tensor)
    return torch.where(rows.view(-1, *[1] * (obs.dim() - 1)), obs, old)
