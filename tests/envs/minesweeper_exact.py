"""Exact optima of small boards: expectimax over sets of layouts that are still possible.

A position is a set of layouts, as the bits of an integer. Cells that are safe in all of them are shown at once (that
never hurts), so what is shown follows from the set. A position is worth the number of its layouts that the best player
wins.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ppo_cli.envs.minesweeper.layout import Rules
from ppo_cli.envs.minesweeper.rules import HIDDEN


class ExactSolver:
    """The best player of one small board; which layouts a game starts from is the caller's business."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.layouts = list(combinations(range(rules.num_cells), rules.mines))
        self.everything = (1 << len(self.layouts)) - 1
        self._values: dict[int, tuple[int, int]] = {}

    @cached_property
    def mine_sets(self) -> list[int]:
        """For each cell the layouts with a mine there."""
        return [self._collect([cell in layout for layout in self.layouts]) for cell in range(self.rules.num_cells)]

    @cached_property
    def number_sets(self) -> list[list[int]]:
        """For each cell the layouts in which it is safe and shows 0, 1, ... 8."""
        return [[self._showing(cell, number) for number in range(9)] for cell in range(self.rules.num_cells)]

    def wins(self, first: int) -> int:
        """Layouts won from the first click ``first``, of all layouts that have no mine there."""
        return sum(self.value(part & self.everything) for part in self.number_sets[first] if part)

    def value(self, possible: int) -> int:
        """Layouts of the position that the best player wins."""
        return self._solve(possible)[0]

    def action(self, board: NDArray[np.int8]) -> int:
        """The best click on a board [A] with at least one shown cell."""
        possible = self.everything
        for cell in np.flatnonzero(board != HIDDEN):
            possible &= self.number_sets[cell][board[cell]]
        for cell in np.flatnonzero(board == HIDDEN):
            if not possible & self.mine_sets[cell]:
                return int(cell)
        return self._solve(possible)[1]

    def _solve(self, possible: int) -> tuple[int, int]:
        """(layouts won, best cell) where no layout is left to chance that a safe click would tell apart."""
        if possible in self._values:
            return self._values[possible]
        parts = self._split_by_safe_cells(possible)
        self._values[possible] = (sum(map(self.value, parts)), -1) if len(parts) > 1 else self._guess(possible)
        return self._values[possible]

    def _split_by_safe_cells(self, possible: int) -> list[int]:
        parts = [possible]
        for cell in range(self.rules.num_cells):
            if not possible & self.mine_sets[cell]:
                parts = [inside for part in parts for numbers in self.number_sets[cell] if (inside := part & numbers)]
        return parts

    def _guess(self, possible: int) -> tuple[int, int]:
        if possible.bit_count() == 1:
            return 1, -1
        risks = sorted(
            (risk, cell)
            for cell, mines in enumerate(self.mine_sets)
            if 0 < (risk := (possible & mines).bit_count()) < possible.bit_count()
        )
        best, best_cell = 0, -1
        for risk, cell in risks:
            if possible.bit_count() - risk <= best:
                break  # no cell from here on survives often enough
            won = sum(self.value(part) for numbers in self.number_sets[cell] if (part := possible & numbers))
            if won > best:
                best, best_cell = won, cell
        return best, best_cell

    def _showing(self, cell: int, number: int) -> int:
        near = set(self.rules.neighbours[cell])
        return self._collect([cell not in layout and len(near & set(layout)) == number for layout in self.layouts])

    @staticmethod
    def _collect(members: list[bool]) -> int:
        return sum(1 << bit for bit, is_member in enumerate(members) if is_member)
