"""Convolutions that commute with the eight symmetries of the square (Cohen and Welling 2016, arXiv:1602.07576, p4m).

Features come in orbits of eight channels, one for each rotation and reflection; transforming the input transforms every
plane and permutes the channels within their orbits. The weights of one channel per orbit are stored, those of the other
seven are its copies, turned: an ordinary convolution of the full width with an eighth of the parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_SYMMETRIES = 8
KERNEL_CELLS = 9  # 3x3


def transforms() -> Tensor:
    """The symmetries as permutations of a 3x3 grid's cells: ``turned = flat[transforms()[g]]``; [8, 9]."""
    grid = torch.arange(KERNEL_CELLS, device="cpu").view(3, 3)
    turned = [torch.rot90(side, k).flatten() for side in (grid, grid.flip(1)) for k in range(4)]
    return torch.stack(turned)


def quotients() -> Tensor:
    """Which symmetry is h g^-1; [8, 8] indexed by g and h. Turning the board multiplies both from the right."""
    table = transforms()
    number = {tuple(row.tolist()): index for index, row in enumerate(table)}
    result = torch.empty(NUM_SYMMETRIES, NUM_SYMMETRIES, dtype=torch.int64, device="cpu")
    for g, row in enumerate(table):
        inverse = row.argsort()
        for h in range(NUM_SYMMETRIES):
            result[g, h] = number[tuple(table[h][inverse].tolist())]
    return result


class SymmetricConv(nn.Module):
    """3x3 convolution with padding 1, [B, inputs, H, W] -> [B, outputs, H, W], channel = 8 * orbit + symmetry.

    ``lifts`` says that the input is plain planes (each turned with the board) and not orbits.
    """

    def __init__(self, inputs: int, outputs: int, gain: float, *, lifts: bool) -> None:
        super().__init__()
        orbits = outputs // NUM_SYMMETRIES
        self.shape = (outputs, inputs, 3, 3)
        self.weight = nn.Parameter(torch.empty(orbits, inputs * KERNEL_CELLS))
        self.bias = nn.Parameter(torch.zeros(orbits))
        nn.init.normal_(self.weight, std=gain / math.sqrt(inputs * KERNEL_CELLS))
        self.register_buffer("copies", (lifted if lifts else regular)(inputs), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Expand the weights and convolve."""
        return functional.conv2d(x, *self.weights(), padding=1)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Of every channel, [outputs, inputs, 3, 3] and [outputs]."""
        assert isinstance(self.copies, Tensor)
        weight = self.weight[:, self.copies].view(self.shape).contiguous(memory_format=torch.channels_last)
        return weight, self.bias.repeat_interleave(NUM_SYMMETRIES)


def lifted(inputs: int) -> Tensor:
    """Where each weight of the channel for symmetry g is copied from, the input being planes; [8, inputs * 9]."""
    plane = torch.arange(inputs, device="cpu").view(1, inputs, 1) * KERNEL_CELLS
    return (plane + transforms().view(NUM_SYMMETRIES, 1, KERNEL_CELLS)).flatten(1)


def regular(inputs: int) -> Tensor:
    """The same for an input of orbits: symmetry g reads channel h with the weights for h g^-1, turned by g."""
    orbit = torch.arange(inputs // NUM_SYMMETRIES, device="cpu").view(1, -1, 1, 1) * NUM_SYMMETRIES
    channel = (orbit + quotients().view(NUM_SYMMETRIES, 1, NUM_SYMMETRIES, 1)) * KERNEL_CELLS
    return (channel + transforms().view(NUM_SYMMETRIES, 1, 1, KERNEL_CELLS)).flatten(1)
