from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ppo_cli.networks.convolution import GROUP, convolution_gradient, convolve


def exact(x: Tensor, weight: Tensor, gradient: Tensor, active: Tensor | None = None) -> tuple[Tensor, ...]:
    leaves = [tensor.double().requires_grad_() for tensor in (x, weight, torch.zeros(len(weight)))]
    result = functional.conv2d(*leaves, padding=1)
    return torch.autograd.grad(result, leaves, gradient.double() * (1 if active is None else active > 0))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 7), (9, 9), (16, 8)])
@pytest.mark.parametrize("boards", [1, GROUP, GROUP + 5])
def test_the_gradient_is_the_convolutions_to_bfloat16(size: tuple[int, int], boards: int) -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(boards, 32, *size).bfloat16(), torch.randn(48, 32, 3, 3).bfloat16()
    gradient = torch.randn(boards, 48, *size).bfloat16()
    for found, expected in zip(convolution_gradient(x, weight, gradient), exact(x, weight, gradient), strict=True):
        assert found.shape == expected.shape
        assert (found.double() - expected).norm() <= 0.03 * expected.norm()


@pytest.mark.parametrize("boards", [1, GROUP + 5])
def test_behind_a_relu_only_what_is_positive_has_a_gradient(boards: int) -> None:
    torch.manual_seed(1)
    x, weight = torch.randn(boards, 32, 5, 7).bfloat16(), torch.randn(48, 32, 3, 3).bfloat16()
    gradient, result = (torch.randn(boards, 48, 5, 7).bfloat16() for _ in range(2))
    result = result.relu().index_fill_(1, torch.tensor([3]), -0.0)
    found = convolution_gradient(x, weight, gradient, result)
    for ours, expected in zip(found, exact(x, weight, gradient, result), strict=True):
        assert (ours.double() - expected).norm() <= 0.03 * expected.norm()
    assert found[1][3].abs().sum() == found[2][3] == 0.0


def test_a_gradient_stops_at_the_border() -> None:
    """One cell's gradient reaches its nine neighbours with the kernel's weights, and nothing beyond the board."""
    x, weight = torch.zeros(1, 32, 5, 5), torch.zeros(32, 32, 3, 3)
    weight[0, 0] = torch.tensor([[8.0, 0.0, 0.0], [0.0, -16.0, 0.0], [0.0, 0.0, 4.0]])
    for row, column in ((0, 0), (2, 3), (4, 4)):
        gradient = torch.zeros(1, 32, 5, 5)
        gradient[0, 0, row, column] = 1.0
        of_x, _, of_bias = convolution_gradient(x.bfloat16(), weight.bfloat16(), gradient.bfloat16())
        expected, _, _ = exact(x, weight, gradient)
        torch.testing.assert_close(of_x.double(), expected, rtol=0, atol=0.25)
        assert of_bias[0] == 1.0
        assert of_bias[1:].abs().sum() == 0.0


@pytest.mark.parametrize("rectifies", [False, True])
def test_the_result_is_the_librarys_and_only_the_gradient_is_another(rectifies: bool) -> None:
    torch.manual_seed(1)
    x, weight, bias = torch.randn(4, 32, 9, 9), torch.randn(32, 32, 3, 3), torch.randn(32)
    with torch.autocast("cpu", torch.bfloat16):
        plain = functional.conv2d(x, weight, bias, padding=1)
        plain = plain.relu() if rectifies else plain
        assert torch.equal(convolve(x, weight, bias, rectifies=rectifies), plain)
        recorded = convolve(x, weight.requires_grad_(), bias, rectifies=rectifies)
    assert torch.equal(recorded, plain)
    assert "ShorterGradient" in type(recorded.grad_fn).__name__
    (ours,) = torch.autograd.grad(recorded.float().square().sum(), weight)
    theirs = exact(x, weight.detach(), 2 * plain.float(), plain if rectifies else None)[1]
    assert (ours.double() - theirs).norm() <= 0.03 * theirs.norm()


@pytest.mark.parametrize("channels", [8, 32])
def test_in_float32_and_for_few_channels_the_library_does_all(channels: int) -> None:
    x, weight = torch.randn(2, channels, 5, 5), torch.randn(channels, channels, 3, 3, requires_grad=True)
    result = convolve(x, weight, torch.zeros(channels))
    gradient = torch.autograd.grad(result.square().sum(), weight, create_graph=True)[0]
    assert torch.autograd.grad(gradient.square().sum(), weight)[0].isfinite().all()  # a second derivative
    with torch.autocast("cpu", torch.bfloat16):
        name = type(convolve(x, weight, torch.zeros(channels)).grad_fn).__name__
    assert ("ShorterGradient" in name) == (channels >= 32)
