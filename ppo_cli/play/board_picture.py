"""A moment of Minesweeper as a picture in the classic window: the policy as heat on the board, the win estimate."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ppo_cli.envs.minesweeper.render import BLACK, FACE, LIGHT, RED, SHADOW, render_rgb
from ppo_cli.envs.minesweeper.rules import HIDDEN
from ppo_cli.play.agent import Moment
from ppo_cli.play.heat import heat

Colour = tuple[int, int, int]

LARGEST_CELL, SMALLEST_CELL, BOARD_WIDTH = 48, 20, 270  # pixels
HEADER, FOOTER = 96, 22  # pixels above and below the board
SMALLEST_WINDOW = 230  # pixels that the counters and the face need
NAVY, YELLOW, DARK_RED, GREY = (0, 0, 128), (255, 235, 59), (64, 0, 0), (96, 96, 96)
SMOOTHING = 4
"""Shapes are drawn that much larger and averaged."""

SEGMENTS = {
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc",
    "8": "abcdefg", "9": "abcdfg", "-": "g", " ": "",
}  # fmt: skip


def board_picture(moment: Moment, mines: int, caption: str, note: str) -> NDArray[np.uint8]:
    """The window of one game, uint8 [h, w, 3].

    Args:
        moment: With its board.
        mines: On the board.
        caption: Bottom line, left: whose game it is.
        note: Bottom line, right: how many it has won.
    """
    board, margin, edge = _board(moment)
    board_width, height = board.size
    width = max(board_width, SMALLEST_WINDOW)
    window = Image.new("RGB", (width, HEADER + height + FOOTER), FACE)
    draw = ImageDraw.Draw(window)
    _edges(draw, (0, 0, *window.size), 3, LIGHT, SHADOW)
    left, right = margin - edge, width - margin + edge
    _edges(draw, (left, 10, right, 58), 2, SHADOW, LIGHT)
    window.paste(_counter(f"{min(mines, 999):03d}"), (left + 7, 17))
    window.paste(_face(moment.success), (width // 2 - 17, 17))
    counter = _counter(f"{min(moment.step, 999):03d}")
    window.paste(counter, (right - 7 - counter.width, 17))
    _win_bar(draw, (left, 66, right, 90), moment)
    inside = board.crop((edge, edge, board_width - edge, height - edge))
    window.paste(inside, ((width - inside.width) // 2, HEADER))
    write_ends(draw, (left + 1, right - 1), HEADER + height - edge, caption, note)
    return np.asarray(window)


def _board(moment: Moment) -> tuple[Image.Image, int, int]:
    """The cells, hidden ones in the colour of their probability, the chosen one marked; where they begin; the bevel."""
    assert moment.board is not None
    columns = moment.board.shape[1]
    size = min(LARGEST_CELL, max(SMALLEST_CELL, BOARD_WIDTH // columns))
    margin = size // 2
    pixels = render_rgb(moment.board, size)
    for cell in np.flatnonzero(moment.board == HIDDEN) if moment.probs is not None else ():
        assert moment.probs is not None
        row, column = divmod(int(cell), columns)
        top, left = margin + row * size, margin + column * size
        tile = pixels[top : top + size, left : left + size]
        tile[:] = np.minimum(tile * (heat(moment.probs[cell]) / FACE), 255)
    picture = Image.fromarray(pixels)
    if moment.choice is not None:
        row, column = divmod(moment.choice, columns)
        _pointer(picture, margin + column * size + size // 2 - 5, margin + row * size + size // 2 - 7)
    return picture, margin, size // 8


def _win_bar(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], moment: Moment) -> None:
    """The win estimate as a progress bar of blocks, with its percentage."""
    left, top, right, bottom = box
    win = moment.win or 0.0
    draw.text((left + 1, top + 4), "win", BLACK, font_of(14))
    draw.text((right - 1, top + 4), f"{100 * win:.0f} %", BLACK, font_of(14), anchor="ra")
    left, right = left + 34, right - 50
    _edges(draw, (left, top, right, bottom), 2, SHADOW, LIGHT)
    inner = right - left - 8
    for x in range(0, round(win * inner), 9):
        end = min(x + 7, round(win * inner)) - 1
        if end >= x:
            draw.rectangle((left + 4 + x, top + 4, left + 4 + end, bottom - 5), NAVY)


def _edges(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], width: int, upper_left: Colour, lower_right: Colour
) -> None:
    """The edges of a raised or sunken area."""
    left, top, right, bottom = box
    for inset in range(width):
        corners = (left + inset, top + inset, right - 1 - inset, bottom - 1 - inset)
        draw.line([(corners[0], corners[3]), (corners[0], corners[1]), (corners[2], corners[1])], upper_left)
        draw.line([(corners[0], corners[3]), (corners[2], corners[3]), (corners[2], corners[1])], lower_right)


def write_ends(draw: ImageDraw.ImageDraw, span: tuple[int, int], y: int, left: str, right: str) -> None:
    """One line of small text from both ends of ``span``; the left one is cut off before it reaches the right one."""
    font = font_of(13)
    room = span[1] - span[0] - draw.textlength(right, font) - (10 if right else 0)
    cut = left
    while cut and draw.textlength(cut + "…" * (cut != left), font) > room:
        cut = cut[:-1]
    draw.text((span[0], y), cut + "…" * (0 < len(cut) < len(left)), GREY, font)
    draw.text((span[1], y), right, GREY, font, anchor="ra")


@functools.cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, ``size`` pixels high."""
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=1024)
def _counter(text: str) -> Image.Image:
    """Red digits of seven segments on black, 19 x 34 pixels each."""
    scale = SMOOTHING
    picture = Image.new("RGB", (19 * len(text) * scale, 34 * scale), BLACK)
    draw = ImageDraw.Draw(picture)
    for place, digit in enumerate(text):
        for name, shape in _segments(place * 19 + 3.5, 3.5).items():
            colour = RED if name in SEGMENTS[digit] else DARK_RED
            draw.polygon([(x * scale, y * scale) for x, y in shape], colour)
    return picture.resize((19 * len(text), 34), Image.Resampling.BOX)


