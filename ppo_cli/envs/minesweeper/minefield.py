"""N games played as one, on NumPy arrays: what the training environment and the Gymnasium environments stand on."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppo_cli.envs.minesweeper import rules as reference
from ppo_cli.envs.minesweeper.layout import Rules
from ppo_cli.envs.minesweeper.rules import HIDDEN, Boards

Backend = Literal["auto", "numba", "reference"]
Reward = Literal["progress", "win"]


class Minefield:
    """N games under the same rules. A game that ends is replaced at once by its seed's next one."""

    def __init__(
        self,
        num_games: int,
        rules: Rules,
        reward: Reward = "progress",
        shaping: float = 1.0,
        backend: Backend = "auto",
    ) -> None:
        """Allocate the arrays; `start` begins the games.

        Args:
            num_games: N.
            rules: Size, mines and first-click rule.
            reward: ``win`` pays for a cleared board only, ``progress`` adds the potential (`rules.step_boards`).
            shaping: Weight of the potential, read with ``progress`` only.
            backend: ``numba``, ``reference`` (slow, to be read), or ``auto``: Numba where it is installed.
        """
        self.rules = rules
        self.boards = new_boards(num_games, rules.num_cells)
        self._click = _step_function(rules, shaping if reward == "progress" else 0.0, backend)

    def start(self, seeds: Iterable[int]) -> None:
        """Begin episode 0 of each seed.

        Raises:
            ValueError: unless there is one seed per game, each in [0, 2**64).
        """
        self.boards.seed[:] = seed_words(seeds, len(self.boards.seed))
        self.boards.episode[:] = 0
        self._clear()

    def start_next(self) -> None:
        """Give up the games that are under way for their seeds' next episodes; untouched games stay."""
        self.boards.episode[self.boards.placed] += np.uint64(1)
        self._clear()

    def lay_mines(self, mines: ArrayLike) -> None:
        """Fix the layouts of the running, still untouched games, [N, A] or anything of that many cells.

        Raises:
            ValueError: on another number of cells or of mines.
        """
        layouts = np.asarray(mines, np.bool_)
        if layouts.size != self.boards.mines.size:
            raise ValueError(f"expected a mine mask of {self.boards.mines.size} cells, got shape {layouts.shape}")
        layouts = layouts.reshape(self.boards.mines.shape)
        if (layouts.sum(axis=1) != self.rules.mines).any():
            raise ValueError(f"expected {self.rules.mines} mines on each board, got {layouts.sum(axis=1).tolist()}")
        self.boards.mines[:] = layouts
        self.boards.placed[:] = True

    def step(self, action: ArrayLike) -> Boards:
        """Click one cell, row * W + column, in each game; ``action`` [N]. Returns the arrays, changed in place.

        Raises:
            ValueError: on another shape, or on an action outside [0, A); nothing has changed then.
        """
        cells = np.ascontiguousarray(action, np.int64)
        if cells.shape != self.boards.seed.shape:
            raise ValueError(f"expected actions of shape {self.boards.seed.shape}, got {cells.shape}")
        # As unsigned numbers, negative ones are the largest: one pass finds both kinds of strays.
        if cells.view(np.uint64).max() >= self.rules.num_cells:
            stray = cells[cells.view(np.uint64) >= self.rules.num_cells][0]
            raise ValueError(f"actions must be cells from 0 to {self.rules.num_cells - 1}, got {stray}")
        self._click(self.boards, cells)
        return self.boards

    def mines(self) -> NDArray[np.bool_]:
        """The hidden layouts [N, A]: for tests and labels, never for a player. Empty before the first click."""
        return self.boards.mines & self.boards.placed[:, None]

    def _clear(self) -> None:
        reference.clear(self.boards, slice(None))
        self.boards.final_board[:] = HIDDEN
        self.boards.final_legal[:] = True
        self.boards.terminated[:] = False


def seed_words(seeds: Iterable[int], num_games: int) -> NDArray[np.uint64]:
    """``seeds`` as 64-bit words, [N].

    Raises:
        ValueError: unless there is one seed per game, each in [0, 2**64).
    """
    words = list(seeds)
    if len(words) != num_games:
        raise ValueError(f"expected one seed for each of {num_games} games, got {len(words)}")
    if not all(0 <= word < 2**64 for word in words):
        raise ValueError(f"seeds must lie in [0, 2**64), got {next(w for w in words if not 0 <= w < 2**64)}")
    return np.array(words, np.uint64)


def new_boards(num_games: int, num_cells: int) -> Boards:
    """The arrays of N games of A cells that have not begun."""
    games, cells = (num_games,), (num_games, num_cells)
    return Boards(
        seed=np.zeros(games, np.uint64),
        episode=np.zeros(games, np.uint64),
        placed=np.zeros(games, np.bool_),
        num_shown=np.zeros(games, np.int64),
        mines=np.zeros(cells, np.bool_),
        board=np.full(cells, HIDDEN, np.int8),
        legal=np.ones(cells, np.bool_),
        final_board=np.full(cells, HIDDEN, np.int8),
        final_legal=np.ones(cells, np.bool_),
        reward=np.zeros(games, np.float32),
        terminated=np.zeros(games, np.bool_),
        won=np.zeros(games, np.float32),
        revealed=np.zeros(games, np.float32),
    )


def _step_function(rules: Rules, shaping: float, backend: Backend) -> Callable[[Boards, NDArray[np.int64]], None]:
    has_numba = importlib.util.find_spec("numba") is not None
    if backend == "auto" and not has_numba:
        warnings.warn("numba is not installed: Minesweeper runs on the slow reference backend", stacklevel=4)
    if backend == "reference" or (backend == "auto" and not has_numba):
        return functools.partial(_reference_step, rules, shaping)
    if not has_numba:
        raise ValueError("env.backend=numba needs numba: pip install numba, or choose env.backend=reference")
    from ppo_cli.envs.minesweeper.kernels_numba import compiled_step

    return compiled_step(rules, shaping)


def _reference_step(rules: Rules, shaping: float, boards: Boards, action: NDArray[np.int64]) -> None:
    reference.step_boards(rules, boards, action, shaping)
