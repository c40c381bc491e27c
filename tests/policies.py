"""Small policies of every kind, with weights that nobody trained, and their descriptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from ppo_cli.export import tensors_of
from ppo_cli.networks.board import Board
from ppo_cli.networks.conv import Conv
from ppo_cli.networks.mlp import MLP
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.spaces import space_to_json

VECTOR = spaces.Box(-np.inf, np.inf, (4,), np.float32)
MASKED = spaces.Dict(obs=VECTOR, legal=spaces.MultiBinary(3))
IMAGE = spaces.Box(0, 255, (9, 8, 3), np.uint8)
CELLS = spaces.Dict(board=spaces.Box(-2, 8, (4, 5), np.int8), legal=spaces.MultiBinary(20))
THREE = spaces.Discrete(3)
TWO_AXES = spaces.Box(-1, 1, (2,), np.float32)
HALF_BOUNDED = spaces.Box(np.array([-3, 0], np.float32), np.array([5, np.inf], np.float32))

KINDS: dict[str, tuple[type[nn.Module], dict[str, Any], Any, Any, Any]] = {
    "mlp": (MLP, {"hidden": [8], "activation": "relu"}, VECTOR, THREE, None),
    "mlp_masked": (MLP, {"hidden": [8, 4], "shared": True}, MASKED, THREE, spaces.Discrete(3, start=5)),
    "mlp_box": (MLP, {"hidden": [8]}, VECTOR, TWO_AXES, HALF_BOUNDED),
    "mlp_choices": (
        MLP,
        {"hidden": [8]},
        VECTOR,
        spaces.MultiDiscrete([2, 5, 3, 1]),
        spaces.MultiDiscrete([[2, 5], [3, 1]], start=[[0, -4], [7, 2]]),
    ),
    "mlp_bits": (MLP, {"hidden": [8]}, VECTOR, spaces.MultiDiscrete([2, 2]), None),
    "conv": (Conv, {"features": 16}, IMAGE, THREE, None),
    "board": (Board, {"channels": 8, "num_layers": 2}, CELLS, spaces.Discrete(20), None),
    "board_plain": (
        Board,
        {"channels": 9, "num_layers": 3, "residual": True, "symmetric": False, "pooling": "mean_max"},
        CELLS,
        spaces.Discrete(20),
        None,
    ),
}
"""Network, its settings, and the spaces of observations, of the policy's actions and of the environment's."""


def made(kind: str) -> tuple[dict[str, Any], bytes, nn.Module, ObsNormalizer]:
    """Description, tensors, and the network and normalizer that they came from; vectors are normalized."""
    make, settings, obs, action, env_action = KINDS[kind]
    torch.manual_seed(3)
    network = make(obs, action, **settings)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)  # no longer nearly uniform
    normalizer = ObsNormalizer((4,) if "mlp" in kind else (), enabled="mlp" in kind)
    rows = 5 * torch.randn(50, 4) + 3
    normalizer.update({"obs": rows} if isinstance(obs, spaces.Dict) else rows, torch.ones(50).bool())
    description = {
        "format": 1,
        "network": {"class": make.__name__, "settings": settings},
        "observation_space": space_to_json(obs),
        "action_space": space_to_json(action),
        "env_action_space": None if env_action is None else space_to_json(env_action),
    }
    return description, tensors_of(network, normalizer), network, normalizer
