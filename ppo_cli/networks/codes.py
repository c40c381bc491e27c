"""The first convolution of a board: one plane for each code of a cell, of which all but one are zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ppo_cli.networks.convolution import KERNEL, bits, channels_last, computes_in_bfloat16, convolve

HIDDEN_CODE = -1
NUM_CODES = 10  # -1 hidden, 0 to 8 shown; -2, a mine that was hit, ends the game and reads as hidden
NUM_PLANES = NUM_CODES + 2  # and: on the board (the padding around it is not), share of the cells still hidden
CENTRE = KERNEL // 2


def planes(board: Tensor) -> Tensor:
    """Cell codes [B, H, W] int8 -> planes [B, NUM_PLANES, H, W] float32 in channels-last order."""
    code = board.clamp(min=HIDDEN_CODE).long() - HIDDEN_CODE
    x = torch.zeros((*board.shape, NUM_PLANES), dtype=torch.float32, device=board.device)
    x.scatter_(-1, code.unsqueeze(-1), 1.0)
    x[..., NUM_CODES] = 1.0
    share = (code == 0).float().mean(dim=(1, 2), keepdim=True)
    x.select(-1, NUM_CODES + 1).copy_(share.expand_as(code))  # so written, an exported graph keeps the sizes open
    return x.permute(0, 3, 1, 2)


def convolve_board(board: Tensor, weight: Tensor, bias: Tensor, *, may_shorten: bool = True) -> Tensor:
    """ReLU of `planes` under a convolution with padding 1: [B, H, W] int8 and weight [K, NUM_PLANES, 3, 3].

    In bfloat16 on a CPU nine rows of a table are added instead, with and without a gradient: the same policy acts and
    learns. Returns [B, K, H, W].
    """
    if may_shorten and computes_in_bfloat16(board):
        return TableSum.apply(board, weight, bias)  # type: ignore[no-untyped-call, no-any-return]
    return convolve(planes(board), weight, bias, rectifies=True, may_shorten=may_shorten)


class TableSum(torch.autograd.Function):
    """`convolve_board` by `ppo_cli.kernels.codes`: weights in float32, results in bfloat16."""

    @staticmethod
    def forward(ctx: Any, board: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
        """[B, H, W] -> [B, K, H, W]."""
        from ppo_cli.kernels.codes import convolve_codes

        places = weight.detach().permute(2, 3, 1, 0).reshape(KERNEL, NUM_PLANES, -1).contiguous()
        table = places[:, :NUM_CODES] + places[:, NUM_CODES : NUM_CODES + 1]
        shares = places[:, NUM_CODES + 1].contiguous()
        result = torch.empty((*board.shape, len(weight)), dtype=torch.bfloat16)
        board = board.contiguous()
        convolve_codes(board.numpy(), table.numpy(), shares.numpy(), bias.detach().numpy(), bits(result))
        result = result.permute(0, 3, 1, 2)
        ctx.save_for_backward(board, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:  # noqa: ANN401
        """[B, K, H, W] -> the gradients of weight and bias."""
        from ppo_cli.kernels.codes import codes_gradient

        board, result = ctx.saved_tensors
        channels = gradient.shape[1]
        table, shares = torch.zeros(KERNEL, NUM_CODES, channels), torch.zeros(KERNEL, channels)
        results, active = bits(channels_last(gradient)), bits(channels_last(result))
        codes_gradient(board.numpy(), results, active, table.numpy(), shares.numpy())
        any_code = table.sum(dim=1, keepdim=True)
        places = torch.cat([table, any_code, shares.unsqueeze(1)], dim=1)
        return None, places.view(3, 3, NUM_PLANES, channels).permute(3, 2, 0, 1), any_code[CENTRE, 0]
