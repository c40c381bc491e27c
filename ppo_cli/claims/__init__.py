"""What the literature says about these algorithms, checked: a module for each claim, an experiment of the same name."""

from __future__ import annotations

from typing import Literal

ClaimName = Literal[
    "advantage_variance",
    "policy_collapse",
    "trust_region",
    "trpo_cost",
    "clip",
    "sample_reuse",
    "entropy",
    "gae_lambda",
    "diverse",
]
