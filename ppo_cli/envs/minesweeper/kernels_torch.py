"""The game of `rules` as operations on tensors: the same boards, bit for bit, on the device where they are played.

A step has static shapes, branches on no value and never waits for the device, so that it can be captured in a CUDA
graph or compiled. That is tested on the CPU, where this spelling is much slower than `kernels_numba`; on a GPU it has
not been measured yet.

Two loops of the reference run until they are done. Here both have bounds that the rules give:

- *Draws.* All words that a layout might need are hashed at once, `num_draws` of them. Were they independent, fewer
  than 2**-64 of all games would need more; such a game would get its last mines in the order of the cells.
- *Dilations.* A region of zeros grows from the clicked cell by one ring of cells each time, `num_dilations` times: no
  layout has a cell that is further away.

Flooding keeps the games in the last dimension, [H, W, N]: a shift by a cell is then a shift by N.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ppo_cli.envs.minesweeper.layout import Rules
from ppo_cli.envs.minesweeper.minefield import new_boards, seed_words
from ppo_cli.envs.minesweeper.rules import GOLDEN, HIDDEN, MASK32, MASK64, MINE
from ppo_cli.envs.minesweeper.tensors import BoardTensors

REACH = {"unsafe": -1, "safe": 0, "zero": 1}
"""Cells that far from the first click, in king's moves, hold no mine."""

LOG_RARITY = 64 * np.log(2.0)
"""-log of the share of games that may need more draws than are made."""


