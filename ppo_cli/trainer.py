"""The training loop: collect, update, count, log, checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from ppo_cli import checkpoint
from ppo_cli.accelerate import Execution
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.envs.base import HasPicture
from ppo_cli.episodes import RETURN_TAG
from ppo_cli.logger import RunLogger, Status
from ppo_cli.rollout import Collector
from ppo_cli.signals import StopRequest, stop_on_signals
from ppo_cli.train_state import TrainState

CHECKPOINT_FOLDER = "checkpoints"
NUM_PICTURES = 20
"""Pictures of finished episodes that a run leaves in TensorBoard."""

UNSAVED = 3
"""Exit code of a run whose last checkpoint could not be written."""


class Best(NamedTuple):
    """The best checkpoint so far."""

    episodic_return: float  # of the evaluation before it, or else of the last episodes of training
    env_steps: int


@dataclass(frozen=True)
class Intervals:
    """How often the loop does what is not learning, in the units of each field."""

    log: int = 1  # updates
    checkpoint: int = 0  # env steps; 0 is at the end only
    evaluation: int = 0  # env steps; 0 is never
    keep_checkpoints: int = 3
    keep_every: int = 0  # env steps; 0 keeps none but the newest
    keep_best: bool = False


@dataclass
class Trainer:
    """One run: what learns, where it plays, who is told."""

    state: TrainState
    algorithm: Algorithm
    collector: Collector
    logger: RunLogger
    run_dir: Path
    intervals: Intervals
    evaluate: Callable[[StopRequest], dict[str, float]] | None = None
    execution: Execution = field(default_factory=Execution)
    config: str = "{}"
    """What the run was told to do, as JSON: a checkpoint remembers it."""
    resumes: int = 0
    saved_at: int = -1
    best: Best | None = None
    last_evaluation: float | None = None
    evaluated: dict[str, float] = field(default_factory=dict)  # waiting to be logged
    picture_due: bool = True
    stop: StopRequest = field(init=False, default_factory=StopRequest)
    artist: HasPicture | None = field(init=False)

    def __post_init__(self) -> None:
        env = self.collector.env
        self.artist = env if isinstance(env, HasPicture) else None
        self.state.faults.warn = self.logger.warn

    def run(self, stop: StopRequest | None = None) -> tuple[Status, int]:
        """Train until ``total_env_steps`` or until a signal asks to stop; status and exit code.

        Whoever runs several trainers listens to the signals for all of them and passes ``stop``.

        A checkpoint is written in either case, at the boundary between two updates. The last update may go beyond
        ``total_env_steps``: no rollout is cut short.

        Raises:
            NonFiniteError: by an environment, a gradient or a weight. The checkpoints on the disk are good.
        """
        state = self.state
        with nullcontext(stop) if stop is not None else stop_on_signals() as stop:
            self.stop = stop
            while state.env_steps < state.total_env_steps and not stop:
                metrics = self.train_once()
                if self.evaluated or state.updates % self.intervals.log == 0:
                    self.logger.log(state.env_steps, state.updates, metrics | self.evaluated)
                    self.evaluated = {}
                if self.crossed(self.intervals.checkpoint):
                    self.save()
            is_saved = self.saved_at == state.env_steps or self.save()
            return ("interrupted" if stop else "completed"), stop.exit_code if is_saved else UNSAVED

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
        metrics |= {"charts/learning_rate": state.current_learning_rate, **state.faults.counts}
        self.show_picture()
        if self.evaluate is not None and self.crossed(self.intervals.evaluation):
            self.evaluated |= {f"eval/{tag}": figure for tag, figure in self.evaluate(self.stop).items()}
            self.last_evaluation = self.evaluated.get("eval/episodic_return", self.last_evaluation)
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

    def save(self) -> bool:
        """Write a checkpoint of everything that changes. A disk that refuses costs this checkpoint, not the run.

        Returns:
            Whether it lies on the disk.

        Raises:
            NonFiniteError: the weights are not worth it.
        """
        state, intervals = self.state, self.intervals
        state.require_finite_weights()
        best = self.best_with_this_one() if intervals.keep_best else None
        content = {
            "state": state.state_dict(),
            "collector": self.collector.state_dict(),
            "resumes": self.resumes,
            "best": list(best) if best else None,
            "last_evaluation": self.last_evaluation,
            "picture_due": self.picture_due,
            "config": self.config,
            "versions": library_versions(),
            "device": device_name(state.accelerator.device),
            "path": self.execution.path,
            "num_threads": self.execution.num_threads,
            "has_board_kernels": self.execution.has_board_kernels,
        }
        try:
            checkpoint.save(
                self.run_dir / CHECKPOINT_FOLDER,
                state.env_steps,
                content,
                keep=intervals.keep_checkpoints,
                keep_every=intervals.keep_every,
                best=best.env_steps if best else None,
            )
        except (OSError, checkpoint.CheckpointError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            older = self.newest_checkpoint
            stands = f"{older.name} is still there" if older else "there is no older one"
            self.logger.warn(f"the checkpoint after {state.env_steps:,} env steps was not written ({reason}); {stands}")
            return False
        self.saved_at, self.best = state.env_steps, best
        return True

    def best_with_this_one(self) -> Best | None:
        """The best checkpoint, once there is one of the weights as they are now."""
        known: Tensor | float | None = self.last_evaluation
        if known is None:
            known = self.collector.episodes.metrics().get(RETURN_TAG)
        if known is None or (self.best and float(known) <= self.best.episodic_return):
            return self.best
        return Best(float(known), self.state.env_steps)

    @property
    def newest_checkpoint(self) -> Path | None:
        """The last one that was written, if any."""
        paths = checkpoint.list_checkpoints(self.run_dir / CHECKPOINT_FOLDER)
        return paths[-1] if paths else None

    @property
    def best_checkpoint(self) -> Path | None:
        """The one with the best return, if any."""
        if self.best is None:
            return None
        path = checkpoint.checkpoint_path(self.run_dir / CHECKPOINT_FOLDER, self.best.env_steps)
        return path if path.exists() else None

    def take_up(self, content: dict[str, Any]) -> None:
        """Count on from a checkpoint, whose learner and episodes `restore` has put back."""
        self.resumes = content["resumes"] + 1
        self.best = Best(*content["best"]) if content.get("best") else None
        self.last_evaluation = content.get("last_evaluation")
        self.picture_due = content.get("picture_due", True)
        self.saved_at = self.state.env_steps


def restore(
    content: dict[str, Any], state: TrainState, collector: Collector, execution: Execution, changed: str | None = None
) -> list[str]:
    """Put learner and environments where they were when ``content`` was saved.

    Returns why the continuation is not exact, if it is not. ``changed`` says how the environment is another one now.
    """
    state.load_state_dict(content["state"])
    reasons = []
    against = collector.load_state_dict(content["collector"], resumes=content["resumes"] + 1, changed=changed)
    if against:
        reasons.append(f"fresh episodes start: {against}")
    saved_versions = content.get("versions", {"torch": content.get("torch")})
    reasons += [
        f"it was saved by {name} {saved_versions[name]}, this is {version}"
        for name, version in library_versions().items()
        if saved_versions.get(name, version) != version
    ]
    device = device_name(state.accelerator.device)
    if (saved_device := content.get("device", device)) != device:
        reasons.append(f"it ran on {saved_device}, this is {device}")
    elif state.accelerator.device.type != "cpu":
        reasons.append("a GPU does not add numbers in a fixed order")
    path, num_threads = execution.path, execution.num_threads
    if (saved_path := content.get("path", "eager")) != path:
        reasons.append(f"it ran with accelerate={saved_path}, this runs with {path}")
    has_kernels = execution.has_board_kernels
    if content.get("has_board_kernels", has_kernels) != has_kernels:
        reasons.append(f"it ran with{'out' if has_kernels else ''} kernels for its boards' convolutions")
    if content["num_threads"] != num_threads and path != "fused":  # kernels do not depend on it
        reasons.append(f"it ran on {content['num_threads']} threads, this runs on {num_threads}")
    return reasons


def changed_settings(content: dict[str, Any], config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that are not what they were when ``content`` was saved: by dotted name, before and now."""
    before, now = flat(json.loads(content.get("config", "{}"))), flat(config)
    return {name: (before[name], now.get(name)) for name in before if before[name] != now.get(name)}


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; a setting that is a list or empty stays whole."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
        found |= inner
    return found


def library_versions() -> dict[str, str]:
    """Of what decides the bits of a result, besides this program."""
    return {"torch": str(torch.__version__), "numpy": np.__version__, "gymnasium": gymnasium.__version__}


def device_name(device: torch.device) -> str:
    """The kind of hardware: processors with other vector instructions round differently."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} with {torch.backends.cpu.get_cpu_capability()}"
