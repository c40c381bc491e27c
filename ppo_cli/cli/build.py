"""From the validated settings to the parts of a run: environment, network, algorithm, and what learns."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from gymnasium import spaces

from ppo_cli import optimizers
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.cli.declared import declared_settings
from ppo_cli.cli.hardware import build_accelerator, chosen_device
from ppo_cli.cli.trust import current_folder_first, import_target, is_trusted_by_user, search_path, trusted_modules
from ppo_cli.cli.validate import BOOKKEEPING, Settings
from ppo_cli.envs.base import VecEnv
from ppo_cli.faults import Faults
from ppo_cli.normalize import ObsNormalizer, RewardNormalizer
from ppo_cli.parallel import available_cores
from ppo_cli.train_state import TrainState

EVALUATION_ENVS = 256
"""Environments that play side by side in an evaluation, unless said otherwise."""

GYMNASIUM_ENV = "ppo_cli.envs.gymnasium_adapter.GymnasiumVecEnv"
BOARD_NETWORK = "ppo_cli.networks.board.Board"
CONV_NETWORK = "ppo_cli.networks.conv.Conv"
VECTOR_NETWORK = "ppo_cli.networks.mlp.MLP"


def build_env(config: Settings, num_envs: int) -> VecEnv:
    """The environment that ``config["env"]`` describes, ``num_envs`` of it, on the run's device if it can live there.

    Raises:
        ValueError: from the environment itself, about one of its settings.
    """
    target = config["env"]["_target_"]
    settings = {name: value for name, value in config["env"].items() if name not in BOOKKEEPING}
    if target == GYMNASIUM_ENV:
        settings["trusted_modules"] = trusted_modules()
    make = import_target(target, "env")
    if "device" in inspect.signature(make).parameters:
        settings["device"] = chosen_device(config)
    if "skip_nonfinite" in inspect.signature(make).parameters:
        settings["skip_nonfinite"] = config.get("on_nonfinite") == "skip"
    is_users = target == GYMNASIUM_ENV and is_trusted_by_user(str(settings["id"]).rpartition(":")[0])
    with current_folder_first() if is_users else nullcontext():
        env: VecEnv = make(num_envs=num_envs, **settings)
    return env


def build_evaluation_env(config: Settings, num_envs: int) -> VecEnv:
    """The same environment for a list of seeds: Gymnasium's native batches take one seed for all, so not those."""
    settings = config["env"]
    if settings["_target_"] == GYMNASIUM_ENV and settings["vectorization"] in ("auto", "native"):
        settings = settings | {"vectorization": "sync"}
    return build_env(config | {"env": settings}, num_envs)


def build_algorithm(config: Settings) -> Algorithm:
    """The algorithm with the top-level keys that it declares."""
    target = config["algo"]["_target_"]
    declared = declared_settings(target, search_path(target)) or {}
    algorithm: Algorithm = import_target(target, "algo")(**{name: config[name] for name in declared if name in config})
    return algorithm


def build_network(config: Settings, env: VecEnv) -> torch.nn.Module:
    """The network for the environment's spaces: the named one, or the one that suits the observation.

    Built on one thread: orthogonal weights come out of a factorization that rounds otherwise on two.
    """
    target = config["network"].get("_target_") or suitable_network(env.single_observation_space)
    settings = {name: value for name, value in config["network"].items() if name not in BOOKKEEPING}
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        make: Callable[..., torch.nn.Module] = import_target(target, "network")
        return make(env.single_observation_space, env.single_action_space, **settings)
    finally:
        torch.set_num_threads(num_threads)


def suitable_network(space: spaces.Space[Any]) -> str:
    """The class for boards, for images or for vectors."""
    if isinstance(space, spaces.Dict):
        if "board" in space.spaces:
            return BOARD_NETWORK
        space = space["obs"]
    return CONV_NETWORK if space.shape is not None and len(space.shape) >= 2 else VECTOR_NETWORK


def build_state(config: Settings, env: VecEnv, gamma: float) -> TrainState:
    """Weights, optimizer and running moments on the chosen device."""
    network = build_network(config, env)
    accelerator = build_accelerator(config, network, config["num_threads"] or default_threads(env))
    network = network.to(accelerator.device)
    space = env.single_observation_space
    observed = space["obs"] if isinstance(space, spaces.Dict) and "obs" in space.spaces else space
    if config["normalize_obs"] and not (isinstance(observed, spaces.Box) and len(observed.shape) == 1):
        raise ValueError(f"normalize_obs=true is for vectors, and the observations are {observed}")
    return TrainState(
        actor_critic=network,
        optimizer=build_optimizer(config, network),
        accelerator=accelerator,
        obs_normalizer=ObsNormalizer(observed.shape or (), enabled=config["normalize_obs"], device=accelerator.device),
        reward_normalizer=RewardNormalizer(
            env.num_envs, gamma=gamma, enabled=config["normalize_reward"], device=accelerator.device
        ),
        total_env_steps=config["total_env_steps"],
        learning_rate=config["learning_rate"],
        learning_rate_schedule=config["learning_rate_schedule"],
        kl_adaptive_target=config["kl_adaptive_target"],
        seed=config["seed"],
        faults=Faults(config["max_skipped"] if config.get("on_nonfinite") == "skip" else 0),
    )


def default_threads(env: VecEnv) -> int:
    """One for each core; a single one for vectors, whose products are too small to share."""
    return 1 if suitable_network(env.single_observation_space) == VECTOR_NETWORK else available_cores()


def build_optimizer(config: Settings, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay, or RMSprop."""
    make: Callable[..., torch.optim.Optimizer] = (
        optimizers.AdamW if config["optimizer"] == "adam" else optimizers.RMSprop
    )
    options = {"fused": True} if config["optimizer"] == "adam" else {}  # one kernel for all parameters
    return make(
        network.parameters(),
        lr=config["learning_rate"],
        eps=config["adam_eps"],
        weight_decay=config["weight_decay"],
        **options,
    )