def num_draws(rules: Rules) -> int:
    """Random words for one layout: more are needed in fewer than 2**-64 of all games.

    With d mines laid, a word lays the next one with probability p_d = (allowed cells - d) * floor(2**32 / A) / 2**32,
    so the number of words T is a sum of geometric variables. By Markov's inequality, for any z > 1 where it is finite,
    P(T > K) <= E[z**T] / z**K with E[z**T] = prod_d p_d z / (1 - (1 - p_d) z); the best z of a grid is taken.
    """
    height, width = rules.shape
    most_forbidden = {-1: 0, 0: 1, 1: min(3, height) * min(3, width)}[REACH[rules.first_click]]
    allowed = rules.num_cells - most_forbidden - np.arange(rules.mines)
    hit = allowed * (2**32 // rules.num_cells) / 2**32
    miss = np.maximum(1 - hit, 1e-9)  # a larger chance to miss: still a bound
    log_z = -np.log(miss.max()) * np.linspace(0.02, 0.98, 49)[:, None]
    log_moment = (np.log(hit) + log_z - np.log1p(-miss * np.exp(log_z))).sum(axis=1)
    return int(np.ceil(((log_moment + LOG_RARITY) / log_z[:, 0]).min()))


def num_dilations(rules: Rules) -> int:
    """The longest shortest path between two zeros of one region, in king's moves, is no longer than this.

    Take a shortest path p_0 ... p_D through zeros and put a plus of five cells on each. Two zeros with one cell between
    them in a row or column make that cell a zero too (a mine beside it would be beside one of them), so pluses that
    touch belong to p_i and p_j with |i - j| <= 2. Neighbours share two cells; p_i and p_{i+2} at most the cell between
    them, which the plus of p_{i+1} holds as well: the pluses cover at least 5 + 3 D cells. None of these is a mine, and
    all lie on the board or on the frame around it without its corners: 5 + 3 D + mines <= (H + 2)(W + 2) - 4.
    """
    return max(0, ((rules.height + 2) * (rules.width + 2) - 9 - rules.mines) // 3)


def signed(word: int) -> int:
    """The same 64 bits as a signed number, as tensors hold them; their sums and products wrap as unsigned ones do."""
    return word - 2**64 if word >= 2**63 else word


def shift_right(word: Tensor, bits: int) -> Tensor:
    """Unsigned 64-bit words moved right; int64 would repeat the sign."""
    return (word >> bits) & (MASK64 >> bits)


def mix(word: Tensor) -> Tensor:
    """`rules.mix`, element by element."""
    word = (word ^ shift_right(word, 30)) * signed(0xBF58476D1CE4E5B9)
    word = (word ^ shift_right(word, 27)) * signed(0x94D049BB133111EB)
    return word ^ shift_right(word, 31)


def count_around(laid: Tensor) -> Tensor:
    """Mines in each cell and the eight around it, [H, W, N] bool -> int8."""
    framed = functional.pad(laid.to(torch.int8), (0, 0, 1, 1, 1, 1))
    rows = framed[:-2] + framed[1:-1] + framed[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


class Flood:
    """A set of cells on each board that grows in place.

    Rows follow one another with a column between them that stays empty: the cells around a cell are then so many places
    before and after it, and every operation runs over one piece of memory. The views are made once, because making
    them costs the host as much as a small kernel.
    """

    def __init__(self, shape: tuple[int, int], num_games: int, device: torch.device) -> None:
        height, width = shape
        row, size = width + 1, height * (width + 1)
        places = torch.zeros((size + 2 * row + 2, num_games), dtype=torch.bool, device=device)
        self.cells = places[row + 1 : row + 1 + size]  # [H * (W + 1), N]
        self._rows = [places[number * row : number * row + size + 2] for number in range(3)]
        self._band = torch.zeros((size + 2, num_games), dtype=torch.bool, device=device)
        self._columns = [self._band[number : number + size] for number in range(3)]

    def spread(self) -> None:
        """Take in the cells around each cell, and whatever of the columns between the rows, which is to be masked."""
        above, level, below = self._rows
        torch.bitwise_or(above, level, out=self._band).bitwise_or_(below)
        left, middle, right = self._columns
        torch.bitwise_or(left, middle, out=self.cells).bitwise_or_(right)

    @staticmethod
    def layout(cells: Tensor) -> Tensor:
        """[H, W, N] bool as the flood holds them, [H * (W + 1), N]."""
        return functional.pad(cells, (0, 0, 0, 1)).flatten(0, 1)


class TorchMinefield:
    """N games under the same rules on ``device``. A game that ends is replaced at once by its seed's next one."""

    def __init__(self, num_games: int, rules: Rules, shaping: float, device: torch.device) -> None:
        """Allocate the tensors; `start` begins the games.

        Args:
            num_games: N.
            rules: Size, mines and first-click rule.
            shaping: Weight of the potential, 0 without one.
            device: Where the games are played.
        """
        self.rules = rules
        host_boards = BoardTensors.sharing(new_boards(num_games, rules.num_cells))
        self.boards = BoardTensors(*(tensor.to(device) for tensor in host_boards))

        draws, cells = num_draws(rules), rules.num_cells
        self._num_dilations = num_dilations(rules)
        self._never = draws + cells  # after all draws and all cells that were not drawn
        counter = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        self._counter = torch.from_numpy(counter.view(np.int64)).to(device)
        self._draw = torch.arange(draws, device=device)
        self._undrawn = torch.arange(draws, draws + cells, device=device).expand(num_games, cells)
        self._cell = torch.arange(cells, device=device)
        self._flood = Flood(rules.shape, num_games, device)

        shown = np.arange(rules.num_safe + 1)  # tables, because devices round a division each in their own way
        self._potential = torch.from_numpy(shaping * shown / rules.num_safe).to(device)
        self._share = torch.from_numpy((shown / rules.num_safe).astype(np.float32)).to(device)

    def start(self, seeds: Iterable[int]) -> None:
        """Begin episode 0 of each seed.

        Raises:
            ValueError: unless there is one seed per game, each in [0, 2**64).
        """
        boards = self.boards
        words = torch.from_numpy(seed_words(seeds, len(boards.seed)).view(np.int64))
        boards.seed.copy_(words.to(boards.seed.device))
        boards.episode.zero_()
        boards.placed.zero_()
        boards.num_shown.zero_()
        boards.terminated.zero_()
        for board, legal in ((boards.board, boards.legal), (boards.final_board, boards.final_legal)):
            board.fill_(HIDDEN)
            legal.fill_(True)

    def step(self, action: Tensor) -> BoardTensors:
        """Click one cell in each game, as `rules.step_boards` does; ``action`` [N] int64 on the games' device.

        An action that is no cell clicks nothing: finding it out would mean to wait for the device. Returns the tensors,
        changed in place.

        Raises:
            ValueError: on another shape.
        """
        boards = self.boards
        if action.shape != boards.seed.shape:
            raise ValueError(f"expected actions of shape {tuple(boards.seed.shape)}, got {tuple(action.shape)}")
        layout = self.place_mines(boards.seed, boards.episode, action)  # of all games: only fresh ones take it
        boards.mines.copy_(torch.where(boards.placed[:, None], boards.mines, layout))
        clicked = (self._cell == action[:, None]) & boards.legal
        after = self.reveal(boards.mines, boards.board, clicked)

        num_shown = (after >= 0).sum(dim=1)
        won = num_shown == self.rules.num_safe
        over = won | (after == MINE).any(dim=1)
        shaped = self._potential[num_shown].masked_fill(over, 0.0) - self._potential[boards.num_shown]
        boards.reward.copy_(won + shaped)
        boards.terminated.copy_(over)
        boards.won.copy_(torch.where(over, won, boards.won))
        boards.revealed.copy_(torch.where(over, self._share[num_shown], boards.revealed))
        boards.final_board.copy_(after)
        boards.final_legal.copy_(after == HIDDEN)

        boards.episode.add_(over)
        boards.placed.copy_(~over)
        boards.num_shown.copy_(num_shown.masked_fill(over, 0))
        boards.board.copy_(after.masked_fill(over[:, None], HIDDEN))
        boards.legal.copy_(boards.board == HIDDEN)
        return boards

    def place_mines(self, seed: Tensor, episode: Tensor, first: Tensor) -> Tensor:
        """`rules.place_mines` for games whose first clicks are ``first`` [N]; [N, A] bool.

        A cell's rank is the first draw that names it. The mines are the allowed cells of lowest rank.
        """
        num_cells, width = self.rules.num_cells, self.rules.width
        key = mix(mix(seed + signed(GOLDEN)) + (episode + 1) * signed(GOLDEN))
        product = shift_right(mix(key[:, None] + self._counter), 32) * num_cells  # below 2**48: never negative
        accepted = (product & MASK32) >= 2**32 % num_cells
        draw = torch.where(accepted, self._draw, self._never)
        rank = self._undrawn.scatter_reduce(1, product >> 32, draw, "amin")

        down = (self._cell // width - (first // width)[:, None]).abs()
        right = (self._cell % width - (first % width)[:, None]).abs()
        forbidden = torch.maximum(down, right) <= REACH[self.rules.first_click]
        lowest = (rank + self._never * forbidden).topk(self.rules.mines, dim=1, largest=False, sorted=False).indices
        return torch.zeros_like(forbidden).scatter_(1, lowest, True)

    def reveal(self, mines: Tensor, board: Tensor, clicked: Tensor) -> Tensor:
        """`rules.reveal` for hidden cells ``clicked`` [N, A], at most one in each game; the boards after it [N, A]."""
        laid, opened = self._games_last(mines), self._games_last(clicked)
        number = count_around(laid)
        flood, zero = self._flood, Flood.layout(number == 0)
        torch.bitwise_and(Flood.layout(opened), zero, out=flood.cells)
        for _ in range(self._num_dilations):
            flood.spread()
            flood.cells.bitwise_and_(zero)
        flood.spread()
        height, width = self.rules.shape
        shown = opened | flood.cells.view(height, width + 1, -1)[:, :width]
        code = number.masked_fill(laid, MINE)
        return torch.where(shown.flatten(0, 1).t(), code.flatten(0, 1).t(), board)

    def _games_last(self, cells: Tensor) -> Tensor:
        """[N, A] -> [H, W, N]."""
        return cells.t().contiguous().view(*self.rules.shape, -1)
