"""3x3 convolutions whose gradient takes a shorter way than the library's.

In bfloat16 on a CPU the library's backward pass takes two and a half times its forward pass. Winograd's needs a third
of the products (`ppo_cli.kernels.winograd`). The forward pass stays the library's: the policy is the same function, and
only its gradient is rounded differently, by about a hundredth of its length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

GROUP = 32
"""Boards whose points are in the cache together."""

TILE = 3  # cells of results on a side
KERNEL = 9  # cells

MIN_CHANNELS = 32
"""In and out: for fewer, going to the points and back costs more than it spares."""

POINTS = 25
"""At which a tile's results are products."""

ROW = torch.tensor([[1 / 2, 0, 0], [-1 / 2, -1 / 2, -1 / 2], [-1 / 6, 1 / 6, -1 / 6], [1 / 6, 1 / 3, 2 / 3], [0, 0, 1]])
TO_POINTS = torch.kron(ROW, ROW)
"""G of both dimensions, [25, 9]: from a kernel's weights to the points."""


class Convolution(nn.Conv2d):
    """3x3 with padding 1."""

    may_shorten = True
    """Off in runs too short to compile the kernels for."""

    def forward(self, x: Tensor, *, rectifies: bool = False) -> Tensor:
        """[B, C, H, W] -> [B, K, H, W], through a ReLU if ``rectifies``."""
        return convolve(x, *self.weights(), rectifies=rectifies, may_shorten=self.may_shorten)

    def weights(self) -> tuple[Tensor, Tensor]:
        """[K, C, 3, 3] and [K]."""
        assert self.bias is not None
        return self.weight, self.bias


def convolve(x: Tensor, weight: Tensor, bias: Tensor, *, rectifies: bool = False, may_shorten: bool = True) -> Tensor:
    """``conv2d`` with padding 1: [B, C, H, W] with weight [K, C, 3, 3] and bias [K] -> [B, K, H, W]; and ``relu``."""
    if may_shorten and torch.is_grad_enabled() and has_shorter_gradient(x, weight):
        half = [tensor.to(torch.bfloat16) for tensor in (x, weight, bias)]
        return ShorterGradient.apply(*half, rectifies)  # type: ignore[no-untyped-call, no-any-return]
    result = functional.conv2d(x, weight, bias, padding=1)
    return result.relu() if rectifies else result


def has_shorter_gradient(x: Tensor, weight: Tensor) -> bool:
    """In bfloat16 on a CPU, with channels enough."""
    return computes_in_bfloat16(x) and min(weight.shape[:2]) >= MIN_CHANNELS


def computes_in_bfloat16(x: Tensor) -> bool:
    """Under autocast to bfloat16 on a CPU; compiled code keeps what its compiler knows."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
    )


class ShorterGradient(torch.autograd.Function):
    """The library's convolution forward, Winograd's backward, a ReLU with both; all tensors bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rectifies: bool) -> Tensor:  # noqa: ANN401
        """[B, C, H, W] -> [B, K, H, W]."""
        result = functional.conv2d(x, weight, bias, padding=1)
        if rectifies:
            result.relu_()
        ctx.save_for_backward(x, weight, result if rectifies else None)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # noqa: ANN401
        """[B, K, H, W] -> the gradients of input, weight and bias."""
        x, weight, result = ctx.saved_tensors
        return *convolution_gradient(x, weight, gradient, result), None


def convolution_gradient(
    x: Tensor, weight: Tensor, gradient: Tensor, result: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of input [B, C, H, W], weight [K, C, 3, 3] and bias [K], from that of the result [B, K, H, W]; bfloat16.

    Where the result has gone through a ReLU, it is given, too.
    """
    from ppo_cli.kernels.winograd import cells_to_points, points_to_cells, results_to_points

    cells, results = channels_last(x), channels_last(gradient)
    active = results[:0] if result is None else channels_last(result)
    x_gradient = torch.empty_like(cells)
    outputs, inputs = weight.shape[:2]
    kernels = weight.permute(2, 3, 0, 1).reshape(KERNEL, -1).float()
    turned = (TO_POINTS @ kernels).view(POINTS, outputs, inputs).to(torch.bfloat16)
    tiles = -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE)
    group = min(GROUP, len(x))
    read, wanted = points_of(group * tiles, inputs), points_of(group * tiles, outputs)
    product = torch.empty(POINTS, inputs, outputs, dtype=torch.bfloat16)
    products = torch.zeros(POINTS, inputs, outputs)
    total = torch.zeros(outputs)
    for first in range(0, len(x), group):
        boards = slice(first, first + group)
        if len(x) - first < group:
            rest = (len(x) - first) * tiles
            read, wanted = points_of(rest, inputs), points_of(rest, outputs)
        cells_to_points(bits(cells[boards]), bits(read))
        results_to_points(bits(results[boards]), bits(active[boards]), bits(wanted), total.numpy())
        products += torch.bmm(read.transpose(1, 2), wanted, out=product)
        points_to_cells(bits(torch.bmm(wanted, turned, out=read)), bits(x_gradient[boards]))
    weight_gradient = (TO_POINTS.t() @ products.flatten(1)).view(3, 3, inputs, outputs).permute(3, 2, 0, 1)
    return x_gradient.permute(0, 3, 1, 2), weight_gradient.to(torch.bfloat16), total.to(torch.bfloat16)


def points_of(tiles: int, channels: int) -> Tensor:
    """Memory for the points of some tiles, [25, tiles + 1, channels].

    The last tile, zeros that change no product, keeps planes of points from pushing each other out of the cache.
    """
    return torch.zeros(POINTS, tiles + 1, channels, dtype=torch.bfloat16)


def channels_last(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H, W, C], as it lies in memory."""
    return x.permute(0, 2, 3, 1).contiguous()


def bits(x: Tensor) -> Any:  # noqa: ANN401 (an array that Numba takes)
    """The same memory as NumPy's unsigned integers."""
    return x.view(torch.uint16).numpy()
