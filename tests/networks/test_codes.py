from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ppo_cli.networks.codes import NUM_PLANES, convolve_board, planes


def made(boards: int, height: int, width: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boards of every code, a hit mine among them, and weights."""
    torch.manual_seed(boards + height)
    board = torch.randint(-2, 9, (boards, height, width), dtype=torch.int8)
    return board, torch.randn(channels, NUM_PLANES, 3, 3) / 10, torch.randn(channels)


def exact(board: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(planes(board).double(), weight.double(), bias.double(), padding=1).relu()


SIZES = [(1, 1, 1, 8), (3, 1, 5, 7), (2, 5, 5, 64), (4, 16, 8, 33)]


@pytest.mark.parametrize("size", SIZES)
def test_rows_of_a_table_add_up_to_the_convolution_of_the_planes(size: tuple[int, int, int, int]) -> None:
    board, weight, bias = made(*size)
    with torch.autocast("cpu", torch.bfloat16):
        found = convolve_board(board, weight, bias)
    expected = exact(board, weight, bias)
    assert found.shape == expected.shape
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_their_gradient_is_the_convolutions(size: tuple[int, int, int, int]) -> None:
    board, weight, bias = made(*size)
    leaves = [weight.requires_grad_(), bias.requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        found = convolve_board(board, weight, bias)
    given = torch.randn_like(found)
    expected = exact(board, weight, bias)
    clear = (expected == 0) == (found == 0)  # not where rounding decides which side of the ReLU a result is on
    ours = torch.autograd.grad(found, leaves, given * clear)
    theirs = torch.autograd.grad(expected, leaves, given.double() * clear)
    for gradient, truth in zip(ours, theirs, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, truth, rtol=1e-4, atol=1e-4)


def test_boards_far_apart_in_memory_are_the_same_boards() -> None:
    board, weight, bias = made(3, 4, 6, 16)
    turned = board.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolve_board(turned, weight, bias), convolve_board(board, weight, bias))


def test_acting_and_learning_compute_the_same_policy() -> None:
    board, weight, bias = made(5, 9, 9, 64)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            acted = convolve_board(board, weight, bias)
        assert torch.equal(convolve_board(board, weight.requires_grad_(), bias), acted)


@pytest.mark.parametrize("may_shorten", [False, True])
def test_in_float32_and_in_runs_too_short_to_compile_the_library_convolves(may_shorten: bool) -> None:
    board, weight, bias = made(2, 5, 5, 16)
    in_float32 = convolve_board(board, weight.requires_grad_(), bias, may_shorten=may_shorten)
    torch.testing.assert_close(in_float32.double(), exact(board, weight, bias), rtol=1e-5, atol=1e-5)
    assert "TableSum" not in type(in_float32.grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        name = type(convolve_board(board, weight, bias, may_shorten=may_shorten).grad_fn).__name__
    assert ("TableSum" in name) == may_shorten
