from __future__ import annotations

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.kernels.tiles import ONE_WAY
from ppo_cli.kernels.winograd import (
    cells_to_pairs,
    cells_to_points,
    convolution_gradient,
    convolve,
    kernels_to_points,
    points_to_cells,
    points_to_results,
    results_to_points,
)

POINTS = [1 / 2, -1 / 2, 3 / 2, -3 / 2]
"""And infinity."""


def polynomial(roots: list[float]) -> list[float]:
    """Coefficients of the product of (x - root), from the constant term on."""
    return [*np.poly(roots)[::-1], 0, 0, 0, 0, 0][:5]  # type: ignore[no-any-return]


FROM_CELLS = torch.tensor(
    [polynomial([other for other in POINTS if other != point]) for point in POINTS] + [polynomial(POINTS)],
    dtype=torch.float64,
)
"""B^T: for each point the polynomial that vanishes at the others."""

FROM_RESULTS = torch.tensor([[1, point, point**2] for point in POINTS] + [[0, 0, 1]], dtype=torch.float64)
"""A: the powers of each point."""

FROM_KERNELS = torch.from_numpy(ONE_WAY).double()
"""G."""

SIZES = [(1, 1, 1, 16), (2, 3, 3, 16), (2, 5, 7, 48), (3, 9, 9, 32)]
"""Boards, rows, columns, channels."""


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


def at_points(tiles: Tensor, matrix: Tensor) -> Tensor:
    """matrix d matrix^T of every tile, [25, N * tiles, C]."""
    points = matrix @ tiles @ matrix.T
    return points.permute(4, 5, 0, 1, 2, 3).reshape(25, -1, points.shape[3]).contiguous()


def in_pairs(x: Tensor) -> NDArray[np.uint32]:
    """[..., rows, C] -> [..., half the rows, C], the first row of two in the lower half of each number."""
    even, odd = (x[..., side::2, :].contiguous().view(torch.uint16).numpy().astype(np.uint32) for side in range(2))
    return even | odd << 16


