"""An environment that fails once, imported by worker processes: no torch here."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

EPISODE = 10
VICTIM = 22
"""Of all seeds, the one whose first episode fails: what replaces it has another one, and does not."""


class Faulty(gym.Env[Any, Any]):
    """Shows how many steps its episode has, and the episode's number; pays 1 a step, ends on the tenth.

    Under the seed ``victim`` it does ``what`` in step ``at`` of its first episode.
    """

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(
        self,
        what: str = "nothing",
        at: int = 4,
        truncates: bool = False,
        has_mask: bool = False,
        victim: int = VICTIM,
    ) -> None:
        self.what, self.at, self.truncates, self.has_mask, self.victim = what, at, truncates, has_mask, victim
        self.count, self.episode, self.seed = 0, -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.episode = (self.seed, self.episode + 1) if seed is None else (seed, 0)
        self.count = 0
        if self.what == "raise at reset" and seed == self.victim:
            raise ZeroDivisionError("nothing to start from")
        begins_with_nan = self.what == "always nan at reset" or (self.what == "nan at reset" and seed == self.victim)
        return self.obs() + (np.float32(np.nan) if begins_with_nan else 0), self.info()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        obs, reward, ends = self.obs(), 1.0, self.count == EPISODE
        if self.seed == self.victim and self.episode == 0 and self.count == self.at:
            reward = self.fail(obs)
        return obs, reward, ends and not self.truncates, ends and self.truncates, self.info()

    def obs(self) -> Any:
        return np.array([self.count, self.episode], np.float32)

    def info(self) -> dict[str, Any]:
        return {"action_mask": np.array([True, self.count % 2 == 0])} if self.has_mask else {}

    def fail(self, obs: Any) -> float:
        """The reward, where there is one."""
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "exit":
            os._exit(7)
        elif self.what == "hang":
            time.sleep(1000)
        elif self.what == "raise":
            raise ZeroDivisionError("the pole has no length")
        elif self.what == "nan observation":
            obs[1] = np.nan
        return {"nan reward": np.nan, "huge reward": 1e30}.get(self.what, 1.0)


def register() -> str:
    """The id under which Gymnasium knows it; told only once."""
    if "test/FailsOnce-v0" not in gym.registry:
        gym.register("test/FailsOnce-v0", entry_point="tests.envs.faulty:Faulty", disable_env_checker=True)
    return "test/FailsOnce-v0"