def _segments(left: float, top: float, width: float = 12, height: float = 27) -> dict[str, list[tuple[float, float]]]:
    """The seven segments as hexagons: a to f clockwise from the top, g in the middle."""
    half, thick = height / 2, 2.2

    def flat(y: float) -> list[tuple[float, float]]:
        ends = left + 1, left + width - 1
        return [(ends[0], y), (ends[0] + thick, y - thick), (ends[1] - thick, y - thick), (ends[1], y),
                (ends[1] - thick, y + thick), (ends[0] + thick, y + thick)]  # fmt: skip

    def upright(x: float, y: float) -> list[tuple[float, float]]:
        ends = y + 1, y + half - 1
        return [(x, ends[0]), (x + thick, ends[0] + thick), (x + thick, ends[1] - thick), (x, ends[1]),
                (x - thick, ends[1] - thick), (x - thick, ends[0] + thick)]  # fmt: skip

    right, middle = left + width, top + half
    return {
        "a": flat(top), "b": upright(right, top), "c": upright(right, middle), "d": flat(top + height),
        "e": upright(left, middle), "f": upright(left, top), "g": flat(middle),
    }  # fmt: skip


@functools.cache
def _face(success: bool | None) -> Image.Image:
    """The smiley on its button, 34 x 34 pixels: it smiles, wears sunglasses after a win, and is out after a loss."""
    s = SMOOTHING
    picture = Image.new("RGB", (34 * s, 34 * s), FACE)
    draw = ImageDraw.Draw(picture)
    _edges(draw, (0, 0, 34 * s, 34 * s), 2 * s, LIGHT, SHADOW)

    def scaled(*numbers: float) -> list[float]:
        return [number * s for number in numbers]

    draw.ellipse(scaled(6, 6, 28, 28), YELLOW, BLACK, round(1.4 * s))
    line = round(1.5 * s)
    if success is False:
        for x in (13.0, 21.0):
            draw.line(scaled(x - 2, 12, x + 2, 16), BLACK, line)
            draw.line(scaled(x - 2, 16, x + 2, 12), BLACK, line)
        draw.arc(scaled(12, 19.5, 22, 27), 200, 340, BLACK, line)
    else:
        for x in (13.0, 21.0):
            draw.ellipse(scaled(x - 1.7, 12.5, x + 1.7, 16.5), BLACK)
        draw.arc(scaled(11.5, 13, 22.5, 23.5), 20, 160, BLACK, line)
    if success:
        for x in (13.0, 21.0):
            draw.pieslice(scaled(x - 3.8, 9, x + 3.8, 18.5), 0, 180, BLACK)
        draw.line(scaled(7, 13.7, 27, 13.7), BLACK, line)
    return picture.resize((34, 34), Image.Resampling.BOX)


def _pointer(picture: Image.Image, x: int, y: int) -> None:
    """A mouse pointer with its tip at (x, y)."""
    shape = [(0, 0), (0, 16), (3.8, 12.6), (6.4, 18.4), (9.0, 17.2), (6.4, 11.6), (11.4, 11.4)]
    s = SMOOTHING
    mask = Image.new("L", (16 * s, 22 * s))
    ImageDraw.Draw(mask).polygon([((a + 1.5) * s, (b + 1.5) * s) for a, b in shape], 255)
    fill = Image.new("L", mask.size)
    ImageDraw.Draw(fill).polygon([((a + 1.5) * s, (b + 1.5) * s) for a, b in shape], 255, 0, round(1.3 * s))
    outline = mask.resize((16, 22), Image.Resampling.BOX)
    picture.paste(BLACK, (x, y), outline)
    picture.paste(LIGHT, (x, y), fill.resize((16, 22), Image.Resampling.BOX))
