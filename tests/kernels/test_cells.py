from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.kernels.cells import cells_gradient, read_cells


def bits(x: Tensor) -> NDArray[np.uint16]:
    return x.view(torch.uint16).numpy()


@pytest.mark.parametrize("size", [(1, 1, 1, 16), (6, 4, 5, 16), (3, 9, 9, 64)])
def test_what_the_heads_read_is_a_product_and_a_sum_and_has_their_gradient(size: tuple[int, int, int, int]) -> None:
    generator = torch.Generator().manual_seed(sum(size))
    boards, height, width, channels = size
    cells = torch.randn(size, generator=generator).bfloat16()
    weight = torch.randn(channels, generator=generator)
    scores, sums = torch.empty(boards, height * width), torch.full((boards, channels), 7.0)
    read_cells(bits(cells), weight.numpy(), scores.numpy(), sums.numpy())
    leaves = [cells.double().requires_grad_(), weight.double().requires_grad_()]
    flat = leaves[0].flatten(1, 2)
    expected = flat @ leaves[1], flat.sum(dim=1)
    for ours, theirs in zip((scores, sums), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4)
    given = [torch.randn(x.shape, generator=generator) for x in expected]
    before = torch.randn(size, generator=generator).bfloat16()
    gradient, of_weight = before.clone(), torch.ones(channels)
    arrays = [each.numpy() for each in (weight, *given)]
    cells_gradient(bits(cells), *arrays, bits(gradient), of_weight.numpy())
    of_cells, truth = torch.autograd.grad(expected, leaves, [each.double() for each in given])
    torch.testing.assert_close(gradient.double(), before.double() + of_cells, rtol=2**-8, atol=1e-5)
    torch.testing.assert_close(of_weight.double(), 1 + truth, rtol=1e-5, atol=1e-4)
