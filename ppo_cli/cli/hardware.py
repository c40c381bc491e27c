"""Which hardware a run uses, and which of the ways to compute it: ``auto`` decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ppo_cli.accelerate import Accelerator, Execution, can_compile, has_fast_bfloat16, keep_freed_memory
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.cli.validate import Settings
from ppo_cli.envs.base import VecEnv
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.fused import domain
from ppo_cli.fused.board import PPOOnBoards
from ppo_cli.fused.board_collector import BoardCollector
from ppo_cli.fused.board_weights import BoardWeights, Room
from ppo_cli.fused.collector import FusedCollector
from ppo_cli.fused.mlp import PPOOnMLP
from ppo_cli.fused.weights import MLPWeights
from ppo_cli.fused.workers import Workers, useful_threads
from ppo_cli.networks.base import num_parameters, observed
from ppo_cli.networks.board import Board
from ppo_cli.networks.mlp import MLP
from ppo_cli.networks.trunk import MIN_CHANNELS
from ppo_cli.parallel import Threads, available_cores
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState

TRPO = "ppo_cli.algorithms.trpo.TRPO"

BOARD_KERNELS_PAY = 400_000
"""Samples, epochs counted, that win back the seconds of compiling; whether it has been done before must not matter."""


SMALL_MLP = 200_000
"""Parameters up to which an MLP stays on the CPU, where its environments live: kernels on two cores compute a step
and what is learnt from it within 30 microseconds. A guess: no GPU was at hand to measure."""


def chosen_device(config: Settings, network: torch.nn.Module | None = None) -> torch.device:
    """The device of a run; ``auto`` is a GPU where there is one, but not for a ``network`` that is a small MLP."""
    name = config["device"]
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() and not is_small_mlp(network) else "cpu")


def is_small_mlp(network: torch.nn.Module | None) -> bool:
    """Whether a GPU would not compute ``network`` sooner."""
    return type(network) is MLP and num_parameters(network) <= SMALL_MLP


def build_accelerator(config: Settings, network: torch.nn.Module, num_threads: int) -> Accelerator:
    """Device and precision, with ``auto`` decided: bfloat16 for convolutions where the hardware is faster at it.

    The threads share the rows of a batch, or the single operation: where those are too small to share (an MLP's), where
    a compiler has the word, and for TRPO, whose second derivatives need the whole network.
    """
    device = chosen_device(config, network)
    precision = config["precision"]
    is_mlp = isinstance(network, MLP)
    if precision == "auto":
        precision = "bfloat16" if not is_mlp and has_fast_bfloat16(device) else "float32"
    compiled = config["accelerate"] == "compile" and can_compile(device)
    is_shared = device.type == "cpu" and not compiled and not is_mlp and config["algo"]["_target_"] != TRPO
    torch.set_num_threads(1 if is_shared else num_threads)
    keep_freed_memory()
    return Accelerator(device, precision, compiled, Threads(num_threads if is_shared else 1))


def choose_execution(
    config: Settings, env: VecEnv, state: TrainState, algorithm: Algorithm, saved: Mapping[str, Any] | None
) -> Execution:
    """Which path computes, on how many threads; ``auto`` goes on as the resumed run that ``saved`` holds.

    Raises:
        ValueError: the kernels were asked for, and do not cover this run.
    """
    execution = choose_path(config, env, state, algorithm, saved.get("path") if saved else None)
    boards = [module for module in state.actor_critic.modules() if isinstance(module, Board)]
    if not boards:
        return execution
    is_long = num_passes(config) >= BOARD_KERNELS_PAY
    is_wanted = bool(saved.get("has_board_kernels", True)) if saved else is_long
    has_kernels = (is_wanted and config["accelerate"] != "eager") or execution.path == "fused"
    for board in boards:
        board.may_use_kernels = has_kernels
    reason = execution.reason
    if execution.path == "eager" and any(has_kernels_for(board, state.accelerator) for board in boards):
        if has_kernels:
            reason = "and kernels for its convolutions"
        elif not is_wanted and not saved:
            reason = "too short a run to compile the board's kernels for"
    return replace(execution, has_board_kernels=has_kernels, reason=reason)


def has_kernels_for(board: Board, accelerator: Accelerator) -> bool:
    """Whether `ppo_cli.networks.trunk` covers a network."""
    on_cpu = accelerator.device.type == "cpu" and not accelerator.compile
    return on_cpu and accelerator.precision == "bfloat16" and board.channels >= MIN_CHANNELS


def num_passes(config: Settings) -> int:
    """Samples that a run learns from, each as often as it does."""
    return int(config["total_env_steps"] * config.get("num_epochs", 1))


def choose_path(
    config: Settings, env: VecEnv, state: TrainState, algorithm: Algorithm, saved_path: str | None
) -> Execution:
    """The path of ``choose_execution``."""
    wish = config["accelerate"]
    if wish == "compile" and state.accelerator.compile:
        return Execution("compile", state.accelerator.num_threads, "asked for")
    if wish in ("eager", "compile") or (wish == "auto" and saved_path == "eager"):
        return Execution("eager", state.accelerator.num_threads, "asked for" if wish == "eager" else "as before")
    board = state.actor_critic if type(state.actor_critic) is Board else None
    if board:
        against = domain.reason_against_boards(board, state.accelerator, algorithm, state.optimizer)
    else:
        against = domain.reason_against(state.actor_critic, env, state.accelerator)
    if against:
        if wish == "fused":
            raise ValueError(
                "accelerate=fused is for MLPs on vectors, in float32, and for PPO on boards, in bfloat16 and from "
                f"{MIN_CHANNELS} channels, on a CPU, and {against}: use auto"
            )
        return Execution("eager", state.accelerator.num_threads, f"the fused kernels do not cover it: {against}")
    is_short = num_passes(config) < (BOARD_KERNELS_PAY if board else domain.COMPILING_PAYS)
    if wish == "auto" and not saved_path and is_short and (board or not domain.is_ready(env, algorithm)):
        return Execution("eager", state.accelerator.num_threads, "too short a run to compile the fused kernels for")
    if board:
        return Execution("fused", state.accelerator.num_threads, "rollout and update")
    batch = env.num_envs * config["rollout_length"]
    available = config["num_threads"] or available_cores()
    is_whole = domain.can_update(algorithm, state.optimizer)
    minibatch = batch // config.get("num_minibatches", 1)
    threads = (
        useful_threads(num_parameters(state.actor_critic), minibatch, available)
        if is_whole
        else state.accelerator.num_threads
    )
    reason = "rollout and update" if is_whole else "the rollout; the update is plain torch"
    return Execution("fused", threads, reason)


def build_learner(
    config: Settings, env: VecEnv, state: TrainState, algorithm: Algorithm, execution: Execution
) -> tuple[Collector, Algorithm]:
    """Who collects and who updates, on the chosen path."""
    length = config["rollout_length"]
    if execution.path != "fused":
        return Collector(env, state, length, EpisodeWindow()), algorithm
    adam = state.optimizer if isinstance(state.optimizer, torch.optim.AdamW) else None
    if isinstance(state.actor_critic, Board):
        assert isinstance(algorithm, PPO) and adam
        boards, threads = BoardWeights(state.actor_critic), state.accelerator.threads
        height, width = observed(env.single_observation_space, "board").shape
        rooms = [Room(boards, (height, width)) for _ in range(threads.count)]
        board_collector = BoardCollector(env, state, length, EpisodeWindow(), boards, rooms)
        return board_collector, PPOOnBoards(algorithm, boards, adam, threads, rooms)
    assert isinstance(state.actor_critic, MLP)
    weights, workers = MLPWeights(state.actor_critic), Workers(execution.num_threads)
    collector = FusedCollector(env, state, length, EpisodeWindow(), weights, workers)
    if isinstance(algorithm, PPO) and adam:
        return collector, PPOOnMLP(algorithm, weights, adam, workers)
    return collector, algorithm
