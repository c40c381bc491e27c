"""The settings that belong to the program itself, not to an algorithm, an environment or a network.

`TrainSettings` declares the top-level keys of configs/train.yaml, with the same defaults; `EvalSettings` the keys of
`ppo-eval`. The command line reads both declarations, as it reads those of the configured classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ppo_cli.settings import Range, check_ranges

Count = Annotated[int, Range(at_least=0)]
AtLeastOne = Annotated[int, Range(at_least=1)]
Positive = Annotated[float, Range(above=0)]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long, how wide, how fast, on what and where to."""

    total_env_steps: AtLeastOne = 1_000_000
    """Environment steps of the whole run, all environments together."""
    num_envs: AtLeastOne = 8
    """Environments that step side by side."""
    rollout_length: AtLeastOne = 128
    """Steps of each environment between two updates; num_envs x rollout_length is the batch."""
    seed: Annotated[int, Range(at_least=0, at_most=4294967295)] = 1
    """Root of every random number of the run."""
    seeds: int | list[int] | None = None
    """Independent runs in one process: this many from seed on, or a list as in [1,2,3]."""

    learning_rate: Positive = 3e-4
    """Step size of the optimizer."""
    learning_rate_schedule: Literal["constant", "linear", "cosine", "kl_adaptive"] = "constant"
    """How the learning rate moves: not, to zero along a line or half a wave, or so that the KL stays at a target."""
    kl_adaptive_target: Positive = 0.01
    """KL of an update that kl_adaptive keeps to."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Rule that turns gradients into steps."""
    adam_eps: Positive = 1e-5
    """Added to Adam's denominator."""
    weight_decay: Annotated[float, Range(at_least=0)] = 0.0
    """Pull of the weights towards zero, decoupled from the gradient."""
    normalize_obs: bool = False
    """Shift and scale observations by their running moments."""
    normalize_reward: bool = False
    """Scale rewards by the running standard deviation of the return."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """After NaN or infinity: stop, or leave out the gradient step, or the environment's step and episode, and go on."""
    max_skipped: AtLeastOne = 100
    """Steps that on_nonfinite=skip leaves out before it stops after all."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network lives; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto takes bfloat16 where the hardware has it."""
    accelerate: Literal["auto", "eager", "compile", "fused"] = "auto"
    """Who computes: plain torch, torch.compile, or our own kernels for MLPs on a CPU; auto fuses what can be fused."""
    num_threads: Count = 0
    """CPU threads of the network; 0 chooses."""

    log_interval: AtLeastOne = 1
    """Updates between two rows of metrics."""
    checkpoint_interval: Count = 0
    """Environment steps between two checkpoints; 0 saves at the end only."""
    keep_checkpoints: AtLeastOne = 3
    """Newest checkpoints to keep."""
    keep_every: Count = 0
    """Environment steps between checkpoints that are kept for good; 0 keeps none of them."""
    keep_best: bool = True
    """Keep the checkpoint with the best return, of evaluations where there are any, otherwise of training."""
    eval_interval: Count = 0
    """Environment steps between two evaluations; 0 never evaluates."""
    eval_episodes: AtLeastOne = 100
    """Fresh episodes of each evaluation."""
    quiet: bool = False
    """Print nothing but warnings and errors."""

    run_name: str | None = None
    """Name of the run's folder; null makes one of the time and the seed."""
    output_dir: str = "outputs"
    """Where run folders are made, as <env>/<algo>/<run>."""
    resume: str | None = None
    """Run folder to go on with, or latest."""
    trust: str | list[str] | None = None
    """Modules of your own that a config may name; heard from the command line only."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How to play a run's policy."""

    episodes: AtLeastOne = 1000
    """Fresh episodes to play, one for each seed of a fixed list."""
    seed: Annotated[int, Range(at_least=0, at_most=4294967295)] = 1
    """Root of that list."""
    mode: Literal["both", "greedy", "sampled"] = "both"
    """Take the most probable action, draw one as in training, or show both."""
    num_envs: Count = 0
    """Environments that step side by side; 0 chooses."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network lives; auto takes a GPU where there is one."""
    num_threads: Count = 0
    """CPU threads of the network; 0 chooses."""
    trust: str | list[str] | None = None
    """Modules of your own that the run's config may name."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


SECTIONS = {
    "Training": ("total_env_steps", "num_envs", "rollout_length", "seed", "seeds"),
    "Optimizer": ("learning_rate", "learning_rate_schedule", "kl_adaptive_target", "optimizer", "adam_eps",
                  "weight_decay", "normalize_obs", "normalize_reward", "on_nonfinite", "max_skipped"),
    "Hardware": ("device", "precision", "accelerate", "num_threads"),
    "Output": ("log_interval", "checkpoint_interval", "keep_checkpoints", "keep_every", "keep_best",
               "eval_interval", "eval_episodes", "quiet",
               "run_name", "output_dir", "resume", "trust"),
}  # fmt: skip
"""The order in which `ppo-train --help` shows the keys."""
