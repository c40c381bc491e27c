"""A trained policy without its run: a folder of JSON and safetensors, made by `ppo-export`, used in five lines.

    policy = load_policy("outputs/cartpole/ppo/<run>/export")
    action = policy.act(obs)

A stranger's folder cannot run code: JSON and safetensors hold data only, and its network is one of a fixed list.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from torch import Generator, Tensor, nn

from ppo_cli.envs.gymnasium_spaces import action_translation
from ppo_cli.networks.board import Board
from ppo_cli.networks.conv import Conv
from ppo_cli.networks.mlp import MLP
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.spaces import flattened, space_from_json
from ppo_cli.types import Obs

FORMAT = 1
"""Raised when a change makes older programs unable to read an exported policy."""

DESCRIPTION_FILE = "policy.json"
TENSORS_FILE = "policy.safetensors"

NETWORKS: dict[str, type[nn.Module]] = {"MLP": MLP, "Conv": Conv, "Board": Board}
"""The classes that a description may name by themselves; any other is ``module.Class`` of a trusted module."""

WEIGHTS = "network."
MOMENTS = "obs_normalizer."
"""What the names of tensors begin with: the network's, and the running moments of the observations."""


class PolicyError(Exception):
    """A folder holds no policy that can be read. The message is for the user."""


class PolicySpaces(NamedTuple):
    """What goes into a policy, what comes out of its network, and what its environment takes."""

    obs: spaces.Space[Any]
    action: spaces.Space[Any]
    env_action: spaces.Space[Any] | None  # None where the environment takes the network's actions as they are
    env_obs: spaces.Space[Any] | None = None  # what is flattened before it goes in; None where it goes in as it is


@dataclass(frozen=True)
class Policy:
    """A trained policy, its weights held still, in float32 on the CPU."""

    network: nn.Module
    obs_normalizer: ObsNormalizer
    spaces: PolicySpaces
    description: dict[str, Any]
    """What ``policy.json`` says: network, spaces, training, files."""

    @torch.no_grad()
    def act(self, obs: Any, *, greedy: bool = True, generator: Generator | None = None) -> NDArray[Any]:  # noqa: ANN401
        """What to do.

        Args:
            obs: One observation [*O] as the environment gives it or a batch [B, *O]; a dict of such where actions may
                be illegal, with their mask under ``legal``, as in ``{"obs": obs, "legal": info["action_mask"]}``.
            greedy: Take the most likely action; otherwise draw one, as in training.
            generator: For drawing, in place of torch's own.

        Returns:
            What the environment's ``step`` takes: an action [*A], or [B, *A] for a batch.

        Raises:
            ValueError: the observation is of another kind or shape than those that the policy learned from.
        """
        batch, is_single = self._batch(obs)
        distribution, _ = self.network(self.obs_normalizer(batch))
        chosen = distribution.mode() if greedy else distribution.sample(distribution.noise(1, generator)[0])
        action = self.env_action(chosen)
        return action[0] if is_single else action

    def env_action(self, action: Tensor) -> NDArray[Any]:
        """The network's actions [B, *A] as the environment takes them."""
        if isinstance(self.spaces.action, spaces.Box):
            action = action.view(-1, *self.spaces.action.shape)
        if self.spaces.env_action is None:
            return action.numpy()
        return action_translation(self.spaces.env_action, "the environment")[1](action.numpy())

    def _batch(self, obs: Any) -> tuple[Obs, bool]:  # noqa: ANN401 - an array, or a dict of arrays
        """Tensors with a leading dimension, and whether it was added."""
        space = self.spaces.obs
        if not isinstance(space, spaces.Dict):
            return _obs_rows(obs, space, self.spaces.env_obs)
        if not isinstance(obs, Mapping) or set(obs) != set(space):
            raise ValueError(f"expected a dict of {' and '.join(space)}")
        is_sized = not isinstance(self.network, Board)  # which plays boards of any size
        parts = {
            name: _obs_rows(obs[name], space[name], self.spaces.env_obs)
            if name == "obs"
            else _rows(obs[name], space[name], name, is_sized=is_sized)
            for name in space
        }
        return {name: rows for name, (rows, _) in parts.items()}, all(is_single for _, is_single in parts.values())


def _obs_rows(obs: Any, space: spaces.Space[Any], env_obs: spaces.Space[Any] | None) -> tuple[Tensor, bool]:  # noqa: ANN401
    """An environment's observations as rows of ``space``, flattened where they are no arrays; and whether it is one."""
    if env_obs is None:
        return _rows(obs, space, "obs", is_sized=True)
    rows, is_single = flattened(env_obs, obs)
    return _rows(rows, space, "obs", is_sized=True)[0], is_single


def _rows(value: ArrayLike | Tensor, space: spaces.Space[Any], name: str, *, is_sized: bool) -> tuple[Tensor, bool]:
    """``value`` with a leading dimension, and whether it was added."""
    shape = space.shape or ()
    array = np.asarray(value)
    is_single = array.ndim == len(shape)
    rows = array[None] if is_single else array
    if rows.ndim != len(shape) + 1 or (is_sized and rows.shape[1:] != shape):
        raise ValueError(f"{name} has the shape {list(array.shape)}, expected {list(shape)}, or a batch of it")
    dtype = np.bool_ if isinstance(space, spaces.MultiBinary) else space.dtype
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=dtype)), is_single


