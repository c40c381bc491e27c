"""Pictures of boards, as text and as pixels, in the classic look. Needs NumPy only; the glyphs are below.

Beyond the codes of an observation a picture may hold two more, which only the spectator of a finished game sees:
``OTHER_MINE``, a mine that was not hit, and ``FLAG``, a mine of a cleared board.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppo_cli.envs.minesweeper.rules import HIDDEN, MINE

OTHER_MINE = 9
FLAG = 10

FACE = (192, 192, 192)
LIGHT = (255, 255, 255)
SHADOW = (128, 128, 128)
RED = (255, 0, 0)
BLACK = (0, 0, 0)
DIGIT_COLOURS = {
    1: (0, 0, 255),
    2: (0, 128, 0),
    3: (255, 0, 0),
    4: (0, 0, 128),
    5: (128, 0, 0),
    6: (0, 128, 128),
    7: (0, 0, 0),
    8: (128, 128, 128),
}

GLYPHS = {
    1: "..##.... .###.... ####.... ..##.... ..##.... ..##.... ..##.... ..##.... ######..",
    2: ".######. ######## ##....## ......## ....#### ..####.. ####.... ######## ########",
    3: "#######. ######## ......## ......## ..#####. ......## ......## ######## #######.",
    4: "...####. ..##.##. .##..##. ##...##. ######## ######## .....##. .....##. .....##.",
    5: "######## ######## ##...... ##...... #######. ......## ......## ######## #######.",
    6: ".######. #######. ##...... ##...... #######. ##....## ##....## ######## .######.",
    7: "######## ######## ......## .....##. .....##. ....##.. ....##.. ...##... ...##...",
    8: ".######. ######## ##....## ##....## .######. ##....## ##....## ######## .######.",
}

ANSI_RESET = "\x1b[0m"
ANSI_CODES = {
    HIDDEN: ("\x1b[100;37m", "."),
    MINE: ("\x1b[1;97;41m", "*"),
    OTHER_MINE: ("\x1b[1;30;47m", "*"),
    FLAG: ("\x1b[1;31;100m", "P"),
    0: ("\x1b[47m", " "),
    **{
        digit: (f"\x1b[1;38;2;{red};{green};{blue};47m", str(digit))
        for digit, (red, green, blue) in DIGIT_COLOURS.items()
    },
}

OVERSAMPLING = 8
"""Tiles are drawn that much larger and averaged: smooth edges without an imaging library."""


def with_mines(board: NDArray[np.int8], mines: NDArray[np.bool_]) -> NDArray[np.int8]:
    """The board of a finished game with its hidden mines uncovered: flags after a win, mines after a loss; [H, W]."""
    uncovered = OTHER_MINE if (board == MINE).any() else FLAG
    return np.where(mines & (board == HIDDEN), np.int8(uncovered), board)


def render_ansi(board: ArrayLike, colour: bool = True) -> str:
    """A board [H, W] as lines of text, two characters a cell; plain characters without ``colour``."""
    cells = np.asarray(board)
    if not colour:
        return "\n".join(" ".join(ANSI_CODES[int(code)][1] for code in row) for row in cells)
    rows = ("".join("{} {} ".format(*ANSI_CODES[int(code)]) for code in row) for row in cells)
    return "\n".join(f"{row}{ANSI_RESET}" for row in rows)


def render_rgb(board: ArrayLike, cell: int = 24) -> NDArray[np.uint8]:
    """A board [H, W] as pixels [h, w, 3]: cells ``cell`` pixels wide, in a bevelled frame half a cell wide."""
    codes = np.asarray(board, np.int64)
    height, width = codes.shape
    pixels = _tiles(cell)[codes - MINE].transpose(0, 2, 1, 3, 4).reshape(height * cell, width * cell, 3)

    margin, edge = max(cell // 2, 4), max(cell // 8, 1)
    picture = np.empty((pixels.shape[0] + 2 * margin, pixels.shape[1] + 2 * margin, 3), np.uint8)
    _bevel(picture, edge, LIGHT, SHADOW)
    inner = picture[margin - edge : -(margin - edge), margin - edge : -(margin - edge)]
    _bevel(inner, edge, SHADOW, LIGHT)
    inner[edge:-edge, edge:-edge] = pixels
    return picture


def render_grid(boards: ArrayLike, columns: int, cell: int = 24) -> NDArray[np.uint8]:
    """Boards [K, H, W] side by side, ``columns`` in a row, as pixels [h, w, 3]; places left over are grey."""
    pictures = [render_rgb(board, cell) for board in np.asarray(boards)]
    blank = np.full_like(pictures[0], FACE)
    pictures += [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[start : start + columns], axis=1) for start in range(0, len(pictures), columns)]
    return np.concatenate(rows, axis=0)


@functools.lru_cache(maxsize=8)
def _tiles(cell: int) -> NDArray[np.uint8]:
    """One picture for each code from ``MINE`` to ``FLAG``, [13, cell, cell, 3]."""
    hidden, mine, hit_mine = _raised(cell), _flat(cell, FACE), _flat(cell, RED)
    flag = hidden.copy()
    _draw_flag(flag)
    _draw_mine(mine)
    _draw_mine(hit_mine)
    digits = [_flat(cell, FACE) for _ in range(9)]
    for digit, glyph in GLYPHS.items():
        _paint(digits[digit], _glyph_mask(glyph, cell), DIGIT_COLOURS[digit])
    return np.stack([hit_mine, hidden, *digits, mine, flag])


def _flat(cell: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    tile = np.empty((cell, cell, 3), np.uint8)
    tile[:] = colour
    line = max(cell // 24, 1)
    tile[:line] = tile[:, :line] = SHADOW
    return tile


def _raised(cell: int) -> NDArray[np.uint8]:
    tile = np.empty((cell, cell, 3), np.uint8)
    _bevel(tile, max(cell // 8, 1), LIGHT, SHADOW)
    return tile


def _bevel(
    area: NDArray[np.uint8], edge: int, upper_left: tuple[int, int, int], lower_right: tuple[int, int, int]
) -> None:
    """Fill with grey and draw edges that meet on the diagonal of the two mixed corners."""
    area[:] = FACE
    for inset in range(edge):
        stop = -inset or None
        area[inset:stop, -1 - inset] = area[-1 - inset, inset:stop] = lower_right
        area[inset : -1 - inset, inset] = area[inset, inset : -1 - inset] = upper_left


def _paint(tile: NDArray[np.uint8], mask: NDArray[np.float64], colour: tuple[int, int, int]) -> None:
    """Blend ``colour`` over the tile where ``mask`` [cell, cell], 0 to 1, covers it."""
    tile[:] = np.rint(tile + (np.array(colour) - tile) * mask[:, :, None])


def _average(mask: NDArray[np.bool_], cell: int) -> NDArray[np.float64]:
    averaged: NDArray[np.float64] = mask.reshape(cell, OVERSAMPLING, cell, OVERSAMPLING).mean(axis=(1, 3))
    return averaged


def _grid(cell: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column of each sample, -1 to 1 across the tile."""
    axis = (np.arange(cell * OVERSAMPLING) + 0.5) / (cell * OVERSAMPLING) * 2 - 1
    down, right = np.meshgrid(axis, axis, indexing="ij")
    return down, right


