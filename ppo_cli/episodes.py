"""Figures of finished episodes: means over a window of the latest ones, with a count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppo_cli.types import Metrics

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
        self._values: dict[str, Tensor] = {}  # tag to [W] float64, oldest first

    def add(self, episode_return: Tensor, episode_length: Tensor, extra: Mapping[str, Tensor] | None = None) -> None:
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
        keep = max(self.size, finished)
        for tag, value in {RETURN_TAG: episode_return, LENGTH_TAG: episode_length, **(extra or {})}.items():
            latest = value.detach().to("cpu", torch.float64)
            self._values[tag] = torch.cat((self._values.get(tag, latest[:0]), latest))[-keep:]

    def metrics(self) -> Metrics:
        """Window means by tag, the spread of the return, and the count so far. Empty before the first episode ends."""
        if not self._values:
            return {}
        episode_return = self._values[RETURN_TAG]
        return {
            **{tag: value.mean() for tag, value in self._values.items()},
            f"{RETURN_TAG}_std": episode_return.std(correction=0),
            f"{RETURN_TAG}_min": episode_return.min(),
            f"{RETURN_TAG}_max": episode_return.max(),
            COUNT_TAG: torch.tensor(float(self.count), dtype=torch.float64),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the count and the window's values by tag."""
        return {"count": self.count, "values": dict(self._values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.count = int(state["count"])
        self._values = dict(state["values"])
