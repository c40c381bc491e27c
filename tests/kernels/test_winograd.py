from __future__ import annotations

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.kernels.winograd import cells_to_points, points_to_cells, results_to_points

FROM_CELLS = torch.tensor(
    [[2, -1, -2, 1, 0], [0, -2, -1, 1, 0], [0, 2, -3, 1, 0], [0, -1, 0, 1, 0], [0, 2, -1, -2, 1]], dtype=torch.float64
)
"""B^T."""

FROM_RESULTS = torch.tensor([[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [0, 0, 1]], dtype=torch.float64)
"""A."""

SIZES = [(1, 1, 1, 1), (2, 3, 3, 16), (2, 5, 7, 33), (3, 9, 9, 40)]
"""Boards, rows, columns, channels: whole vectors, and what is left of one."""


def integers(*shape: int) -> Tensor:
    """Small enough for every sum to be exact in float32, so that only the last rounding is left."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def bits(x: Tensor) -> NDArray[np.uint16]:
    return x.view(torch.uint16).numpy()


def padded(x: Tensor, before: int, size: int) -> tuple[Tensor, int, int]:
    """Boards [N, H, W, C] in zeros, cut into tiles of ``size`` cells [N, down, across, C, size, size]."""
    _, height, width, _ = x.shape
    rows, columns = -(-height // 3), -(-width // 3)
    after = (3 * rows + 2 * before - before - height, 3 * columns + 2 * before - before - width)
    full = torch.nn.functional.pad(x.double(), (0, 0, before, after[1], before, after[0]))
    return full.unfold(1, size, 3).unfold(2, size, 3), rows, columns


def of_points(tiles: Tensor, matrix: Tensor) -> Tensor:
    """matrix d matrix^T of every tile, [25, N * tiles, C]."""
    points = matrix @ tiles @ matrix.T
    return points.permute(4, 5, 0, 1, 2, 3).reshape(25, -1, points.shape[3]).contiguous()


@pytest.mark.parametrize("size", SIZES)
def test_cells_become_points_by_the_matrix_of_the_paper_rounded_once(size: tuple[int, int, int, int]) -> None:
    cells = integers(*size)
    tiles, _, _ = padded(cells, 1, 5)
    expected = of_points(tiles, FROM_CELLS).bfloat16()
    found = torch.empty_like(expected)
    cells_to_points(bits(cells), bits(found))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("is_rectified", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_results_become_points_and_their_sum(size: tuple[int, int, int, int], is_rectified: bool) -> None:
    results = integers(*size)
    active = integers(*reversed(size)).reshape(size) if is_rectified else results[:0]
    kept = results * (active > 0) if is_rectified else results
    tiles, _, _ = padded(kept, 0, 3)
    expected = of_points(tiles, FROM_RESULTS).bfloat16()
    found, total = torch.empty_like(expected), torch.ones(size[3])
    results_to_points(bits(results), bits(active), bits(found), total.numpy())
    assert torch.equal(found, expected)
    assert torch.equal(total, 1 + kept.float().sum(dim=(0, 1, 2)))


@pytest.mark.parametrize("size", SIZES)
def test_points_become_cells_by_the_transpose_of_what_made_them(size: tuple[int, int, int, int]) -> None:
    """<B^T d B, v> = <d, B v B^T> for every board d: the gradient of the sum of all products."""
    cells = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    tiles, rows, columns = padded(cells, 1, 5)
    points = of_points(tiles, FROM_CELLS)
    given = integers(25, size[0] * rows * columns, size[3])
    (expected,) = torch.autograd.grad((points * given.double()).sum(), cells)
    found = torch.empty(size, dtype=torch.bfloat16)
    points_to_cells(bits(given), bits(found))
    assert torch.equal(found, expected.bfloat16())


def test_memory_with_gaps_between_channels_is_refused() -> None:
    cells, points = np.zeros((1, 3, 3, 8), np.uint16), np.zeros((25, 1, 16), np.uint16)
    with pytest.raises(TypingError, match="contiguous"):
        cells_to_points(cells, points[:, :, ::2])
