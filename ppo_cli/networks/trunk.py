"""The convolutions of a board and what its heads read, in bfloat16 on a CPU, by kernels of our own.

The first convolution adds rows of a table (`ppo_cli.kernels.codes`), the others are Winograd's
(`ppo_cli.kernels.winograd`) with a third of the products, and a few boards go through all layers together
(`ppo_cli.kernels.trunk`). Sums are in float32. What is rounded to bfloat16 are features and weights at Winograd's
points: logits are about twice as far from float32's as the library's in bfloat16. Acting and learning compute the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ppo_cli.networks.codes import NUM_CODES, NUM_PLANES
from ppo_cli.networks.symmetric import KERNEL_CELLS

MIN_CHANNELS = 32
"""For fewer, going to Winograd's points and back costs more than it spares."""

CELLS_TOGETHER = 1300
"""Of boards that go through all layers together: with 64 channels their features and points take some megabytes."""

CENTRE = KERNEL_CELLS // 2

POINTS = 25
"""At which a convolution is a product (`ppo_cli.kernels.winograd`)."""


def computes_in_bfloat16(x: Tensor) -> bool:
    """Under autocast to bfloat16 on a CPU; compiled code keeps what its compiler knows."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
    )


class WeightsAtPoints:
    """Weights at Winograd's points, kept: the parts of a batch and the steps of a rollout have the same."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], tuple[list[Tensor], Any]] = {}

    def at_points(self, weights: Sequence[Tensor], order: tuple[int, ...]) -> Any:  # noqa: ANN401
        """[K, C, 3, 3] in an order [3, 3, rows, columns] at all points, [layers, 25, rows in pairs, columns]."""
        from ppo_cli.kernels.winograd import kernels_to_points

        before, points = self.known.get(order, ([], None))
        if points is not None and all(map(torch.equal, before, weights)):
            return points
        channels = len(weights[0]) if weights else 0
        points = np.empty((len(weights), POINTS, channels // 2, channels), np.uint32)
        for weight, pairs in zip(weights, points, strict=True):
            kernels_to_points(weight.detach().permute(order).contiguous().numpy(), pairs)
        self.known[order] = [weight.detach().clone() for weight in weights], points
        return points


def through_trunk(
    board: Tensor,
    head: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    *,
    adds: Sequence[bool],
    returns_cells: bool,
    known: WeightsAtPoints | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolutions with padding 1, each through a ReLU, of a board's planes [B, H, W], and what two heads read of them.

    Args:
        board: Cell codes, int8 [B, H, W].
        head: What a cell's features are multiplied with, [C].
        layers: Weight [C, C, 3, 3] and bias [C] of each; the first reads `NUM_PLANES` planes.
        adds: For each layer, whether what went into the one before it is added before the ReLU.
        returns_cells: Whether somebody else reads the features.
        known: The layers at Winograd's points as they were the last time, often the same.

    Returns:
        Of each cell the product with ``head``, [B, H * W] float32; the sum over cells, [B, C] float32; and the
        features themselves, [B, H * W, C] bfloat16, or none of them, [0, H * W, C].
    """
    from ppo_cli.kernels.vectors import LANES

    channels = len(head)
    weights, biases = [weight for weight, _ in layers], [bias for _, bias in layers]
    if more := -channels % LANES:  # zeros: kernels know whole vectors only
        first, *rest = weights
        weights = [functional.pad(first, (0, 0, 0, 0, 0, 0, 0, more))]
        weights += [functional.pad(weight, (0, 0, 0, 0, 0, more, 0, more)) for weight in rest]
        biases = [functional.pad(bias, (0, more)) for bias in biases]
        head = functional.pad(head, (0, more))
    scores, sums, cells = Trunk.apply(
        board, tuple(adds), returns_cells, known or WeightsAtPoints(), head, *weights, *biases
    )  # type: ignore[no-untyped-call]
    return scores, sums[:, :channels], cells[..., :channels]


class Trunk(torch.autograd.Function):
    """`through_trunk` with its gradient; weights and their gradients in float32."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        board: Tensor,
        adds: tuple[bool, ...],
        returns_cells: bool,
        known: WeightsAtPoints,
        head: Tensor,
        *layers: Tensor,
    ) -> tuple[Tensor, ...]:
        """``layers`` are all weights, then all biases. Keeps the features behind every layer."""
        from ppo_cli.kernels import trunk

        board, channels = board.contiguous(), len(head)
        weights, biases = layers[: len(adds)], torch.stack(layers[len(adds) :])
        scores, sums = torch.empty(len(board), board[0].numel()), torch.empty(len(board), channels)
        points = known.at_points(weights[1:], (2, 3, 1, 0))
        network = [*arrays(*table_of(weights[0])), points, *arrays(biases), np.array(adds), *arrays(head)]
        ctx.kept = []
        for group in groups(board):
            kept = torch.empty(len(adds), *board[group].shape, channels, dtype=torch.bfloat16)
            arguments = [*arrays(board[group]), *network, bits(kept), *arrays(scores[group], sums[group])]
            trunk.forward(*arguments)
            ctx.kept.append(kept)
        ctx.adds, ctx.known = adds, known
        ctx.save_for_backward(board, head, *weights)
        ctx.set_materialize_grads(False)
        cells = [kept[-1].flatten(1, 2) for kept in ctx.kept] if returns_cells else [ctx.kept[0][-1, :0].flatten(1, 2)]
        return scores, sums, torch.cat(cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """The gradients of ``head`` and of every layer."""
        from ppo_cli.kernels import trunk

        board, head, first, *rest = ctx.saved_tensors
        of_scores, of_sums, of_cells = gradients
        of_scores = torch.zeros(len(board), board[0].numel()) if of_scores is None else of_scores
        of_sums = torch.zeros(len(board), len(head)) if of_sums is None else of_sums
        network = [ctx.known.at_points(rest, (2, 3, 0, 1)), np.array(ctx.adds), *arrays(head)]
        of_head, table, shares = torch.zeros_like(head), *map(torch.zeros_like, table_of(first))
        products, of_biases = torch.zeros(len(rest), POINTS, len(head), len(head)), torch.zeros(len(rest), len(head))
        totals = arrays(table, shares, products, of_biases, of_head)
        for group, kept in zip(groups(board), ctx.kept, strict=True):
            of_kept = torch.empty_like(kept)
            of_kept[-1] = of_cells[group].view_as(kept[-1]) if of_cells is not None and len(of_cells) else 0.0
            given = [*arrays(of_scores[group], of_sums[group]), bits(of_kept)]
            arguments = [*arrays(board[group]), *network, bits(kept), *given, *totals]
            trunk.backward(*arguments)
        of_first, of_first_bias = of_table(table, shares)
        return None, None, None, None, of_head, of_first, *from_points(products), of_first_bias, *of_biases


def boards_together(height: int, width: int) -> int:
    """How many boards go through all layers together."""
    return max(1, CELLS_TOGETHER // (height * width))


def groups(board: Tensor) -> Iterator[slice]:
    """The boards that go through all layers together, whose features and points share a cache."""
    size = boards_together(*board.shape[1:])
    return (slice(first, first + size) for first in range(0, len(board), size))


def table_of(weight: Tensor) -> tuple[Tensor, Tensor]:
    """What a cell of each code adds to its neighbours, [9, codes, C], and what the hidden share does, [9, C]."""
    places = weight.detach().permute(2, 3, 1, 0).reshape(KERNEL_CELLS, NUM_PLANES, -1)
    table = places[:, :NUM_CODES] + places[:, NUM_CODES : NUM_CODES + 1]
    return table.contiguous(), places[:, NUM_CODES + 1].contiguous()


def of_table(table: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of weight [C, planes, 3, 3] and bias [C], from those of what `table_of` makes of the weight."""
    any_code = table.sum(dim=1, keepdim=True)
    places = torch.cat([table, any_code, shares.unsqueeze(1)], dim=1)
    return places.view(3, 3, NUM_PLANES, -1).permute(3, 2, 0, 1), any_code[CENTRE, 0]


def from_points(products: Tensor) -> Tensor:
    """The gradients of weights [layers, K, C, 3, 3] from what they are at the points, [layers, 25, C, K]."""
    from ppo_cli.kernels.tiles import ONE_WAY

    both_ways = torch.from_numpy(np.kron(ONE_WAY, ONE_WAY))  # [25, 9]
    kernels = both_ways.t() @ products.flatten(2)
    return kernels.view(-1, 3, 3, *products.shape[2:]).permute(0, 4, 3, 1, 2)


def arrays(*tensors: Tensor) -> list[Any]:
    """The same memory for Numba, or a copy without gaps."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def bits(x: Tensor) -> Any:  # noqa: ANN401
    """bfloat16 as NumPy's unsigned integers, the same memory."""
    return x.contiguous().view(torch.uint16).numpy()
