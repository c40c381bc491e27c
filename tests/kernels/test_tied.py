from __future__ import annotations

import numpy as np
import pytest
import torch

from ppo_cli.fused.board_weights import copies_of
from ppo_cli.kernels.tied import BOTH_WAYS, from_points, gather_weights, spread_weights
from ppo_cli.networks.board import Convolution
from ppo_cli.networks.symmetric import SymmetricConv

LAYERS = {
    "plain": lambda: Convolution(16, 24),
    "planes": lambda: Convolution(12, 24),
    "symmetric": lambda: SymmetricConv(16, 24, 1.0, lifts=False),
    "symmetric planes": lambda: SymmetricConv(12, 24, 1.0, lifts=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_spread_as_the_layer_spreads_them(name: str) -> None:
    layer = LAYERS[name]()
    stored, (full, _) = layer.weight.detach(), layer.weights()
    rows = full.detach().permute(2, 3, 1, 0).reshape(9, -1, 24).numpy()
    spread = np.full((9, rows.shape[1] + 1, 32), 7.0, np.float32)
    spread_weights(stored.reshape(len(stored), -1).numpy(), copies_of(layer), spread)
    assert np.array_equal(spread[:, :-1, :24], rows)
    assert (spread[:, -1] == 7.0).all(), "an input that the layer does not have"
    assert (spread[..., 24:] == 7.0).all(), "channels that it does not have"


@pytest.mark.parametrize("name", LAYERS)
def test_gathering_is_autograds_backward_of_spreading(name: str) -> None:
    layer = LAYERS[name]()
    full, _ = layer.weights()
    given = torch.randn(full.shape, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad((full * given).sum(), layer.weight)
    gradient = np.ones((len(layer.weight), expected[0].numel()), np.float32)
    spread = np.ascontiguousarray(given.permute(2, 3, 1, 0).reshape(9, -1, 24).numpy())
    gather_weights(spread, copies_of(layer), gradient)
    assert np.allclose(gradient - 1, expected.reshape(len(gradient), -1).numpy(), atol=1e-5)


def test_gradients_come_back_from_the_points_by_the_transposed_matrix() -> None:
    products = np.random.default_rng(1).standard_normal((25, 48), np.float32)
    spread = np.ones((9, 48), np.float32)
    from_points(products, spread)
    assert np.allclose(spread, BOTH_WAYS.T @ products, atol=1e-4)
