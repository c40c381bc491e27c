"""Minesweeper for the trainer: N boards in one call, tensors that share their memory with the games, on any device.

Observation: ``board`` int8 [N, H, W] (-1 hidden, 0 to 8 mines around, -2 the mine that was hit) and ``legal`` bool
[N, H * W], True where the cell is hidden. Action: a cell, row * W + column. The hidden mines are in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.envs.base import Autoreset
from ppo_cli.envs.minesweeper.kernels_torch import TorchMinefield
from ppo_cli.envs.minesweeper.layout import FirstClick, Rules
from ppo_cli.envs.minesweeper.minefield import Minefield, Reward
from ppo_cli.envs.minesweeper.render import render_grid, render_rgb, with_mines
from ppo_cli.envs.minesweeper.tensors import BoardTensors
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Obs, Step

Backend = Literal["auto", "numba", "reference", "torch"]

NUM_PICTURED = 8


class MinesweeperVecEnv:
    """N games of Minesweeper. The final frame of a game, for pictures, is ``final_obs["board"]`` where done.

    A click on a cell that is already shown is not legal: it changes nothing, pays nothing and does not end the game.
    """

    autoreset: Autoreset = "same_step"
    truncates = False
    render_fps = 2.0

    def __init__(
        self,
        num_envs: Annotated[int, Range(at_least=1)],
        height: Annotated[int, Range(at_least=1)] = 9,
        width: Annotated[int, Range(at_least=1)] = 9,
        mines: Annotated[int, Range(at_least=1)] = 10,
        first_click: FirstClick = "safe",
        reward: Reward = "progress",
        shaping: Annotated[float, Range(at_least=0)] = 1.0,
        backend: Backend = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate the boards; `reset` begins the games.

        Args:
            num_envs: Boards played at once, N.
            height: Rows of the board. Beginner 9, intermediate 16, expert 16.
            width: Columns of the board. Beginner 9, intermediate 16, expert 30.
            mines: Mines on the board. Beginner 10, intermediate 40, expert 99.
            first_click: What the first click never hits. unsafe: it may be a mine; safe: it is not a mine; zero:
                neither it nor a cell around it is a mine. All other layouts are equally likely.
            reward: win: 1 for a cleared board, else 0. progress: the same plus the change of a potential, the share of
                safe cells that are shown (0 when the game is over); the best policy stays the same for gamma = 1.
            shaping: Weight of that potential; read with reward=progress only.
            backend: numba (compiled), reference (slow, to be read), torch (on the run's device, without copies to the
                host), or auto: torch on a GPU, else numba where it is installed.
            device: Where the torch backend plays; the others play on the CPU.

        Raises:
            ValueError: naming the setting, what was expected and what was given.
        """
        check_arguments(MinesweeperVecEnv.__init__, locals())
        self.num_envs = num_envs
        self.rules = Rules(height, width, mines, first_click)
        self.single_observation_space: spaces.Space[Any] = spaces.Dict(
            board=spaces.Box(-2, 8, self.rules.shape, np.int8), legal=spaces.MultiBinary(height * width)
        )
        self.single_action_space: spaces.Space[Any] = spaces.Discrete(height * width)
        self._device = torch.device(device)
        weight = shaping if reward == "progress" else 0.0
        self._field: Minefield | TorchMinefield
        if backend == "torch" or (backend == "auto" and self._device.type == "cuda"):
            self._field = TorchMinefield(num_envs, self.rules, weight, self._device)
            self._boards = self._field.boards
        else:
            self._field = Minefield(num_envs, self.rules, reward, shaping, backend)
            self._boards = BoardTensors.sharing(self._field.boards)
            self._device = torch.device("cpu")

        boards = self._boards
        self._answer = Step(
            obs=self._obs(boards.board, boards.legal),
            reward=boards.reward,
            terminated=boards.terminated,
            truncated=torch.zeros_like(boards.terminated),
            final_obs=self._obs(boards.final_board, boards.final_legal),
        )
        self._metrics = {
            "minesweeper/win_rate": boards.won,
            "minesweeper/revealed": boards.revealed,
        }

    @property
    def obs(self) -> Obs:
        """What the next action is chosen from, the tensors of the last `reset`, `step` or `load_state_dict`."""
        return self._answer.obs

    def reset(self, seeds: Sequence[int]) -> Obs:
        """Start N games; game n's boards depend on ``seeds[n]``, the episode number and the first click only."""
        self._field.start(seeds)
        return self._answer.obs

    def step(self, action: Tensor) -> Step:
        """Click one cell on each board; ``action`` [N] int64. The tensors are overwritten by the next call.

        Raises:
            ValueError: on another shape, or on an action that is no cell of the board; the torch backend does not look
                for the latter, which would mean to wait for the device: such an action clicks nothing.
        """
        self._field.step(action.to(self._device))
        return self._answer

    def episode_metrics(self) -> dict[str, Tensor]:
        """Won (1 or 0) and the share of safe cells shown, each [N], of the games that the last step ended."""
        return self._metrics

    def picture(self) -> NDArray[np.uint8] | None:
        """The final boards of up to eight games that the last step ended, uint8 [h, w, 3]; None where it ended none."""
        final_obs = self._answer.final_obs
        assert isinstance(final_obs, dict)
        finished = final_obs["board"][self._answer.terminated][:NUM_PICTURED]
        return render_grid(finished.cpu().numpy(), columns=min(len(finished), 4)) if len(finished) else None

    def frame(self) -> NDArray[np.uint8]:
        """Board 0 as pixels, uint8 [h, w, 3]; a finished game shows its mines."""
        return render_rgb(self.final_boards()[0])

    def final_boards(self) -> NDArray[np.int8]:
        """What the last step led to, [N, H, W]; finished games with their mines uncovered."""
        boards = self._boards
        laid = boards.mines & boards.terminated[:, None]
        shape = (self.num_envs, *self.rules.shape)
        shown = zip(boards.final_board.view(shape).cpu().numpy(), laid.view(shape).cpu().numpy(), strict=True)
        return np.stack([with_mines(board, mines) for board, mines in shown])

    def mines(self) -> Tensor:
        """The hidden mines [N, H, W] bool, all False before a game's first click. For tests and labels only."""
        laid = self._boards.mines & self._boards.placed[:, None]
        return laid.view(self.num_envs, *self.rules.shape)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the future depends on, as copies."""
        return self._boards.state()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit, whichever backend saved it; the current observation is then `obs`.

        Raises:
            ValueError: where the state belongs to another number of boards or another size.
        """
        self._boards.restore(state)

    def close(self) -> None:
        """Nothing to release."""

    def _obs(self, board: Tensor, legal: Tensor) -> dict[str, Tensor]:
        return {"board": board.view(self.num_envs, *self.rules.shape), "legal": legal}
