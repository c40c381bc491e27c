"""Minesweeper as a Gymnasium environment, alone and vectorised.

Importing this module registers the ids; ``gymnasium.make`` does it by itself when the module stands before the id::

    gymnasium.make("ppo_cli.envs.minesweeper.gymnasium_env:ppo_cli/Minesweeper-v0", first_click="zero")
    gymnasium.make_vec("ppo_cli/MinesweeperExpert-v0", num_envs=1024)

An observation is the board, int8 [H, W]: -1 hidden, 0 to 8 mines around, -2 the mine that was hit. An action is a cell,
row * W + column. The action mask is in ``info["action_mask"]`` (int8, as ``Discrete.sample`` wants it) and in
``action_masks()`` (bool). ``info["is_success"]`` tells at the end whether the board was cleared. Hidden mines are in
none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ppo_cli.envs.minesweeper.layout import FirstClick, Rules
from ppo_cli.envs.minesweeper.minefield import Backend, Minefield, Reward
from ppo_cli.envs.minesweeper.render import render_ansi, render_rgb, with_mines

Board = NDArray[np.int8]
Frame = str | NDArray[np.uint8]

RENDER_MODES = ["ansi", "rgb_array"]
LEVELS = {
    "Minesweeper": {"height": 9, "width": 9, "mines": 10},
    "MinesweeperIntermediate": {"height": 16, "width": 16, "mines": 40},
    "MinesweeperExpert": {"height": 16, "width": 30, "mines": 99},
}


class MinesweeperEnv(gymnasium.Env[Board, np.int64]):
    """One game. ``reset(seed=s)`` starts the games of seed s; without a seed its next game follows.

    ``reset(options={"mines": mask})`` with a bool mask [H, W] lays the mines itself, whatever the first click.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": RENDER_MODES, "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        height: int = 9,
        width: int = 9,
        mines: int = 10,
        first_click: FirstClick = "safe",
        reward: Reward = "progress",
        shaping: float = 1.0,
        backend: Backend = "auto",
        render_mode: str | None = None,
    ) -> None:
        """See `MinesweeperVecEnv` for the settings.

        Raises:
            ValueError: on settings that make no board.
        """
        _check_render_mode(render_mode)
        self.render_mode = render_mode
        self._field = Minefield(1, Rules(height, width, mines, first_click), reward, shaping, backend)
        self._ended_with: Board | None = None
        self.observation_space = _board_space(self._field.rules)
        self.action_space = spaces.Discrete(height * width)
        self._has_seed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Board, dict[str, Any]]:
        """Start a game.

        Raises:
            ValueError: where ``options["mines"]`` has another shape or another number of mines.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._field.start([seed])
        elif not self._has_seed:
            self._field.start([int(self.np_random.integers(2**32))])
        else:
            self._field.start_next()
        self._has_seed = True
        self._ended_with = None
        if options and "mines" in options:
            self._field.lay_mines(options["mines"])
        return self._board(), self._info()

    def step(self, action: np.int64) -> tuple[Board, float, bool, bool, dict[str, Any]]:
        """Click a cell; one that is already shown changes nothing and pays nothing.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset` and after the end of a game.
            ValueError: where ``action`` is no cell.
        """
        if not self._has_seed or self._ended_with is not None:
            raise gymnasium.error.ResetNeeded("no game is under way: call reset() before step()")
        boards = self._field.step([action])
        terminated = bool(boards.terminated[0])
        info = self._info()
        if terminated:
            info["is_success"] = bool(boards.won[0])
            self._ended_with = with_mines(self._board(), boards.mines.reshape(self._field.rules.shape))
        return self._board(), float(boards.reward[0]), terminated, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """True where a cell is hidden, [H * W]."""
        return np.array(self._field.boards.final_legal[0])

    def render(self) -> Frame | None:
        """The board as text or as pixels; a finished game shows its mines."""
        return _frame(self._board() if self._ended_with is None else self._ended_with, self.render_mode)

    def _board(self) -> Board:
        return self._field.boards.final_board.reshape(self._field.rules.shape).copy()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().astype(np.int8)}


class MinesweeperVectorEnv(VectorEnv[Board, NDArray[np.int64], NDArray[Any]]):
    """N games in one call. A game that ends is replaced in the same step; ``info["final_obs"]`` has its last frame."""

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": RENDER_MODES,
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        height: int = 9,
        width: int = 9,
        mines: int = 10,
        first_click: FirstClick = "safe",
        reward: Reward = "progress",
        shaping: float = 1.0,
        backend: Backend = "auto",
        render_mode: str | None = None,
    ) -> None:
        """See `MinesweeperVecEnv` for the settings.

        Raises:
            ValueError: on settings that make no board.
        """
        _check_render_mode(render_mode)
        self.render_mode = render_mode
        self.num_envs = num_envs
        self._field = Minefield(num_envs, Rules(height, width, mines, first_click), reward, shaping, backend)
        self.single_observation_space = _board_space(self._field.rules)
        self.single_action_space = spaces.Discrete(height * width)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._has_seed = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Board, dict[str, Any]]:
        """Start N games, from ``seed``, ``seed + 1``, ... or from a list; without seeds each seed's next game follows.

        ``options["mines"]``, bool [N, H, W], lays the mines of this first game of each board.

        Raises:
            ValueError: on another number of seeds, or on masks of another shape or number of mines.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        if isinstance(seed, int):
            self._field.start(range(seed, seed + self.num_envs))
        elif seed is not None or not self._has_seed:
            chosen = [None] * self.num_envs if seed is None else seed
            drawn = self.np_random.integers(2**32, size=len(chosen)).tolist()
            self._field.start(spare if word is None else word for word, spare in zip(chosen, drawn, strict=True))
        else:
            self._field.start_next()
        self._has_seed = True
        if options and "mines" in options:
            self._field.lay_mines(options["mines"])
        boards = self._field.boards
        return self._shaped(boards.board), self._mask_info(boards.legal, np.ones(self.num_envs, np.bool_))

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Board, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Click one cell on each board, ``actions`` [N]. The arrays are the caller's to keep.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`.
            ValueError: where an action is no cell.
        """
        if not self._has_seed:
            raise gymnasium.error.ResetNeeded("no game is under way: call reset() before step()")
        boards = self._field.step(actions)
        terminated = boards.terminated.copy()
        info = self._mask_info(boards.legal, np.ones(self.num_envs, np.bool_))
        if terminated.any():
            info |= self._final_info(terminated)
        return self._shaped(boards.board), boards.reward.astype(np.float64), terminated, np.zeros_like(terminated), info

    def action_masks(self) -> NDArray[np.bool_]:
        """True where a cell is hidden, [N, H * W]."""
        return self._field.boards.legal.copy()

    def render(self) -> tuple[Frame | None, ...]:  # type: ignore[override]
        """Each board as text or as pixels."""
        return tuple(_frame(board, self.render_mode) for board in self._shaped(self._field.boards.board))

    def _shaped(self, board: Board) -> Board:
        return board.reshape(self.num_envs, *self._field.rules.shape).copy()

    def _mask_info(self, legal: NDArray[np.bool_], present: NDArray[np.bool_]) -> dict[str, Any]:
        return {"action_mask": (legal & present[:, None]).astype(np.int8), "_action_mask": present}

    def _final_info(self, terminated: NDArray[np.bool_]) -> dict[str, Any]:
        boards = self._field.boards
        final_obs = np.full(self.num_envs, None, object)
        for n in np.flatnonzero(terminated):
            final_obs[n] = boards.final_board[n].reshape(self._field.rules.shape).copy()
        final_info = self._mask_info(boards.final_legal, terminated.copy())
        final_info |= {"is_success": (boards.won > 0) & terminated, "_is_success": terminated.copy()}
        return {
            "final_obs": final_obs,
            "_final_obs": terminated.copy(),
            "final_info": final_info,
            "_final_info": terminated.copy(),
        }


def register() -> None:
    """Make the ids known to Gymnasium; once is enough, twice does no harm."""
    for name, level in LEVELS.items():
        env_id = f"ppo_cli/{name}-v0"
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point=f"{__name__}:MinesweeperEnv",
                vector_entry_point=f"{__name__}:MinesweeperVectorEnv",
                kwargs=dict(level),
            )


def _board_space(rules: Rules) -> spaces.Space[Any]:
    return spaces.Box(-2, 8, rules.shape, np.int8)


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode not in (None, *RENDER_MODES):
        raise ValueError(f"render_mode must be one of None, ansi, rgb_array, got {render_mode!r}")


def _frame(board: Board, render_mode: str | None) -> Frame | None:
    match render_mode:
        case "ansi":
            return render_ansi(board)
        case "rgb_array":
            return render_rgb(board)
        case _:
            return None


register()