def of_boards_in_pairs(points: Tensor, boards: int) -> Tensor:
    """[25, N * tiles, C] with the same tile of two boards side by side, an empty board behind an odd number."""
    _, rows, channels = points.shape
    padded = torch.zeros(25, boards + boards % 2, rows // boards, channels, dtype=points.dtype)
    padded[:, :boards] = points.view(25, boards, -1, channels)
    return padded.unflatten(1, (-1, 2)).transpose(2, 3).reshape(25, -1, channels).contiguous()


def test_the_matrices_make_products_a_convolution() -> None:
    """y = A^T [(G w) * (B^T d)] is what the three weights make of five cells."""
    generator = torch.Generator().manual_seed(0)
    cells, kernel = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (5, 3))
    found = FROM_RESULTS.T @ ((FROM_KERNELS @ kernel) * (FROM_CELLS @ cells))
    torch.testing.assert_close(found, cells.unfold(0, 3, 1) @ kernel, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_cells_become_points_by_the_matrix_rounded_once(size: tuple[int, int, int, int]) -> None:
    cells = integers(*size)
    expected = at_points(padded(cells, 1, 5)[0], FROM_CELLS).bfloat16()
    found = torch.empty_like(expected)
    cells_to_points(bits(cells), bits(found))
    assert torch.equal(found, expected)
    expected_pairs = in_pairs(of_boards_in_pairs(expected, size[0]))
    found_pairs = np.empty_like(expected_pairs)
    cells_to_pairs(bits(cells), found_pairs)
    assert np.array_equal(found_pairs, expected_pairs)


@pytest.mark.parametrize("size", SIZES)
def test_results_become_points_and_their_sum(size: tuple[int, int, int, int]) -> None:
    results, active = integers(*size), integers(*reversed(size)).reshape(size)
    kept = results * (active > 0)
    expected = of_boards_in_pairs(at_points(padded(kept, 0, 3)[0], FROM_RESULTS).bfloat16(), size[0])
    found, pairs, total = torch.empty_like(expected), np.empty_like(in_pairs(expected)), torch.ones(size[3])
    results_to_points(bits(results), bits(active), pairs, bits(found), total.numpy())
    assert torch.equal(found, expected)
    assert np.array_equal(pairs, in_pairs(expected))
    assert torch.equal(total, 1 + kept.float().sum(dim=(0, 1, 2)))


@pytest.mark.parametrize("size", SIZES)
def test_points_become_cells_by_the_transpose_of_what_made_them(size: tuple[int, int, int, int]) -> None:
    """<B^T d B, v> = <d, B v B^T> for every board d: the gradient of the sum of all products."""
    cells = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    tiles, rows, columns = padded(cells, 1, 5)
    given = integers(25, size[0] * rows * columns, size[3]).float()
    (expected,) = torch.autograd.grad((at_points(tiles, FROM_CELLS) * given.double()).sum(), cells)
    found = torch.empty(size, dtype=torch.bfloat16)
    points_to_cells(of_boards_in_pairs(given, size[0]).numpy(), bits(found))
    assert torch.equal(found, expected.bfloat16())


@pytest.mark.parametrize("is_added_to", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_points_become_results_behind_a_relu(size: tuple[int, int, int, int], is_added_to: bool) -> None:
    boards, height, width, channels = size
    rows, columns = -(-height // 3), -(-width // 3)
    points = integers(25, boards * rows * columns, channels).float()
    squares = FROM_RESULTS.T @ points.double().view(5, 5, -1).permute(2, 0, 1) @ FROM_RESULTS
    board = squares.view(boards, rows, columns, channels, 3, 3).permute(0, 1, 4, 2, 5, 3)
    board = board.reshape(boards, 3 * rows, 3 * columns, channels)[:, :height, :width]
    bias, added = integers(channels).float(), integers(*size) if is_added_to else integers(*size)[:0]
    expected = (board + bias.double() + (added.double() if is_added_to else 0)).relu().bfloat16()
    found = torch.empty(size, dtype=torch.bfloat16)
    points_to_results(points.numpy(), bias.numpy(), bits(added), bits(found))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("channels", [(2, 16), (32, 48)])
def test_kernels_become_points_by_the_matrix(channels: tuple[int, int]) -> None:
    kernels = torch.randn(3, 3, *channels, generator=torch.Generator().manual_seed(1))
    exact = (
        (FROM_KERNELS @ kernels.double().permute(2, 3, 0, 1) @ FROM_KERNELS.T)
        .permute(2, 3, 0, 1)
        .reshape(25, *channels)
    )
    found = np.empty((25, channels[0] // 2, channels[1]), np.uint32)
    kernels_to_points(kernels.numpy(), found)
    even, odd = (torch.from_numpy((found << shift & 0xFFFF0000).view(np.float32)) for shift in (16, 0))
    torch.testing.assert_close(torch.stack([even, odd], 2).flatten(1, 2).double(), exact, rtol=2**-8, atol=1e-6)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def pairs_of(weight: Tensor, order: tuple[int, ...]) -> NDArray[np.uint32]:
    kernels = weight.permute(order).contiguous()
    result = np.empty((25, kernels.shape[2] // 2, kernels.shape[3]), np.uint32)
    kernels_to_points(kernels.numpy(), result)
    return result


def convolved(cells: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """By the library, in double precision."""
    return torch.nn.functional.conv2d(cells.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("channels", [(32, 48), (48, 32)])
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 3, 3), (2, 5, 7), (3, 16, 8), (19, 5, 7)])
def test_the_convolution_is_the_librarys_to_bfloat16(size: tuple[int, int, int], channels: tuple[int, int]) -> None:
    inputs, outputs = channels
    cells, added, bias = random(*size, inputs), random(*size, outputs), random(outputs).float()
    weight = torch.randn(outputs, inputs, 3, 3, generator=torch.Generator().manual_seed(0))
    found = torch.empty(*size, outputs, dtype=torch.bfloat16)
    convolve(bits(cells), pairs_of(weight, (2, 3, 1, 0)), bias.numpy(), bits(added), bits(found))
    expected = (convolved(cells.double(), weight.double(), bias.double()) + added.double()).relu()
    assert (found.double() - expected).norm() <= 0.01 * expected.norm()


@pytest.mark.parametrize("channels", [(32, 48), (48, 32)])
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 3, 3), (2, 5, 7), (3, 16, 8), (19, 5, 7)])
def test_its_gradient_is_the_librarys_to_bfloat16(size: tuple[int, int, int], channels: tuple[int, int]) -> None:
    inputs, outputs = channels
    cells, given, active = (
        random(*size, inputs),
        random(*size, outputs),
        random(*reversed(size), outputs).view(*size, -1),
    )
    active[..., 3] = -0.0
    weight = torch.randn(outputs, inputs, 3, 3, generator=torch.Generator().manual_seed(0))
    of_cells, products, of_bias = torch.empty_like(cells), torch.zeros(25, inputs, outputs), torch.zeros(outputs)
    turned = pairs_of(weight, (2, 3, 0, 1))
    arrays = of_cells.view(torch.uint16).numpy(), products.numpy(), of_bias.numpy()
    convolution_gradient(bits(cells), bits(given), bits(active), turned, *arrays)
    of_weight = (FROM_KERNELS.T @ products.double().view(5, 5, -1).permute(2, 0, 1) @ FROM_KERNELS).view(
        inputs, outputs, 3, 3
    )
    leaves = [x.double().requires_grad_() for x in (cells, weight, torch.zeros(outputs))]
    expected = torch.autograd.grad(convolved(*leaves), leaves, given.double() * (active > 0))
    for found, truth in zip((of_cells, of_weight.transpose(0, 1), of_bias), expected, strict=True):
        assert (found.double() - truth).norm() <= 0.015 * truth.norm()
    assert of_bias[3] == of_weight[:, 3].abs().sum() == 0.0


def test_what_is_not_a_number_stays_so() -> None:
    cells, found = torch.full((1, 3, 3, 16), float("nan")).bfloat16(), torch.zeros(1, 3, 3, 16, dtype=torch.bfloat16)
    kernels = pairs_of(torch.ones(16, 16, 3, 3), (2, 3, 1, 0))
    convolve(bits(cells), kernels, np.zeros(16, np.float32), bits(cells[:0]), bits(found))
    assert found.isnan().all()


def test_memory_with_gaps_between_channels_is_refused() -> None:
    cells, points = np.zeros((1, 3, 3, 16), np.uint16), np.zeros((25, 1, 32), np.uint16)
    with pytest.raises(TypingError, match="contiguous"):
        cells_to_points(cells, points[:, :, ::2])
