"""The workloads, the same for every contestant."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

WARM_UP = 2
"""Iterations at the start that are not timed; compiling happens there."""

PARTS = ("env", "inference", "rollout", "update", "logging")
"""What an iteration's time goes to. ``rollout`` is env and inference where they are one call."""


@dataclass(frozen=True)
class Work:
    """One workload: what is trained, in our command line's words, and what the others need to know of it."""

    meaning: str
    env: str  # cartpole or minesweeper
    num_envs: int
    rollout_length: int
    overrides: tuple[str, ...]
    total_env_steps: int  # of a JAX training, which runs as a whole

    @property
    def settings(self) -> tuple[str, ...]:
        """All but the environment, in our command line's words."""
        return (f"num_envs={self.num_envs}", f"rollout_length={self.rollout_length}", *COMMON, *self.overrides)


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


def cartpole(num_envs: int, total_env_steps: int) -> Work:
    """CartPole in so many environments."""
    minibatch = num_envs * 128 // 4
    meaning = (
        f"CartPole, {num_envs} envs x 128, 4 epochs x 4 minibatches of {minibatch:,}, 64-64 tanh, separate networks"
    )
    return Work(meaning, "cartpole", num_envs, 128, MLP, total_env_steps)


WORKS = {
    "W1": cartpole(4, 500_000),
    "W2": cartpole(64, 500_000),
    "W2k": cartpole(1024, 2_621_440),
    "W3": Work(
        "Minesweeper 9x9/10, 64 envs x 64, 4 epochs x 4 minibatches of 1,024, three 3x3 convolutions x 64",
        "minesweeper",
        64,
        64,
        BOARD,
        0,
    ),
}


class Meter:
    """Steps per second and the shares of the parts, from the end of the warm-up on."""

    def __init__(self, seconds: float, began: float) -> None:
        self.seconds = seconds
        self.began = began  # when the process was started, on the clock of time.time
        self.warm_up = 0.0
        self.iterations = 0
        self.started = 0.0
        self.elapsed = 0.0
        self.first_step = 0
        self.env_steps = 0
        self.parts = dict.fromkeys(PARTS, 0.0)

    def mark(self, env_steps: int, parts: dict[str, float]) -> bool:
        """After each iteration, with the seconds of its parts. True when the time is up."""
        self.iterations += 1
        now = time.perf_counter()
        if self.iterations <= WARM_UP:
            self.started, self.first_step = now, env_steps
            self.warm_up = time.time() - self.began
            return False
        for part, seconds in parts.items():
            self.parts[part] += seconds
        self.elapsed, self.env_steps = now - self.started, env_steps
        return self.elapsed >= self.seconds

    def result(self, episode_return: float) -> dict[str, Any]:
        """The figures of this measurement."""
        rate = (self.env_steps - self.first_step) / self.elapsed
        shares = {part: seconds / self.elapsed for part, seconds in self.parts.items()}
        figures = {"return": episode_return, "warm_up": self.warm_up, "peak_mb": peak_megabytes()}
        return {"steps_per_second": rate, **figures, **shares}


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # bytes there, kibibytes elsewhere
