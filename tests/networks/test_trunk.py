from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from ppo_cli.networks.board import Board
from ppo_cli.networks.codes import NUM_PLANES, planes
from ppo_cli.networks.trunk import WeightsAtPoints, through_trunk

Layers = list[tuple[Tensor, Tensor]]


def made(boards: int, height: int, width: int, channels: int, num_layers: int = 3) -> tuple[Tensor, Tensor, Layers]:
    """Boards of every code, a hit mine among them, what a head multiplies with, and layers."""
    generator = torch.Generator().manual_seed(boards + height)
    board = torch.randint(-2, 9, (boards, height, width), dtype=torch.int8, generator=generator)
    layers = []
    for number in range(num_layers):
        inputs = channels if number else NUM_PLANES
        weight = torch.randn(channels, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
        layers.append((weight, torch.randn(channels, generator=generator)))
    return board, torch.randn(channels, generator=generator), layers


def exact(board: Tensor, head: Tensor, layers: Layers, adds: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """By the library, in double precision."""
    inputs = [planes(board).double()]
    for (weight, bias), adds_input in zip(layers, adds, strict=True):
        x = functional.conv2d(inputs[-1], weight, bias, padding=1)
        inputs.append((x + inputs[-2] if adds_input else x).relu())
    cells = inputs[-1].permute(0, 2, 3, 1).flatten(1, 2)
    return cells @ head, cells.sum(dim=1), cells


def leaves_of(head: Tensor, layers: Layers, dtype: torch.dtype) -> tuple[Tensor, Layers, list[Tensor]]:
    head = head.to(dtype).requires_grad_()
    layers = [(weight.to(dtype).requires_grad_(), bias.to(dtype).requires_grad_()) for weight, bias in layers]
    return head, layers, [head, *(each for layer in layers for each in layer)]


SIZES = [(1, 1, 1, 32), (3, 1, 5, 33), (19, 5, 7, 32), (9, 9, 9, 64)]
"""Boards, rows, columns, channels: fewer boards than go through the layers together, and more."""

NETWORKS = [[False], [False, False, False], [False, False, True, False, True]]
"""What each layer adds."""


@pytest.mark.parametrize("adds", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_the_kernels_are_the_librarys_convolutions_to_bfloat16(
    size: tuple[int, int, int, int], adds: list[bool]
) -> None:
    board, head, layers = made(*size, num_layers=len(adds))
    found = through_trunk(board, head, layers, adds=adds, returns_cells=True)
    head, layers, _ = leaves_of(head, layers, torch.float64)
    for ours, theirs in zip(found, exact(board, head, layers, adds), strict=True):
        assert ours.shape == theirs.shape
        assert (ours.double() - theirs).norm() <= 0.01 * len(adds) * theirs.norm()


@pytest.mark.parametrize("reads_cells", [False, True])
@pytest.mark.parametrize("adds", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_their_gradient_is_the_librarys(size: tuple[int, int, int, int], adds: list[bool], reads_cells: bool) -> None:
    board, head, layers = made(*size, num_layers=len(adds))
    generator = torch.Generator().manual_seed(1)

    def gradients(dtype: torch.dtype, function: Any, **settings: Any) -> tuple[Tensor, ...]:
        own_head, own_layers, leaves = leaves_of(head, layers, dtype)
        outputs = function(board, own_head, own_layers, adds=adds, **settings)
        used = len(outputs) if reads_cells else 2
        given = [
            torch.randn(x.shape, generator=generator.manual_seed(number)) for number, x in enumerate(outputs[:used])
        ]
        return torch.autograd.grad(
            outputs[:used], leaves, [g.to(x.dtype) for g, x in zip(given, outputs, strict=False)]
        )

    ours = gradients(torch.float32, through_trunk, returns_cells=reads_cells)
    for found, truth in zip(ours, gradients(torch.float64, exact), strict=True):
        assert found.dtype == torch.float32
        assert (found.double() - truth).norm() <= 0.12 * truth.norm()  # rounding puts some on the other side of a ReLU


def test_the_first_layers_sums_are_not_rounded_on_the_way() -> None:
    board, head, layers = made(4, 16, 8, 40, num_layers=1)
    _, _, cells = through_trunk(board, head, layers, adds=[False], returns_cells=True)
    head, layers, _ = leaves_of(head, layers, torch.float64)
    torch.testing.assert_close(cells.double(), exact(board, head, layers, [False])[2], rtol=2**-8, atol=1e-5)


def test_weights_at_points_that_are_kept_are_made_anew_for_other_weights() -> None:
    board, head, layers = made(4, 5, 5, 32)
    known = WeightsAtPoints()
    for number in range(3):
        kept = through_trunk(board, head, layers, adds=[False] * 3, returns_cells=False, known=known)
        fresh = through_trunk(board, head, layers, adds=[False] * 3, returns_cells=False)
        assert torch.equal(kept[0], fresh[0])
        with torch.no_grad():
            layers[number % 3][0].data.mul_(1.5)  # which leaves no trace in the tensor's version


def test_the_first_layers_and_the_heads_gradients_are_exact_but_for_the_rounding_of_features() -> None:
    """One layer, whose gradient of the features is the only number in bfloat16 on the way back."""
    board, head, layers = made(9, 5, 7, 40, num_layers=1)
    given = torch.randn(9, 35).bfloat16().float(), torch.zeros(9, 40)
    head = torch.ones(40)  # so that this gradient is exact, too
    own_head, own_layers, leaves = leaves_of(head, layers, torch.float32)
    found = through_trunk(board, own_head, own_layers, adds=[False], returns_cells=True)
    other_head, other_layers, others = leaves_of(head, layers, torch.float64)
    scores, sums, cells = exact(board, other_head, other_layers, [False])
    assert torch.equal(found[2] > 0, cells > 0)
    ours = torch.autograd.grad(found[:2], leaves, given)
    truths = torch.autograd.grad((scores, sums), others, [each.double() for each in given])
    for gradient, truth in zip(ours[1:], truths[1:], strict=True):
        torch.testing.assert_close(gradient.double(), truth, rtol=1e-4, atol=1e-4)
    read = given[0].double().flatten() @ found[2].double().flatten(0, 1)  # what the head has read, rounded
    torch.testing.assert_close(ours[0].double(), read, rtol=1e-4, atol=1e-4)


def test_boards_far_apart_in_memory_are_the_same_boards() -> None:
    board, head, layers = made(3, 4, 6, 32)
    turned = board.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    for ours, theirs in zip(
        through_trunk(turned, head, layers, adds=[False] * 3, returns_cells=True),
        through_trunk(board, head, layers, adds=[False] * 3, returns_cells=True),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_a_board_is_the_same_among_others() -> None:
    """In whatever part of a batch, at whatever place: to the bit."""
    board, head, layers = made(21, 5, 5, 48)
    whole = through_trunk(board, head, layers, adds=[False] * 3, returns_cells=True)
    part = through_trunk(board[5:14], head, layers, adds=[False] * 3, returns_cells=True)
    for one, other in zip(whole, part, strict=True):
        assert torch.equal(one[5:14], other)


def network(**settings: Any) -> tuple[Board, dict[str, Tensor]]:
    torch.manual_seed(0)
    space = spaces.Dict(board=spaces.Box(-2, 8, (9, 9), np.int8), legal=spaces.MultiBinary(81))
    board = torch.randint(-1, 9, (5, 9, 9), dtype=torch.int8)
    return Board(space, spaces.Discrete(81), **settings), {"board": board, "legal": (board == -1).flatten(1)}


def uses_kernels(board: Board, obs: dict[str, Tensor]) -> bool:
    """Whether the network's graph holds the kernels' function."""
    waiting, seen = [board(obs)[1].grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [function for function, _ in node.next_functions]
    return any("Trunk" in type(node).__name__ for node in seen)


def test_acting_and_learning_compute_the_same_policy() -> None:
    board, obs = network(residual=True, pooling="mean_max")
    with torch.autocast("cpu", torch.bfloat16):
        policy, value = board(obs)
        assert uses_kernels(board, obs)
        with torch.no_grad():
            acted, judged = board(obs)
    assert torch.equal(policy.log_probs, acted.log_probs)
    assert torch.equal(value, judged)


@pytest.mark.parametrize("settings", [{}, {"symmetric": False}, {"residual": True, "pooling": "mean_max"}])
def test_with_the_kernels_a_network_is_what_it_is_in_float32(settings: dict[str, Any]) -> None:
    board, obs = network(**settings)
    policy, value = board(obs)
    with torch.autocast("cpu", torch.bfloat16):
        assert uses_kernels(board, obs)
        quick, judged = board(obs)
    possible = obs["legal"]
    torch.testing.assert_close(quick.log_probs[possible], policy.log_probs[possible], rtol=0, atol=0.02)
    torch.testing.assert_close(judged, value, rtol=0, atol=0.02)


def test_in_float32_and_in_runs_too_short_to_compile_and_for_few_channels_the_library_convolves() -> None:
    board, obs = network()
    assert not uses_kernels(board, obs)
    weights = list(board.convolutions.parameters())
    gradients = torch.autograd.grad(board(obs)[1].square().sum(), weights, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), weights)  # type: ignore[arg-type]
    assert all(gradient.isfinite().all() for gradient in second)
    with torch.autocast("cpu", torch.bfloat16):
        assert uses_kernels(board, obs)
        board.may_use_kernels = False
        assert not uses_kernels(board, obs)
        assert not uses_kernels(*network(channels=24))
