from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from ppo_cli import optimizers

SETTINGS: list[tuple[Any, Any, dict[str, Any]]] = [
    (optimizers.AdamW, torch.optim.AdamW, {"lr": 1e-2, "eps": 1e-5, "weight_decay": 0.1, "fused": True}),
    (optimizers.RMSprop, torch.optim.RMSprop, {"lr": 1e-2, "eps": 1e-5, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("ours", "torchs", "settings"), SETTINGS)
def test_the_steps_are_torchs_to_the_bit_and_the_state_is_exchanged(
    ours: Any,
    torchs: Any,
    settings: dict[str, Any],
) -> None:
    torch.manual_seed(1)
    network, x = nn.Linear(5, 3), torch.randn(7, 5)
    twin = copy.deepcopy(network)
    one, other = ours(network.parameters(), **settings), torchs(twin.parameters(), **settings)
    for step in range(6):
        for net, optimizer in ((network, one), (twin, other)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        assert torch.equal(network.weight, twin.weight)
        if step == 2:
            one.load_state_dict(copy.deepcopy(other.state_dict()))


def test_a_step_does_not_import_the_compiler() -> None:
    script = """
import sys, torch
from ppo_cli import optimizers
weight = torch.nn.Parameter(torch.ones(3))
for kind in (optimizers.AdamW, optimizers.RMSprop):
    optimizer = kind([weight])
    weight.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