def load_policy(folder: str | Path, *, trust: Sequence[str] = ()) -> Policy:
    """The policy that `ppo-export` wrote to ``folder``. Runs no code from there, whoever made it.

    Args:
        folder: With ``policy.json`` and ``policy.safetensors``.
        trust: Modules of your own whose network class the description may name; only these are imported.

    Raises:
        PolicyError: no policy, damaged, of a newer format, or of a network that is not trusted.
    """
    path = Path(folder) / DESCRIPTION_FILE
    try:
        description = read_description(Path(folder))
        data = path.with_name(TENSORS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise PolicyError(f"{error.filename} is missing") from None
    try:
        if hashlib.sha256(data).hexdigest() != description["files"][TENSORS_FILE]["sha256"]:
            raise PolicyError(f"its SHA-256 is not the one that {DESCRIPTION_FILE} names")
        return read_policy(description, data, trust=trust)
    except Exception as error:  # a stranger's files go wrong in more ways than can be listed
        reason = str(error).splitlines()[0] if str(error) else ""
        what = reason if isinstance(error, PolicyError) else f"{type(error).__name__}: {reason}"
        raise PolicyError(f"{folder} holds no policy that can be read: {what}") from None


def read_description(folder: Path) -> dict[str, Any]:
    """``policy.json`` of a folder.

    Raises:
        FileNotFoundError: there is none.
        PolicyError: it is damaged, or of a newer format.
    """
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise PolicyError(f"{path} is not JSON") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else None
        raise PolicyError(f"{path} has format {found}; this version of ppo-cli reads {FORMAT}")
    return description


def read_policy(description: dict[str, Any], data: bytes, *, trust: Sequence[str] = ()) -> Policy:
    """The policy of a description and the bytes of its tensors.

    Raises:
        PolicyError: they do not fit together, or name a network that is not trusted. Other exceptions mean the same.
    """
    tensors = safetensors.torch.load(data)
    env_action, env_obs = description["env_action_space"], description.get("env_observation_space")
    policy_spaces = PolicySpaces(
        space_from_json(description["observation_space"]),
        space_from_json(description["action_space"]),
        space_from_json(env_action) if env_action is not None else None,
        space_from_json(env_obs) if env_obs is not None else None,  # exports of before have none
    )
    network = build_network(description["network"], policy_spaces, tensors, trust)
    moments = {name.removeprefix(MOMENTS): value for name, value in tensors.items() if name.startswith(MOMENTS)}
    normalizer = ObsNormalizer((), enabled=bool(moments))
    if moments:
        if {value.dtype for value in moments.values()} != {torch.float64} or not (moments["variance"] >= 0).all():
            raise PolicyError("the observations' moments are not numbers that a run could have found")
        normalizer.moments.load_state_dict(moments)
    return Policy(network, normalizer, policy_spaces, description)


def build_network(
    node: Mapping[str, Any], policy_spaces: PolicySpaces, tensors: Mapping[str, Tensor], trust: Sequence[str]
) -> nn.Module:
    """The network with the weights among ``tensors``.

    One of this package is made without memory of its own, so that no description asks for more than its file holds.

    Raises:
        PolicyError: its class is not trusted, or the weights are of another one.
    """
    weights = {name.removeprefix(WEIGHTS): value for name, value in tensors.items() if name.startswith(WEIGHTS)}
    make = network_class(node["class"], trust)
    size = sum(value.numel() for value in weights.values())
    if any(number > size for number in _numbers(node["settings"])):
        raise PolicyError("its network is larger than its weights")
    with torch.device("meta" if make in NETWORKS.values() else "cpu"):
        network = make(policy_spaces.obs, policy_spaces.action, **node["settings"])
    for name, parameter in network.named_parameters():
        if name in weights and weights[name].dtype != parameter.dtype:
            raise PolicyError(f"the weights in {name} are {weights[name].dtype}, expected {parameter.dtype}")
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def _numbers(settings: Mapping[str, Any]) -> Iterator[float]:
    """Every number among the settings of a network, also in lists."""
    for value in settings.values():
        yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, int | float))


def network_class(name: str, trust: Sequence[str]) -> type[nn.Module]:
    """The class that a description names: one of `NETWORKS`, or one of a trusted module.

    Raises:
        PolicyError: neither.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    module, _, class_name = name.rpartition(".")
    if not any(module == trusted or module.startswith(f"{trusted}.") for trusted in trust):
        root = module.partition(".")[0]
        say = f"if you trust the code of {root}, name it: trust={root}" if root else f"known: {', '.join(NETWORKS)}"
        raise PolicyError(f"its network is {name}, which is not part of ppo-cli; {say}")
    found = getattr(importlib.import_module(module), class_name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise PolicyError(f"{name} is not a network")
    return found
