"""Figures of finished episodes: means over a window of the latest ones, with a count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Figures = Tensor | NDArray[Any]

RETURN_TAG = "charts/episodic_return"
LENGTH_TAG = "charts/episodic_length"
COUNT_TAG = "charts/episodes"
TRUNCATED_TAG = "charts/truncated_share"


class EpisodeWindow:
    """The latest finished episodes of a run, and how many there were in all.

    The window holds the last ``size`` episodes, or every episode of the last update where those are more: a curve
    that is smooth for long episodes, and that throws no sample away for short ones.

    Args:
        size: Episodes that the window holds at least, once that many have finished.
    """

    def __init__(self, size: int = 100) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size
        self.count = 0
        self._values: dict[str, NDArray[np.float64]] = {}  # tag to [W], oldest first
        self._metrics: dict[str, float] | None = {}  # of these values, None where they are not known yet

    def add(self, episode_return: Figures, episode_length: Figures, extra: Mapping[str, Figures] | None = None) -> None:
        """Take in the k episodes that finished during one update, in the order they ended.

        Args:
            episode_return: Undiscounted sum of the rewards as the environment paid them, [k].
            episode_length: Steps, [k].
            extra: The environment's own figures by tag, each [k], such as ``minesweeper/win_rate``.
        """
        finished = len(episode_return)
        self.count += finished
        if finished == 0:
            return
        self._metrics = None
        keep = max(self.size, finished)
        for tag, value in {RETURN_TAG: episode_return, LENGTH_TAG: episode_length, **(extra or {})}.items():
            latest = np.asarray(value.cpu() if isinstance(value, Tensor) else value, np.float64)
            self._values[tag] = np.concatenate((self._values.get(tag, latest[:0]), latest))[-keep:]

    def metrics(self) -> dict[str, float]:
        """Window means by tag, the spread of the return, and the count so far. Empty before the first episode ends."""
        if self._metrics is None:
            self._metrics = self._figures()
        return self._metrics

    def _figures(self) -> dict[str, float]:
        episode_return = self._values[RETURN_TAG]
        means = {tag: float(value.sum()) / len(value) for tag, value in self._values.items()}
        deviation = episode_return - means[RETURN_TAG]
        return {
            **means,
            f"{RETURN_TAG}_std": math.sqrt(deviation @ deviation / len(deviation)),
            f"{RETURN_TAG}_min": float(episode_return.min()),
            f"{RETURN_TAG}_max": float(episode_return.max()),
            COUNT_TAG: float(self.count),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the count and the window's values by tag."""
        values = {tag: torch.from_numpy(value.copy()) for tag, value in self._values.items()}
        return {"count": self.count, "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.count = int(state["count"])
        self._values = {tag: value.numpy().copy() for tag, value in state["values"].items()}
        self._metrics = self._figures() if self._values else {}
