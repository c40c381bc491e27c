"""The settings that belong to the program itself, not to an algorithm, an environment or a network.

`TrainSettings` declares the top-level keys of configs/train.yaml, with the same defaults; `EvalSettings` the keys of
`ppo-eval`, and so on for the other commands. The command line reads these declarations, as it reads those of the
configured classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ppo_cli.claims import ClaimName
from ppo_cli.settings import Range, check_ranges

MOST_PLAYED = 4
"""Runs that are watched side by side at most."""

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
    """Where the network lives; auto takes a GPU where there is one, but for a small MLP."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network; auto takes bfloat16 where the hardware has it."""
    accelerate: Literal["auto", "eager", "compile", "fused"] = "auto"
    """Who computes: torch, torch.compile, or our own kernels on a CPU, for MLPs and boards; auto fuses what it can."""
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

    jobs: Count = 0
    """Runs of a sweep at the same time; 0 is as many as the cores carry."""
    job_timeout: Annotated[float, Range(at_least=0)] = 1800.0
    """Seconds without a sign of life (a row of metrics, a printed line) after which a sweep stops a run; 0 never."""
    again: bool = False
    """Begin a sweep anew rather than go on with the one that the same command began."""
    claim: ClaimName | None = None
    """What the sweep checks at its end; the experiment of the same name sets it."""

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
    """Where the network lives; auto takes a GPU where there is one, but for a small MLP."""
    num_threads: Count = 0
    """CPU threads of the network; 0 chooses."""
    trust: str | list[str] | None = None
    """Modules of your own that the run's config may name."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to search for the best settings."""

    trials: AtLeastOne = 50
    """Configurations to try; a larger number later goes on with the same search."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How they are drawn: from where good ones lie dense, or anywhere."""
    pruner: Literal["median", "asha", "none"] = "median"
    """Which are stopped early: those below the median of others at the same step, or the best third, or none."""
    startup_trials: Count = 10
    """Trials that are drawn at random, and, by the median, pruned by nobody."""
    warmup: Annotated[float, Range(at_least=0, at_most=1)] = 0.2
    """Share of a run before which the median prunes nothing."""
    seeds: AtLeastOne = 1
    """Runs of each trial, of the seeds from seed on."""
    score: Literal["mean", "iqm"] = "mean"
    """Of their final returns: the mean, or that of the middle half."""
    space: str | None = None
    """File in space/ that says what is tried; null is the algorithm's own."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """How to watch a run's policy."""

    episodes: AtLeastOne | None = None
    """Episodes to play; null plays on in a terminal until you leave, and one elsewhere."""
    seed: Annotated[int, Range(at_least=0, at_most=4294967295)] = 1
    """Seed of the first episode; the next ones follow from the next numbers."""
    sample: bool = False
    """Draw actions from the policy as in training; otherwise the most probable one is taken."""
    fps: Annotated[float, Range(above=0, at_most=100)] | None = None
    """Steps shown in a second; null is 2 for Minesweeper and what the environment asks for elsewhere."""
    output: str | None = None
    """File to write in place of watching: .gif, .mp4, or .png, which shows up to 24 moments on one sheet."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network lives; auto takes a GPU where there is one, but for a small MLP."""
    num_threads: Count = 0
    """CPU threads of the network; 0 chooses."""
    trust: str | list[str] | None = None
    """Modules of your own that the run's config may name."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What to tell of runs, and where."""

    format: Literal["html", "terminal"] = "html"
    """One HTML file and figures beside it, or text on the terminal."""
    output: str | None = None
    """The HTML file, or a folder for it; null is report.html beside the runs."""
    metric: str | None = None
    """Tag of the figure that runs are compared by, such as minesweeper/win_rate; null is the return."""
    figures: bool = True
    """Draw PNG files, too, in a folder beside the HTML file."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How to write a run's policy for others."""

    format: Literal["safetensors", "onnx", "torchscript", "all"] = "safetensors"
    """Form beside policy.safetensors and policy.json, which are always written; all is each of them."""
    output: str | None = None
    """Folder to write; null is <run>/export."""
    trust: str | list[str] | None = None
    """Modules of your own that the run's config may name."""


SECTIONS = {
    "Training": ("total_env_steps", "num_envs", "rollout_length", "seed", "seeds"),
    "Optimizer": ("learning_rate", "learning_rate_schedule", "kl_adaptive_target", "optimizer", "adam_eps",
                  "weight_decay", "normalize_obs", "normalize_reward", "on_nonfinite", "max_skipped"),
    "Hardware": ("device", "precision", "accelerate", "num_threads"),
    "Sweep": ("jobs", "job_timeout", "again", "claim"),
    "Output": ("log_interval", "checkpoint_interval", "keep_checkpoints", "keep_every", "keep_best",
               "eval_interval", "eval_episodes", "quiet",
               "run_name", "output_dir", "resume", "trust"),
}  # fmt: skip
"""The order in which `ppo-train --help` shows the keys."""
