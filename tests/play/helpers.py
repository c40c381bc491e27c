"""Agents that need no training, and a terminal to play in."""

from __future__ import annotations

import io
import os
import pty
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from ppo_cli.distributions import Categorical, Gaussian
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.play.agent import Agent

CPU = torch.device("cpu")


class Preference:
    """A policy that likes cells in a fixed order, the first one most, and expects the same value everywhere."""

    def __init__(self, order: list[int], value: float = 0.0) -> None:
        self.logits = torch.zeros(len(order))
        self.logits[order] = torch.arange(len(order), 0, -1).float()
        self.value = value

    def __call__(self, obs: Any) -> tuple[Any, Tensor]:
        legal = obs["legal"] if isinstance(obs, dict) else None
        return Categorical.from_logits(self.logits[None], legal), torch.tensor([self.value])


class Still:
    """A continuous policy that does nothing."""

    def __call__(self, obs: Tensor) -> tuple[Any, Tensor]:
        return Gaussian(torch.zeros(1, 1), torch.zeros(1, 1)), torch.zeros(1)


def agent(env: Any, actor_critic: Any, name: str = "ours", **settings: Any) -> Agent:
    return Agent(name, env, actor_critic, ObsNormalizer((), enabled=False), CPU, **settings)


def minesweeper_agent(order: list[int] | None = None, value: float = 0.0, **settings: Any) -> Agent:
    """On 3x3 cells with three mines; clicks them in reading order unless told otherwise."""
    env = MinesweeperVecEnv(1, height=3, width=3, mines=3, backend="reference")
    return agent(env, Preference(order or list(range(9)), value), shaping=1.0, **settings)


class Terminal:
    """The master's side of a terminal that the program believes to be its own."""

    def __init__(self, master: int, slave: int) -> None:
        self.slave = slave
        self._master = master
        self._seen: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    @property
    def screen(self) -> str:
        return b"".join(self._seen).decode(errors="replace")

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        os.close(self.slave)
        self._reader.join(timeout=5)
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                self._seen.append(os.read(self._master, 65536))
            except OSError:  # the other side is closed
                return


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[Terminal]:
    """Standard input and output on a terminal."""
    master, slave = pty.openpty()
    shown = Terminal(master, slave)
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"} | environment).items():
        monkeypatch.setenv(name, value)
    with (
        open(slave, closefd=False) as stdin,
        io.TextIOWrapper(open(slave, "wb", buffering=0, closefd=False), write_through=True, encoding="utf-8") as stdout,
    ):
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        yield shown
        monkeypatch.undo()
    shown.close()
