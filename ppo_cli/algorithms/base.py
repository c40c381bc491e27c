"""What the trainer asks of an algorithm."""

from __future__ import annotations

from typing import Protocol

from ppo_cli.train_state import TrainState
from ppo_cli.types import Metrics, Rollout


class Algorithm(Protocol):
    """A frozen dataclass: fields are hyperparameters, methods are equations. It keeps no state of its own."""

    @property
    def gamma(self) -> float:
        """Discount, which the running scale of returns needs too."""
        ...

    def update(self, state: TrainState, rollout: Rollout) -> Metrics:
        """Learn from one rollout, through ``state.evaluate`` and ``state.descend``; the update's metrics."""
        ...