def _glyph_mask(glyph: str, cell: int) -> NDArray[np.float64]:
    """The glyph in the middle of the tile, 58 % of its height."""
    bitmap = np.array([[pixel == "#" for pixel in line] for line in glyph.split()])
    bitmap = bitmap[:, : np.flatnonzero(bitmap.any(axis=0))[-1] + 1]
    height, width = bitmap.shape
    pixel = 1.16 / height
    down, right = _grid(cell)
    row = np.floor(down / pixel + height / 2).astype(int)
    column = np.floor(right / pixel + width / 2).astype(int)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return _average(inside & bitmap[row.clip(0, height - 1), column.clip(0, width - 1)], cell)


def _draw_mine(tile: NDArray[np.uint8]) -> None:
    cell = len(tile)
    down, right = _grid(cell)
    radius = np.hypot(down, right)
    spikes = (np.minimum(abs(down), abs(right)) < 0.07) & (radius < 0.72)
    spikes |= (np.minimum(abs(down - right), abs(down + right)) < 0.1) & (radius < 0.66)
    _paint(tile, _average(spikes | (radius < 0.5), cell), BLACK)
    _paint(tile, _average(np.hypot(down + 0.17, right + 0.17) < 0.13, cell), LIGHT)


def _draw_flag(tile: NDArray[np.uint8]) -> None:
    cell = len(tile)
    down, right = _grid(cell)
    pole = (abs(right - 0.06) < 0.06) & (abs(down) < 0.5)
    base = (abs(right) < 0.42) & (abs(down - 0.52) < 0.09) | (abs(right) < 0.25) & (abs(down - 0.4) < 0.09)
    cloth = (right < 0.12) & (abs(down + 0.27) < (right + 0.5) * 0.5)
    _paint(tile, _average(pole | base, cell), BLACK)
    _paint(tile, _average(cloth, cell), RED)
