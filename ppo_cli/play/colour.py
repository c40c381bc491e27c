"""Moments in colour for a terminal: boards with the policy as heat, any other environment's picture in half blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.style import Style
from rich.text import Text

from ppo_cli.envs.minesweeper.render import DIGIT_COLOURS, FLAG, OTHER_MINE
from ppo_cli.envs.minesweeper.rules import MINE
from ppo_cli.play.agent import Moment
from ppo_cli.play.heat import heat

SHOWN = (238, 238, 238)
DIMMED = 0.82
"""Hidden cells are that much darker than in a picture, where their edges tell them apart."""

CELL_SIZES = (7, 3), (3, 1), (2, 1)
"""Columns and rows; nearly square in most fonts."""

HEAT_256 = 247, 144, 186, 222, 221, 215, 214, 208, 202
HIT = (220, 0, 0)
SYMBOLS = {MINE: ("*", (255, 255, 255)), OTHER_MINE: ("*", (0, 0, 0)), FLAG: ("P", (200, 0, 0)), 0: (" ", (0, 0, 0))}
SYMBOLS |= {number: (str(number), colour) for number, colour in DIGIT_COLOURS.items()}

BAR_FULL, BAR_EMPTY, WON, LOST = (70, 160, 90), (88, 88, 88), "bold green", "bold red"


def cell_size(shape: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    """Columns and rows of a cell for a board of ``shape`` in so much room: the largest that fits, or the smallest."""
    height, width = shape
    return next(
        (size for size in CELL_SIZES if width * size[0] <= columns and height * size[1] <= rows), CELL_SIZES[-1]
    )


def board_text(moment: Moment, size: tuple[int, int], *, in_256: bool = False) -> Text:
    """The board: hidden cells in the colour of their probability, the chosen one in brackets.

    Args:
        moment: With its board.
        size: Columns and rows of a cell.
        in_256: Take the colours from the terminal's 256, whose nearest ones make an uneven scale.
    """
    assert moment.board is not None
    height, width = moment.board.shape
    columns, rows = size
    probs = np.zeros(height * width) if moment.probs is None else moment.probs
    text = Text(no_wrap=True, overflow="crop")
    for line in range(height * rows):
        row, is_middle = line // rows, line % rows == rows // 2
        for cell in range(row * width, (row + 1) * width):
            symbol, style = _cell(int(moment.board.flat[cell]), probs[cell], in_256)
            if cell == moment.choice:
                symbol = f"[{'':{columns - 2}}]"
            text.append(f"{symbol if is_middle else '':^{columns}}", style)
        text.append("\n")
    text.right_crop(1)
    return text


def _cell(code: int, prob: float, in_256: bool) -> tuple[str, Style]:
    """A cell's symbol and its colours."""
    if code in SYMBOLS:
        symbol, ink = SYMBOLS[code]
        if code != FLAG:
            return symbol, _style(ink, HIT if code == MINE else SHOWN)
    else:
        symbol, ink = "", (0, 0, 0)
    if in_256:
        paper = HEAT_256[round(float(np.sqrt(prob)) * (len(HEAT_256) - 1))]
        return symbol, Style(color=_rgb(ink), bgcolor=f"color({paper})", bold=True)
    return symbol, _style(ink, tuple(np.rint(DIMMED * heat(prob)).astype(int).tolist()))


def win_bar(win: float, width: int) -> Text:
    """The win estimate as a bar of ``width`` columns, its percentage included."""
    label = f" win {100 * win:5.1f} %"
    columns = max(4, width - len(label))
    full = round(win * columns)
    text = Text(no_wrap=True, overflow="crop")
    text.append(" " * full, _style(SHOWN, BAR_FULL)).append(" " * (columns - full), _style(SHOWN, BAR_EMPTY))
    return text.append(label)


def half_blocks(frame: NDArray[np.uint8], columns: int, rows: int) -> Text:
    """A picture [h, w, 3] in at most so many columns and rows of characters, two pixels in each."""
    height, width, _ = frame.shape
    scale = min(columns / width, 2 * rows / height, 1.0)
    size = max(1, round(width * scale)), 2 * max(1, round(height * scale / 2))
    pixels = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)).tolist()
    text = Text(no_wrap=True, overflow="crop")
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        if text:
            text.append("\n")
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", _style(tuple(above), tuple(below)))
    return text


def _style(ink: tuple[int, ...], paper: tuple[int, ...]) -> Style:
    """Bold ink on paper."""
    return Style(color=_rgb(ink), bgcolor=_rgb(paper), bold=True)


def _rgb(colour: tuple[int, ...]) -> str:
    return "rgb({},{},{})".format(*colour)
