"""Size of the board, number of mines and the first-click rule: what a layout must obey. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

FirstClick = Literal["unsafe", "safe", "zero"]

MAX_CELLS = 65535  # the kernel counts cells in 16 bits


@dataclass(frozen=True)
class Rules:
    """Size of the board, number of mines, and what the first click may hit.

    Raises:
        ValueError: where some first click could not be placed, or no safe cell would be left.
    """

    height: int = 9
    width: int = 9
    mines: int = 10
    first_click: FirstClick = "safe"

    def __post_init__(self) -> None:
        if self.first_click not in get_args(FirstClick):
            raise ValueError(f"env.first_click must be one of unsafe, safe, zero, got {self.first_click!r}")
        if min(self.height, self.width) < 1 or self.num_cells < 2:
            raise ValueError(
                f"env.height and env.width must be at least 1 and make at least 2 cells, got {self.height}x{self.width}"
            )
        if self.num_cells > MAX_CELLS:
            raise ValueError(f"env.height * env.width must be at most {MAX_CELLS}, got {self.height}x{self.width}")
        kept_free = min(3, self.height) * min(3, self.width) if self.first_click == "zero" else 1
        most = self.num_cells - kept_free
        board = f"a {self.height}x{self.width} board with first_click={self.first_click}"
        if most < 1:
            raise ValueError(f"env.height and env.width leave no room for a mine on {board}; make the board larger")
        if not 1 <= self.mines <= most:
            raise ValueError(f"env.mines must be between 1 and {most} on {board}, got {self.mines}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def num_cells(self) -> int:
        """Cells of the board, A."""
        return self.height * self.width

    @property
    def num_safe(self) -> int:
        """Cells without a mine; showing all of them wins."""
        return self.num_cells - self.mines

    @cached_property
    def neighbours(self) -> list[list[int]]:
        """The 3 to 8 cells around each cell."""
        rows, columns = range(self.height), range(self.width)
        return [
            [
                (row + down) * self.width + column + right
                for down in (-1, 0, 1)
                for right in (-1, 0, 1)
                if (down, right) != (0, 0) and row + down in rows and column + right in columns
            ]
            for row in rows
            for column in columns
        ]

    def forbidden(self, first: int) -> set[int]:
        """Cells that hold no mine when ``first`` is the first click."""
        match self.first_click:
            case "unsafe":
                return set()
            case "safe":
                return {first}
            case "zero":
                return {first, *self.neighbours[first]}
