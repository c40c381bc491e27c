"""What of an environment can be written down as plain data, and that nothing else is taken for its state."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_cli.envs.base import NoStateError
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.envs.object_state import capture, restore
from ppo_cli.envs.trial_copy import try_copies


class Walk(gym.Env[Any, Any]):
    """A random walk whose state can be kept in different ways."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = np.zeros(1, np.float32)
        self.trace = deque([self.position], maxlen=3)
        self.visits = {(0, 1): [1, 2.5], "x": {"y": np.float64(1e-300)}}
        return self.position, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position = (self.position + 2 * action - 1 + self.np_random.normal(size=1)).astype(np.float32)
        self.trace.append(self.position)
        return self.position, float(self.trace[0][0]), bool(abs(self.position[0]) > 5), False, {}


class Strides(Walk):
    """Takes a direction and a length, and nothing else."""

    action_space = spaces.MultiDiscrete([2, 3], start=[0, 1])  # type: ignore[assignment]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return super().step(action[0] * action[1])


class Hidden(Walk):
    """Moves by a counter that no attribute holds."""

    counter = iter(range(10**9))

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float(next(Hidden.counter)), terminated, truncated, info


class Physics:
    """Some engine's object."""


class Held(Walk):
    """Holds an object."""

    def __init__(self) -> None:
        self.world = {"engine": [Physics()]}


for kind in (Walk, Strides, Hidden, Held):
    gym.register(f"test/{kind.__name__}-v0", kind, max_episode_steps=20)


def made(name: str, seeds: Sequence[int], **settings: Any) -> GymnasiumVecEnv:
    env = GymnasiumVecEnv(len(seeds), f"test/{name}-v0", **settings)
    env.reset(seeds)
    return env


def played(env: GymnasiumVecEnv, steps: int) -> list[bytes]:
    """Everything that it answers, as bytes."""
    actions = torch.arange(steps * env.num_envs).view(steps, -1) % 2
    return [
        b"".join(part.numpy().tobytes() for part in env.step(action))  # type: ignore[union-attr]
        for action in actions
    ]


@pytest.mark.parametrize("settings", [{}, {"autoreset": "next_step"}, {"wrappers": ["RecordEpisodeStatistics"]}])
def test_a_copy_plays_on_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    env = made("Walk", [1, 2, 3], **settings)
    played(env, 7)
    torch.save(env.state_dict(), tmp_path / "state.pt")
    copied = made("Walk", [7, 8, 9], **settings)
    copied.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert played(env, 50) == played(copied, 50)


def test_a_copy_is_tried_with_several_choices_that_the_environment_has() -> None:
    env, copied = made("Strides", [1, 2]), made("Strides", [7, 8])
    copied.load_state_dict(env.state_dict())
    actions = torch.tensor([[1, 2], [0, 0]])
    for _ in range(20):
        ours, theirs = env.step(actions), copied.step(actions)
        assert torch.equal(ours.obs, theirs.obs)  # type: ignore[arg-type]


def test_what_two_attributes_share_is_shared_again() -> None:
    env, copied = Walk(), Walk()
    env.reset(seed=1)
    env.step(1)
    env.same = env.position  # type: ignore[attr-defined]
    restore(copied, capture(env))
    assert copied.same is copied.position is copied.trace[-1]  # type: ignore[attr-defined]
    assert copied.visits == env.visits
    assert type(copied.visits["x"]["y"]) is np.float64


def test_an_object_is_refused_by_the_name_of_the_attribute_that_holds_it() -> None:
    with pytest.raises(NoStateError, match=r"test/Held-v0: its attribute world\['engine'\]\[0\] is of .*Physics"):
        made("Held", [1]).state_dict()


def test_a_state_that_no_attribute_holds_is_found_out_by_playing() -> None:
    env = made("Hidden", [1])
    for _ in range(2):
        with pytest.raises(NoStateError, match="did not play on like the original"):
            env.state_dict()


def test_processes_of_their_own_are_a_reason() -> None:
    env = GymnasiumVecEnv(1, "CartPole-v1", vectorization="async")
    with pytest.raises(NoStateError, match="processes of their own"):
        env.state_dict()
    env.close()


def test_a_state_of_another_environment_is_refused() -> None:
    state = made("Walk", [1]).state_dict()
    with pytest.raises(NoStateError, match="does not fit"):
        GymnasiumVecEnv(1, "CartPole-v1", vectorization="sync").load_state_dict(state)


@pytest.mark.parametrize(
    "tree",
    [
        '["scalar", "|O", "00"]',
        '["array", "|O", [1], 0]',
        '["generator", ["dict", [["bit_generator", "system"]]]]',
        '["exec", "1"]',
        '["same", 9]',
    ],
)
def test_a_forged_state_runs_nothing_and_is_refused(tree: str) -> None:
    forged = f'["object", "{Walk.__module__}.Walk", [["position", {tree}]]]'
    with pytest.raises(NoStateError, match="does not fit"):
        restore(Walk(), {"tree": forged, "arrays": [torch.zeros(8, dtype=torch.uint8)]})


def test_a_copy_that_cannot_be_made_is_a_reason_and_not_an_error() -> None:
    def broken() -> GymnasiumVecEnv:
        raise OSError("no window")

    assert try_copies(broken, lambda _: {}, lambda *_: None) == "a copy of it could not be tried (OSError: no window)"
