"""Fully convolutional network for boards: one logit per cell, so that it plays a board of any size."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.distributions import Categorical
from ppo_cli.networks.base import HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN, mlp, observed, orthogonal
from ppo_cli.settings import Range
from ppo_cli.types import Distribution, Obs, legal_actions
