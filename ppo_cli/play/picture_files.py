"""Pictures to GIF, MP4 and PNG. Pillow writes the first and the last, ffmpeg (imageio-ffmpeg) the film."""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppo_cli.run_files import write_atomically

Picture = NDArray[np.uint8]

SUFFIXES = (".gif", ".mp4", ".png")
PAUSE = 1.5  # seconds that the end of an episode stays
FASTEST_GIF = 50.0  # frames per second; browsers slow down anything faster
SHEET_PICTURES = 24
SHEET_SHAPE = 4 / 3  # width over height, about
MOST_COLOURS = 256
LARGEST_STRIP = 500_000
"""Pixels, about, of the picture that a palette is chosen for."""


class Reel:
    """Pictures of one size, kept compressed: a hundred moments of an environment would fill the memory."""

    def __init__(self, shown: Iterable[tuple[Picture, bool]]) -> None:
        self.ends: list[bool] = []
        self._packed: list[bytes] = []
        self._shape: tuple[int, ...] = ()
        for picture, end in shown:
            self.ends.append(end)
            self._packed.append(zlib.compress(picture.tobytes(), level=1))
            self._shape = picture.shape

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Picture]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Picture:
        return np.frombuffer(zlib.decompress(self._packed[index]), np.uint8).reshape(self._shape)


def write_pictures(path: Path, shown: Iterable[tuple[Picture, bool]], fps: float) -> int:
    """Write pictures of one size, each with whether an episode ends with it, to ``path``. Returns their number.

    The suffix says how: a GIF that repeats, a film, or a PNG with at most ``SHEET_PICTURES`` of them on one sheet,
    evenly chosen, the first and the last among them. The file is whole or not there.

    Raises:
        ValueError: the package that writes films is missing.
        OSError: the file cannot be written.
    """
    if path.suffix == ".mp4":
        find_ffmpeg()
    reel = Reel(shown)
    content = {".gif": gif, ".mp4": mp4}[path.suffix](reel, fps) if path.suffix != ".png" else png(contact_sheet(reel))
    write_atomically(path, content)
    return len(reel)


def gif(reel: Reel, fps: float) -> bytes:
    """An animation with one palette for all frames, which is what keeps it small and still."""
    step = max(20, round(100 / min(fps, FASTEST_GIF)) * 10)  # milliseconds; the format counts hundredths
    pause = max(step, round(PAUSE * 1000))
    frames = in_one_palette(reel)
    buffer = io.BytesIO()
    next(frames).save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames,
        duration=[pause if end else step for end in reel.ends],
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()


def in_one_palette(reel: Reel) -> Iterator[Image.Image]:
    """The pictures in the same at most 256 colours: exactly where they have no more, in the nearest ones otherwise."""
    counts: dict[int, int] = {}
    for picture in reel:
        for code, count in zip(*(part.tolist() for part in np.unique(pack(picture), return_counts=True)), strict=True):
            counts[code] = counts.get(code, 0) + count
    colours = np.array(sorted(counts), np.uint32)
    palette, index = chosen_palette(colours, np.array([counts[int(code)] for code in colours]))
    for picture in reel:
        frame = Image.fromarray(index[np.searchsorted(colours, pack(picture))])
        frame.putpalette(palette.tobytes())
        yield frame


def pack(picture: Picture) -> NDArray[np.uint32]:
    """Colours [h, w, 3] as numbers [h, w]."""
    codes: NDArray[np.uint32] = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return codes


def chosen_palette(colours: NDArray[np.uint32], counts: NDArray[np.int64]) -> tuple[Picture, Picture]:
    """Up to 256 colours [P, 3] for packed ``colours`` [C] that occur so often, and the place [C] of each in them."""
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)
    if len(colours) <= MOST_COLOURS:
        return channels, np.arange(len(colours), dtype=np.uint8)
    weights = np.sqrt(counts)  # large areas count for more, but not for everything
    weights = np.maximum(1, weights * min(1.0, LARGEST_STRIP / weights.sum())).astype(np.int64)
    strip = Image.fromarray(np.repeat(channels, weights, axis=0)[None])
    reduced = strip.quantize(MOST_COLOURS, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    palette = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    first = np.concatenate([[0], np.cumsum(weights)[:-1]])
    return palette, np.asarray(reduced)[0, first]


def contact_sheet(reel: Reel) -> Picture:
    """At most ``SHEET_PICTURES`` of the pictures in rows, evenly chosen, the first and the last among them."""
    places = np.unique(np.linspace(0, len(reel) - 1, SHEET_PICTURES).round().astype(int))
    chosen = [reel[place] for place in places.tolist()]
    height, width, _ = chosen[0].shape
    wanted = (len(chosen) * SHEET_SHAPE * height / width) ** 0.5
    near = [columns for columns in range(1, len(chosen) + 1) if abs(columns - wanted) <= 1.5]
    columns = min(near, key=lambda columns: (-len(chosen) % columns, abs(columns - wanted)))
    rows = -(-len(chosen) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for place, picture in enumerate(chosen):
        row, column = divmod(place, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return sheet


def png(picture: Picture) -> bytes:
    """One picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def mp4(reel: Reel, fps: float) -> bytes:
    """A film that every browser plays: H.264, its sides even numbers of pixels."""
    height, width, _ = reel[0].shape
    rows, columns = height % 2, width % 2
    with tempfile.TemporaryDirectory(prefix="ppo-play-") as folder:
        path = Path(folder) / "film.mp4"
        writer = find_ffmpeg().write_frames(
            str(path),
            (width + columns, height + rows),
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=1,
            output_params=["-crf", "18", "-preset", "slow", "-movflags", "+faststart"],
        )
        writer.send(None)
        for picture, end in zip(reel, reel.ends, strict=True):
            padded = np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")
            for _ in range(max(1, round(PAUSE * fps)) if end else 1):
                writer.send(padded)
        writer.close()
        return path.read_bytes()


def find_ffmpeg() -> Any:  # noqa: ANN401 - a module
    """The package that brings ffmpeg.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ValueError(
            "films are written by imageio-ffmpeg: pip install 'ppo-cli[video]'; a .gif needs nothing"
        ) from error
    return imageio_ffmpeg
