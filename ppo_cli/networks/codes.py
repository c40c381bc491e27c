"""What a board's network sees: one plane for each code of a cell, of which all but one are zero."""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN_CODE = -1
NUM_CODES = 10  # -1 hidden, 0 to 8 shown; -2, a mine that was hit, ends the game and reads as hidden
NUM_PLANES = NUM_CODES + 2  # and: on the board (the padding around it is not), share of the cells still hidden


def planes(board: Tensor) -> Tensor:
    """Cell codes [B, H, W] int8 -> planes [B, NUM_PLANES, H, W] float32 in channels-last order."""
    code = board.clamp(min=HIDDEN_CODE).long() - HIDDEN_CODE
    x = torch.zeros((*board.shape, NUM_PLANES), dtype=torch.float32, device=board.device)
    x.scatter_(-1, code.unsqueeze(-1), 1.0)
    x[..., NUM_CODES] = 1.0
    share = (code == 0).float().mean(dim=(1, 2), keepdim=True)
    x.select(-1, NUM_CODES + 1).copy_(share.expand_as(code))  # so written, an exported graph keeps the sizes open
    return x.permute(0, 3, 1, 2)
