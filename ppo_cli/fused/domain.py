"""What the fused path covers, and whether it is ready to run."""

from __future__ import annotations

from pathlib import Path

import torch
from gymnasium import spaces
from llvmlite import binding
from torch import nn

from ppo_cli.accelerate import Accelerator
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.envs.base import VecEnv
from ppo_cli.kernels.compiled import cache_folder, is_kept, sources_stamp
from ppo_cli.networks.board import Board
from ppo_cli.networks.mlp import MLP
from ppo_cli.networks.trunk import MIN_CHANNELS

COMPILING_PAYS = 500_000
"""Samples that a run must learn from, epochs counted, before half a minute of compiling is won back."""


def reason_against(actor_critic: nn.Module, env: VecEnv, accelerator: Accelerator) -> str | None:
    """Why the kernels cannot act for this network in this environment, or None."""
    if type(actor_critic) is not MLP:
        return f"the network is {type(actor_critic).__name__}"
    if isinstance(env.single_action_space, spaces.MultiDiscrete):
        return "an action is several choices"
    if not isinstance(env.single_observation_space, spaces.Box):
        return "the observations carry an action mask"
    if accelerator.device.type != "cpu" or accelerator.precision != "float32":
        return f"the run is on {accelerator.device} in {accelerator.precision}"
    return None


def reason_against_boards(
    network: Board, accelerator: Accelerator, algorithm: Algorithm, optimizer: torch.optim.Optimizer
) -> str | None:
    """Why the kernels cannot learn for this board network, or None."""
    if not can_update(algorithm, optimizer):
        return f"the update is {type(algorithm).__name__}'s with {type(optimizer).__name__}"
    if network.channels < MIN_CHANNELS:
        return f"the network has {network.channels} channels"
    if accelerator.device.type != "cpu" or accelerator.precision != "bfloat16":
        return f"the run is on {accelerator.device} in {accelerator.precision}"
    return None


def can_update(algorithm: Algorithm, optimizer: torch.optim.Optimizer) -> bool:
    """Whether the whole update is a kernel too."""
    return type(algorithm) is PPO and isinstance(optimizer, torch.optim.AdamW)


def marker(env: VecEnv, algorithm: Algorithm) -> Path:
    """A file that says: this machine's processor has run such a run's kernels, their machine code lies beside it."""
    kind = f"{binding.get_host_cpu_name()}-{type(env).__name__}-{type(algorithm).__name__}"
    return cache_folder() / f"{kind}-{sources_stamp()}.ready"


def is_ready(env: VecEnv, algorithm: Algorithm) -> bool:
    """Whether the kernels of such a run start without being compiled."""
    return marker(env, algorithm).exists()


def note_ready(env: VecEnv, algorithm: Algorithm) -> None:
    """Remember that they were compiled. A cache that cannot be written stays empty."""
    if is_kept():
        marker(env, algorithm).touch()
