"""A run from its settings to its end: put together, announced, trained, finished."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ppo_cli import checkpoint
from ppo_cli.accelerate import Accelerator
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.build import (
    EVALUATION_ENVS,
    build_algorithm,
    build_env,
    build_evaluation_env,
    build_state,
)
from ppo_cli.cli.hardware import build_learner, choose_execution
from ppo_cli.cli.jobs import clear
from ppo_cli.cli.program import CRASH, INTERRUPTED, ReportedError, Stopped, print_problems
from ppo_cli.cli.resuming import announce_resume, at_the_end, nothing_left, taken_up
from ppo_cli.cli.run_folder import claim
from ppo_cli.cli.sweep import table_of
from ppo_cli.cli.validate import Settings
from ppo_cli.envs.base import EVALUATION, EnvError, VecEnv, env_seeds
from ppo_cli.episodes import RETURN_TAG
from ppo_cli.evaluate import CUT_OFF, UnfinishedError, cut_off_words, evaluate
from ppo_cli.faults import NonFiniteError
from ppo_cli.fused import domain
from ppo_cli.fused.ppo import FusedPPO
from ppo_cli.logger import RunLogger, Status
from ppo_cli.networks.base import num_parameters
from ppo_cli.progress import Display, make_display
from ppo_cli.run_files import shown_path
from ppo_cli.run_reader import job_return
from ppo_cli.signals import StopRequest
from ppo_cli.train_state import TrainState
from ppo_cli.trainer import CHECKPOINT_FOLDER, UNSAVED, Intervals, Trainer

HIGHEST_SEED = 2**32 - 1

PATHS = {"eager": "torch", "compile": "torch.compile", "fused": "fused kernels"}


def train(config: Settings, run_dir: Path, overrides: Sequence[str], *, resume: bool = False) -> float:
    """Do one run in ``run_dir``; one that is done stays as it is.

    Returns the mean return of its last episodes, NaN where none has ended.

    Raises:
        UserError: the settings do not fit together, as only the objects themselves can tell; nothing was written.
        Stopped: by a signal, with everything saved.
        ReportedError: NaN or infinity, an environment that failed for good, or a disk that refused the last checkpoint.
    """
    if resume and (words := nothing_left(config, run_dir)):
        make_display("silent" if config["quiet"] else "auto").note(words)
        return job_return(run_dir)
    try:
        trainer = build_trainer(config, run_dir, overrides, resume=resume)
    except EnvError as error:
        raise reported(error) from error
    state = trainer.state
    if state.env_steps >= state.total_env_steps:  # it was cut off after its last update: what is left is to say so
        trainer.logger.display.note(at_the_end(state.env_steps, state.total_env_steps))
    try:
        status, exit_code = run_trainer(trainer, announced=config)
    except (NonFiniteError, EnvError) as error:
        raise reported(error, what_is_left(trainer)) from error
    except Exception as error:  # the traceback comes first
        error.add_note(what_is_left(trainer))
        raise
    if exit_code == UNSAVED:
        print_problems([f"the last checkpoint could not be written: {what_is_left(trainer)}"])
        raise ReportedError(exit_code)
    if status == "interrupted":
        raise Stopped(exit_code)
    return final_return(trainer)


def reported(error: Exception, *more: str) -> ReportedError:
    """``error`` once it is told: where an environment raised by its own traceback, and in a sentence, with ``more``."""
    if isinstance(error, EnvError) and error.traceback:
        print(error.traceback, file=sys.stderr)
    print_problems([str(error), *more])
    return ReportedError(CRASH)


def what_is_left(trainer: Trainer) -> str:
    """The last good checkpoint of a run that ended badly, and how to use it."""
    newest = trainer.newest_checkpoint
    if newest is None:
        return "there is no checkpoint to go on from; checkpoint_interval sets how often one is written"
    return (
        f"the last good checkpoint is {shown_path(newest)}; ppo-train resume={shlex.quote(shown_path(trainer.run_dir))}"
    )


def run_trainer(
    trainer: Trainer, stop: StopRequest | None = None, *, announced: Settings | None = None
) -> tuple[Status, int]:
    """The run itself, its folder finished whatever happens; status and exit code. Says first what is ``announced``."""
    try:
        if announced is not None:
            trainer.logger.start(facts(announced, trainer))
        status, exit_code = trainer.run(stop)
    except KeyboardInterrupt as error:  # a second Ctrl-C, or a signal before the first update
        finish(trainer, "interrupted", exit_code=error.exit_code if isinstance(error, Stopped) else INTERRUPTED)
        raise
    except BaseException as error:
        finish(trainer, "failed", error=f"{type(error).__name__}: {error}".strip(": "))
        raise
    finally:
        trainer.collector.env.close()
    finish(trainer, status, exit_code=exit_code)
    if trainer.execution.path == "fused" and trainer.state.updates:
        domain.note_ready(trainer.collector.env, plain_algorithm(trainer))
    return status, exit_code


def plain_algorithm(trainer: Trainer) -> Algorithm:
    """What a run learns by, whoever computes it."""
    return trainer.algorithm.ppo if isinstance(trainer.algorithm, FusedPPO) else trainer.algorithm


def finish(trainer: Trainer, status: Status, *, exit_code: int | None = None, error: str | None = None) -> None:
    """Write down how the run ended and what it leaves."""
    trainer.logger.finish(
        status,
        exit_code=exit_code,
        error=error,
        checkpoint=trainer.newest_checkpoint,
        best_checkpoint=trainer.best_checkpoint,
        faults=trainer.state.faults.counts,
    )


def final_return(trainer: Trainer) -> float:
    """Mean return of the last episodes, NaN where none has ended."""
    return float(trainer.collector.episodes.metrics().get(RETURN_TAG, math.nan))


def headline_tags(config: Settings, env: VecEnv) -> list[str]:
    """What configurations are compared by: the return, of evaluations, too, where there are any, and win rates."""
    evaluated = ["eval/episodic_return"] if config["eval_interval"] else []
    return [RETURN_TAG, *evaluated, *(tag for tag in env.episode_metrics() if tag.endswith("/win_rate"))]


def build_trainer(
    config: Settings,
    run_dir: Path,
    overrides: Sequence[str],
    *,
    resume: bool = False,
    display: Display | None = None,
) -> Trainer:
    """All objects of a run, at its start or, on ``resume``, where its newest checkpoint was saved.

    ``display`` shows its progress in place of the one that ``quiet`` chooses.

    Raises:
        UserError: the settings do not fit together; nothing was written.
    """
    try:
        saved, notes = checkpoint.load_newest(run_dir / CHECKPOINT_FOLDER) if resume else (None, [])
        torch.manual_seed(config["seed"] or HIGHEST_SEED)  # the stream of 0 is that of its actions
        env = build_env(config, config["num_envs"])
        algorithm = build_algorithm(config)
        state = build_state(config, env, algorithm.gamma)
        execution = choose_execution(config, env, state, algorithm, saved)
        collector, algorithm = build_learner(config, env, state, algorithm, execution)
        resumed = taken_up(saved, config, state, collector, execution) if saved else None
        evaluate_now = evaluation(config, state)
    except (ValueError, RuntimeError, checkpoint.CheckpointError) as error:
        if isinstance(error, RuntimeError) and not resume:
            raise
        raise UserError(str(error)) from error
    logger = open_logger(config, run_dir, overrides, state, env, resumed, display)
    intervals, text = intervals_of(config), json.dumps(config)
    trainer = Trainer(state, algorithm, collector, logger, run_dir, intervals, evaluate_now, execution, text)
    if saved and resumed:
        trainer.take_up(saved)
        announce_resume(trainer, notes, resumed)
    return trainer


def open_logger(
    config: Settings,
    run_dir: Path,
    overrides: Sequence[str],
    state: TrainState,
    env: VecEnv,
    resumed: dict[str, Any] | None,
    display: Display | None,
) -> RunLogger:
    """Begin to write in the run's folder; one that does not go on claims it first.

    Raises:
        UserError: another run has the folder.
        OSError: it cannot be written; what a new run had begun to write is taken back.
    """
    if resumed is None:
        if config["resume"] is not None:  # one of several seeds, cut off before it had saved anything: it starts anew
            clear(run_dir)
        claim(run_dir)
    try:
        return RunLogger(
            run_dir,
            total_env_steps=config["total_env_steps"],
            start_env_steps=state.env_steps,
            config=config,
            overrides=overrides,
            resumed=resumed,
            display=display or ("silent" if config["quiet"] else "auto"),
            headline_tags=headline_tags(config, env),
            table=table_of(run_dir),
        )
    except OSError:
        if resumed is None:
            clear(run_dir)
        raise


def intervals_of(config: Settings) -> Intervals:
    """How often the run does what is not learning."""
    return Intervals(
        log=config["log_interval"],
        checkpoint=config["checkpoint_interval"],
        evaluation=config["eval_interval"],
        keep_checkpoints=config["keep_checkpoints"],
        keep_every=config["keep_every"],
        keep_best=config["keep_best"],
    )


def evaluation(config: Settings, state: TrainState) -> Callable[[StopRequest], dict[str, float]] | None:
    """What ``eval_interval`` calls: fresh episodes with the policy as it stands, in an environment of their own.

    No figures where it is asked to stop meanwhile.
    """
    if not config["eval_interval"]:
        return None
    env = build_evaluation_env(config, min(config["eval_episodes"], EVALUATION_ENVS))
    seeds = env_seeds(config["seed"], config["eval_episodes"], EVALUATION)
    network = state.accelerator.network(state.actor_critic)

    def play(stop: StopRequest) -> dict[str, float]:
        try:
            figures = evaluate(
                network,
                state.obs_normalizer,
                env,
                seeds,
                mode="greedy",
                device=state.accelerator.device,
                on_fault=lambda fault: fault.tell(state.faults),
                stop=stop,
            ).summary()
        except UnfinishedError:
            return {}
        if CUT_OFF in figures:
            state.faults.warn(cut_off_words(figures))
        return figures

    return play


def facts(config: Settings, trainer: Trainer) -> dict[str, str]:
    """The numbers that follow from the settings, as the start of a run prints them."""
    state, env = trainer.state, trainer.collector.env
    batch = env.num_envs * config["rollout_length"]
    minibatches = config.get("num_minibatches", 1)
    updates = -(-config["total_env_steps"] // batch)
    accelerator = state.accelerator
    compiles_first = trainer.execution.path == "fused" and not domain.is_ready(env, plain_algorithm(trainer))
    return {
        "run": f"{config['algo']['name']} on {config['env']['name']}, seed {config['seed']}",
        "batch": f"{env.num_envs} envs x {config['rollout_length']} steps = {batch:,}, "
        f"minibatches of {batch // minibatches:,}",
        "updates": f"{updates:,} for {config['total_env_steps']:,} env steps",
        "network": f"{type(state.actor_critic).__name__}, {num_parameters(state.actor_critic):,} parameters",
        "device": device_words(config, accelerator, trainer.execution.num_threads),
        **({"goes on": f"from {state.env_steps:,} env steps"} if trainer.resumes else {}),
        "computed by": f"{PATHS[trainer.execution.path]} ({trainer.execution.reason})",
        **({"compiles": "the kernels first, once on this machine: half a minute"} if compiles_first else {}),
    }


def device_words(config: Settings, accelerator: Accelerator, num_threads: int) -> str:
    """Device, threads and precision of a run, and why ``device=auto`` is not the GPU where there is one."""
    words = [str(accelerator.device), plural(num_threads, "thread")]
    words += ["each with its share of the batch"] if accelerator.threads.count > 1 else []
    spares_gpu = config["device"] == "auto" and accelerator.device.type == "cpu" and torch.cuda.is_available()
    return ", ".join([*words, accelerator.precision]) + (" (no GPU for so small a network)" if spares_gpu else "")


def plural(count: int, noun: str) -> str:
    """1 thread, 2 threads."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
