"""The workloads, the same for every contestant."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

WARM_UP = 2
"""Iterations at the start that are not timed."""


@dataclass(frozen=True)
class Work:
    """One workload: what is trained, in our command line's words, and for SB3."""

    meaning: str
    env: str
    num_envs: int
    rollout_length: int
    overrides: tuple[str, ...]


COMMON = (
    "num_epochs=4", "num_minibatches=4", "learning_rate=2.5e-4", "learning_rate_schedule=linear", "gamma=0.99",
    "gae_lambda=0.95", "clip=0.2", "value_coef=0.5", "entropy_coef=0.01", "max_grad_norm=0.5", "normalize_obs=false",
    "normalize_reward=false", "target_kl=0", "entropy_schedule=constant", "clip_schedule=constant", "clip_value=0",
)  # fmt: skip
MLP = ("network=mlp", "network.hidden=[64,64]", "network.activation=tanh")
BOARD = (
    "network=board",
    "network.channels=64",
    "network.num_layers=3",
    "network.residual=false",
    "network.symmetric=false",
)

WORKS = {
    "W1": Work("CartPole, 4 envs x 128, 4 epochs x 4 minibatches of 128, 64-64 tanh, separate nets",
               "cartpole", 4, 128, MLP),
    "W2": Work("CartPole, 64 envs x 128, 4 epochs x 4 minibatches of 2048, 64-64 tanh, separate nets",
               "cartpole", 64, 128, MLP),
    "W3": Work("Minesweeper 9x9/10, 64 envs x 64, 4 epochs x 4 minibatches of 1024, three 3x3 convolutions x 64",
               "minesweeper", 64, 64, BOARD),
}  # fmt: skip


class Meter:
    """Steps per second and the shares of the parts, from the end of the warm-up on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.iterations = 0
        self.started = 0.0
        self.elapsed = 0.0
        self.first_step = 0
        self.env_steps = 0
        self.parts = {"env": 0.0, "inference": 0.0, "update": 0.0}

    def mark(self, env_steps: int, parts: dict[str, float]) -> bool:
        """After each iteration, with the seconds of its parts. True when the time is up."""
        self.iterations += 1
        now = time.perf_counter()
        if self.iterations <= WARM_UP:
            self.started, self.first_step = now, env_steps
            return False
        for part, seconds in parts.items():
            self.parts[part] += seconds
        self.elapsed, self.env_steps = now - self.started, env_steps
        return self.elapsed >= self.seconds

    def result(self, episode_return: float) -> dict[str, Any]:
        """The figures of this measurement."""
        rate = (self.env_steps - self.first_step) / self.elapsed
        shares = {part: seconds / self.elapsed for part, seconds in self.parts.items()}
        return {"steps_per_second": rate, "return": episode_return, **shares}
