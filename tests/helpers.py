"""Small rollouts and learners that several tests share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ppo_cli.accelerate import Accelerator
from ppo_cli.distributions import Categorical
from ppo_cli.envs.base import VecEnv
from ppo_cli.networks.mlp import MLP
from ppo_cli.normalize import ObsNormalizer, RewardNormalizer
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, Obs, Rollout, map_tensors

aten = torch.ops.aten
READS = (aten._local_scalar_dense, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.equal)
MASKED = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
COPIES = (aten._to_copy, aten.copy_)


class HostWaits(TorchDispatchMode):
    """Lists the operations for which the host would wait for a device: values read, masks counted, copies across."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = func.overloadpacket
        by_mask = operation in MASKED and any(index is not None and index.dtype == torch.bool for index in args[1])
        if operation in READS or by_mask:
            self.found.append(str(func))
        result = func(*args, **(kwargs or {}))
        is_sent = (kwargs or {}).get("non_blocking", False) and result.device.type != "cpu"
        if operation in COPIES and not is_sent:
            devices = {argument.device for argument in (*args, result) if isinstance(argument, Tensor)}
            self.found += [f"{func} {devices}"] if len(devices) > 1 else []
        return result


def random_rollout(seed: int, num_steps: int = 23, num_envs: int = 5, *, all_valid: bool = True) -> Rollout:
    """Terminations, truncations and both at once, about one in eight steps each; every value is arbitrary."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(num_steps, num_envs, *shape, generator=generator)

    def flags(probability: float) -> Tensor:
        return torch.rand(num_steps, num_envs, generator=generator) < probability

    policy = Categorical.from_logits(normal(3))
    action = policy.sample(policy.noise(1, generator)[0])
    terminated = flags(0.12)
    return Rollout(
        obs=normal(4),
        action=action,
        log_prob=policy.log_prob(action),
        value=normal(),
        next_value=normal() * ~terminated,
        reward=normal(),
        terminated=terminated,
        truncated=flags(0.12),
        valid=torch.ones(num_steps, num_envs, dtype=torch.bool) if all_valid else flags(0.8),
        policy=policy,
    )


def random_batch(seed: int, size: int = 64, num_actions: int = 3, *, all_valid: bool = True) -> Batch:
    """A minibatch whose old policy is not the current one."""
    generator = torch.Generator().manual_seed(seed)
    policy = Categorical.from_logits(torch.randn(size, num_actions, generator=generator))
    action = policy.sample(policy.noise(1, generator)[0])
    return Batch(
        obs=torch.randn(size, 4, generator=generator),
        action=action,
        log_prob=policy.log_prob(action),
        value=torch.randn(size, generator=generator),
        advantage=torch.randn(size, generator=generator),
        value_target=torch.randn(size, generator=generator),
        valid=torch.rand(size, generator=generator) < (1.1 if all_valid else 0.7),
        policy=policy,
    )


def learner(
    env: VecEnv,
    *,
    total_env_steps: int = 100_000,
    learning_rate: float = 1e-3,
    gamma: float = 0.99,
    seed: int = 1,
    normalize_obs: bool = False,
    normalize_reward: bool = False,
    network: nn.Module | None = None,
    device: str = "cpu",
) -> TrainState:
    """A training state with a small MLP (or ``network``)."""
    torch.manual_seed(seed)
    network = network or MLP(env.single_observation_space, env.single_action_space, hidden=(32, 32))
    network = network.to(device)
    return TrainState(
        actor_critic=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=learning_rate, eps=1e-5),
        accelerator=Accelerator(torch.device(device)),
        obs_normalizer=ObsNormalizer(tuple(env.single_observation_space.shape or ()), enabled=normalize_obs),
        reward_normalizer=RewardNormalizer(env.num_envs, gamma=gamma, enabled=normalize_reward),
        total_env_steps=total_env_steps,
        learning_rate=learning_rate,
        learning_rate_schedule="constant",
        kl_adaptive_target=0.01,
        seed=seed,
    )


def on_policy(
    actor_critic: nn.Module, seed: int, num_steps: int = 16, num_envs: int = 4, *, all_valid: bool = True
) -> Rollout:
    """A rollout whose actions, log-probabilities and values are those of ``actor_critic``; the rest is arbitrary.

    Observations have 4 numbers; a network that reads an action mask gets one with the first action always legal.
    """
    rollout = random_rollout(seed, num_steps, num_envs, all_valid=all_valid)
    generator = torch.Generator().manual_seed(seed)
    assert isinstance(rollout.obs, Tensor)
    obs: Obs = rollout.obs
    if num_masked := getattr(actor_critic, "num_masked", 0):
        legal = torch.rand(num_steps, num_envs, num_masked, generator=generator) < 0.5
        legal[..., 0] = True
        obs = {"obs": rollout.obs, "legal": legal}
    with torch.no_grad():
        policy, value = actor_critic(map_tensors(lambda x: x.flatten(0, 1), obs))
        policy = map_tensors(lambda x: x.unflatten(0, (num_steps, num_envs)).clone(), policy)
        value = value.unflatten(0, (num_steps, num_envs))
    action = policy.sample(policy.noise(1, generator)[0])
    return replace(
        rollout,
        obs=obs,
        action=action,
        log_prob=policy.log_prob(action),
        value=value,
        next_value=torch.where(rollout.terminated, 0.0, value.roll(-1, 0)),
        policy=policy,
    )
