from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.kernels.codes import codes_gradient, convolve_codes
from ppo_cli.networks.codes import planes
from ppo_cli.networks.trunk import of_table, table_of

SIZES = [(1, 1, 1, 16), (3, 1, 5, 16), (2, 5, 5, 64), (4, 16, 8, 48)]
"""Boards, rows, columns, channels."""


def bits(x: Tensor) -> NDArray[np.uint16]:
    return x.view(torch.uint16).numpy()


@pytest.mark.parametrize("size", SIZES)
def test_rows_of_a_table_add_up_to_the_convolution_of_the_planes_and_have_its_gradient(
    size: tuple[int, int, int, int],
) -> None:
    """Boards of every code, a hit mine among them."""
    generator = torch.Generator().manual_seed(sum(size))
    board = torch.randint(-2, 9, size[:3], dtype=torch.int8, generator=generator)
    weight = torch.randn(size[3], 12, 3, 3, generator=generator) / 10
    bias = torch.randn(size[3], generator=generator)
    table, shares = table_of(weight)
    found = torch.empty(size, dtype=torch.bfloat16)
    convolve_codes(board.numpy(), table.numpy(), shares.numpy(), bias.numpy(), bits(found))
    leaves = [weight.double().requires_grad_(), bias.double().requires_grad_()]
    expected = torch.nn.functional.conv2d(planes(board).double(), *leaves, padding=1).relu().permute(0, 2, 3, 1)
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5)

    given = torch.randn(size, generator=generator).bfloat16()
    of_rows, of_shares = torch.zeros_like(table), torch.zeros_like(shares)
    codes_gradient(board.numpy(), bits(given), bits(found), of_rows.numpy(), of_shares.numpy())
    truths = torch.autograd.grad(expected, leaves, given.double() * (found > 0))
    for ours, theirs in zip(of_table(of_rows, of_shares), truths, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
