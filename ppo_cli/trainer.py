"""The training loop: collect, update, count, log, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppo_cli import checkpoint
from ppo_cli.accelerate import Execution
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.envs.base import HasPicture
from ppo_cli.logger import RunLogger, Status
from ppo_cli.rollout import Collector
from ppo_cli.signals import StopRequest, stop_on_signals
from ppo_cli.train_state import TrainState

CHECKPOINT_FOLDER = "checkpoints"
NUM_PICTURES = 20
"""Pictures of finished episodes that a run leaves in TensorBoard."""


@dataclass(frozen=True)
class Intervals:
    """How often the loop does what is not learning, in the units of each field."""

    log: int = 1  # updates
    checkpoint: int = 0  # env steps; 0 is at the end only
    evaluation: int = 0  # env steps; 0 is never
    keep_checkpoints: int = 3


@dataclass
class Trainer:
    """One run: what learns, where it plays, who is told."""

    state: TrainState
    algorithm: Algorithm
    collector: Collector
    logger: RunLogger
    run_dir: Path
    intervals: Intervals
    evaluate: Callable[[], dict[str, float]] | None = None
    execution: Execution = field(default_factory=Execution)
    resumes: int = 0
    saved_at: int = -1
    evaluated: dict[str, float] = field(default_factory=dict)  # waiting to be logged
    picture_due: bool = True
    artist: HasPicture | None = field(init=False)

    def __post_init__(self) -> None:
        env = self.collector.env
        self.artist = env if isinstance(env, HasPicture) else None

    def run(self, stop: StopRequest | None = None) -> tuple[Status, int]:
        """Train until ``total_env_steps`` or until a signal asks to stop; status and exit code.

        Whoever runs several trainers listens to the signals for all of them and passes ``stop``.

        A checkpoint is written in either case, at the boundary between two updates. The last update may go beyond
        ``total_env_steps``: no rollout is cut short.
        """
        state = self.state
        with nullcontext(stop) if stop is not None else stop_on_signals() as stop:
            while state.env_steps < state.total_env_steps and not stop:
                metrics = self.train_once()
                if self.evaluated or state.updates % self.intervals.log == 0:
                    self.logger.log(state.env_steps, state.updates, metrics | self.evaluated)
                    self.evaluated = {}
                if self.crossed(self.intervals.checkpoint):
                    self.save()
            if self.saved_at != state.env_steps:
                self.save()
            return ("interrupted" if stop else "completed"), stop.exit_code

    def train_once(self) -> dict[str, Tensor | float]:
        """One rollout and the update on it; its metrics, with the share of time that each part took."""
        state = self.state
        state.begin_update()
        started = time.perf_counter()
        rollout = self.collector.collect()
        collected = time.perf_counter()
        learnt = self.algorithm.update(state, rollout)
        state.end_update(rollout.reward.numel(), learnt.get("losses/kl"))
        seconds = time.perf_counter() - started
        spent = self.collector.seconds | {"update": seconds - (collected - started)}
        metrics: dict[str, Tensor | float] = dict(learnt)
        metrics |= {f"time/{part}_share": part_seconds / seconds for part, part_seconds in spent.items()}
        metrics |= self.collector.episodes.metrics()
        metrics |= {"charts/learning_rate": state.current_learning_rate}
        self.show_picture()
        if self.evaluate is not None and self.crossed(self.intervals.evaluation):
            self.evaluated |= {f"eval/{tag}": figure for tag, figure in self.evaluate().items()}
        return metrics

    def crossed(self, interval: int) -> bool:
        """Whether the last update passed a multiple of ``interval`` env steps; never for 0."""
        if not interval:
            return False
        batch = self.collector.rollout_length * self.collector.env.num_envs
        return self.state.env_steps // interval > (self.state.env_steps - batch) // interval

    def show_picture(self) -> None:
        """Put just finished episodes into TensorBoard now and then, where the environment can draw them."""
        if self.artist is None:
            return
        self.picture_due |= self.crossed(max(self.state.total_env_steps // NUM_PICTURES, 1))
        if self.picture_due and (picture := self.artist.picture()) is not None:
            self.logger.image("episodes/finished", self.state.env_steps, picture)
            self.picture_due = False

    def save(self) -> None:
        """Write a checkpoint of everything that changes."""
        content = {
            "state": self.state.state_dict(),
            "collector": self.collector.state_dict(),
            "resumes": self.resumes,
            "torch": str(torch.__version__),
            "path": self.execution.path,
            "num_threads": self.execution.num_threads,
        }
        folder = self.run_dir / CHECKPOINT_FOLDER
        checkpoint.save(folder, self.state.env_steps, content, keep=self.intervals.keep_checkpoints)
        self.saved_at = self.state.env_steps

    def restore(self, content: dict[str, Any]) -> list[str]:
        """Take up where ``content`` was saved. Returns why the continuation is not exact, if it is not."""
        self.state.load_state_dict(content["state"])
        self.resumes = content["resumes"] + 1
        reasons = []
        if not self.collector.load_state_dict(content["collector"], resumes=self.resumes):
            reasons.append("the environment cannot give its state: fresh episodes start")
        if content["torch"] != str(torch.__version__):
            reasons.append(f"it was saved by torch {content['torch']}, this is {torch.__version__}")
        path, num_threads = self.execution.path, self.execution.num_threads
        if (saved_path := content.get("path", "eager")) != path:
            reasons.append(f"it ran with accelerate={saved_path}, this runs with {path}")
        if content["num_threads"] != num_threads and path != "fused":  # kernels do not depend on it
            reasons.append(f"it ran on {content['num_threads']} threads, this runs on {num_threads}")
        self.saved_at = self.state.env_steps
        return reasons
