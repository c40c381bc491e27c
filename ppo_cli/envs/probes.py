"""Probe environments: one idea each, so small that the right answer is known, and a failure says what is broken.

After "Debugging Reinforcement Learning Systems" (A. L. Jones, 2021). Each names the values and the actions that a
correct learner arrives at (`known_values`, `known_actions`). An agent that learns the first but not the second probe
does not look at its observation, and so on up the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from ppo_cli.envs.base import Autoreset
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Obs, Step

POISON = 1e9
"""Too large to go unnoticed in any mean, loss or statistic."""


class Probe:
    """What the probes share: N episodes, one number as observation, and both ways to restart.

    Args:
        num_envs: Environments stepped as one batch.
        autoreset: Whether a finished episode restarts in the same step or in the next.
        poison: Whether all that a learner must not look at is 1e9: the reward of a dead step, and the observation
            after an episode that terminated.
    """

    single_observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (1,))
    single_action_space: spaces.Space[Any] = spaces.Discrete(2)
    autoreset: Autoreset

    def __init__(
        self,
        num_envs: Annotated[int, Range(at_least=1)],
        autoreset: Literal["same_step", "next_step"] = "same_step",
        poison: bool = False,
    ) -> None:
        check_arguments(Probe.__init__, locals())
        self.num_envs = num_envs
        self.autoreset = autoreset
        self._poison = poison
        self._generator = torch.Generator()
        self._state = torch.zeros(num_envs)  # what the observation shows
        self._age = torch.zeros(num_envs, dtype=torch.int64)  # steps since the episode began
        self._dead = torch.zeros(num_envs, dtype=torch.bool)  # the next step only restarts

    def reset(self, seeds: Sequence[int]) -> Obs:
        """Start N fresh episodes; the first seed decides them all. Returns the first observations [N, 1]."""
        self._generator.manual_seed(seeds[0])
        self._dead.zero_()
        self._restart(torch.ones(self.num_envs, dtype=torch.bool))
        return self._observe(self._state)

    def step(self, action: Tensor) -> Step:
        """Take one action in each environment; ``action`` [N, *A]."""
        reward, terminated, truncated = self._advance(action)
        dead = self._dead.clone()
        alive = ~dead
        reward = torch.where(alive, reward, POISON if self._poison else 0.0)
        terminated, truncated = terminated & alive, truncated & alive
        self._age += 1
        done = terminated | truncated
        successor = torch.where(terminated, POISON, self._state) if self._poison else self._state.clone()
        if self.autoreset == "same_step":
            self._restart(done)
            return Step(self._observe(self._state), reward, terminated, truncated, self._observe(successor))
        self._restart(dead)
        self._dead = done
        obs = self._observe(torch.where(dead, self._state, successor))
        return Step(obs, reward, terminated, truncated, obs)

    def episode_metrics(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing to release."""

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """Observations [K, 1] and their values [K] under the optimal policy, discounted by ``gamma``."""
        raise NotImplementedError

    def known_actions(self) -> tuple[Obs, Tensor]:
        """Observations [K, 1] and the optimal actions [K, *A]; K is 0 where every action is as good."""
        return torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)

    def _restart(self, rows: Tensor) -> None:
        """Begin a new episode in the environments where ``rows`` [N] is True."""
        self._state = torch.where(rows, self._first_state(), self._state)
        self._age = torch.where(rows, 0, self._age)

    def _first_state(self) -> Tensor:
        """[N] what new episodes begin with."""
        return torch.zeros(self.num_envs)

    def _random_sign(self) -> Tensor:
        """[N] -1 or 1, evenly."""
        return 2.0 * torch.randint(2, (self.num_envs,), generator=self._generator) - 1.0

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move ``_state`` on by one step. Returns reward, terminated and truncated, each [N]."""
        raise NotImplementedError

    def _observe(self, state: Tensor) -> Obs:
        return state.unsqueeze(-1)

    def _always(self) -> Tensor:
        return torch.ones(self.num_envs, dtype=torch.bool)

    def _never(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.bool)


class ConstantValueProbe(Probe):
    """One step, always the same observation, always reward 1. Tests the value loss and the optimizer."""

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ones(self.num_envs), self._always(), self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """Value 1."""
        return torch.tensor([[0.0]]), torch.tensor([1.0])


class ObservationValueProbe(Probe):
    """One step, reward equal to the observation, -1 or 1. Tests that the observation reaches the critic."""

    def _first_state(self) -> Tensor:
        return self._random_sign()

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._state.clone(), self._always(), self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """The observation is its own value."""
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([-1.0, 1.0])


class DiscountProbe(Probe):
    """Two steps, observation 0 then 1, reward 1 for the second. Tests bootstrapping and discounting."""

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward = self._state.clone()
        self._state = torch.ones(self.num_envs)
        return reward, reward == 1, self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """``gamma`` one step before the reward, 1 at it."""
        return torch.tensor([[0.0], [1.0]]), torch.tensor([gamma, 1.0])


class ActionProbe(Probe):
    """One step, reward 1 for action 1 and -1 for action 0. Tests the sign of the policy's gradient."""

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return 2.0 * action - 1.0, self._always(), self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """Value 1, once the right action is taken."""
        return torch.tensor([[0.0]]), torch.tensor([1.0])

    def known_actions(self) -> tuple[Obs, Tensor]:
        """Action 1."""
        return torch.tensor([[0.0]]), torch.tensor([1])


class ActionObservationProbe(Probe):
    """One step; action 1 pays 1 at observation 1, action 0 at -1, otherwise -1. Tests what acts on what is seen."""

    def _first_state(self) -> Tensor:
        return self._random_sign()

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (2.0 * action - 1.0) * self._state, self._always(), self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """Value 1 at both observations."""
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 1.0])

    def known_actions(self) -> tuple[Obs, Tensor]:
        """The action that matches the observation."""
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])


class TruncationProbe(Probe):
    """An endless task that a time limit interrupts: reward 1 at every step but the first of an episode.

    The first step's observation is -1, all others' 1. The values follow only if a truncation bootstraps, and only
    if it does so from the true successor: from the next episode's first observation everything is worth less.

    Args:
        num_envs: Environments stepped as one batch.
        autoreset: Whether a finished episode restarts in the same step or in the next.
        poison: Whether the reward of a dead step is 1e9.
        time_limit: Steps after which an episode is truncated.
    """

    def __init__(
        self,
        num_envs: Annotated[int, Range(at_least=1)],
        autoreset: Literal["same_step", "next_step"] = "same_step",
        poison: bool = False,
        time_limit: Annotated[int, Range(at_least=1)] = 5,
    ) -> None:
        check_arguments(TruncationProbe.__init__, locals())
        super().__init__(num_envs, autoreset, poison)
        self._time_limit = time_limit

    def _first_state(self) -> Tensor:
        return -torch.ones(self.num_envs)

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward = (self._state > 0).float()
        self._state = torch.ones(self.num_envs)
        return reward, self._never(), self._age + 1 >= self._time_limit

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """1 / (1 - gamma) where every step pays, discounted once before that."""
        endless = 1 / (1 - gamma)
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([gamma * endless, endless])


class ContinuousActionProbe(Probe):
    """One step, reward -(a - target)^2 with target half the observation, -1 or 1. Tests the Gaussian policy."""

    single_action_space = spaces.Box(-1.0, 1.0, (1,))

    def _first_state(self) -> Tensor:
        return self._random_sign()

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return -((action[:, 0] - 0.5 * self._state) ** 2), self._always(), self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """Value 0 where the policy's spread has vanished; its variance less before."""
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([0.0, 0.0])

    def known_actions(self) -> tuple[Obs, Tensor]:
        """Half the observation."""
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([[-0.5], [0.5]])


class IllegalActionProbe(Probe):
    """One step, three actions, of which the one that would pay 10 is illegal: 0 at observation -1, 2 at 1.

    The middle action pays 1, the remaining one 0. Tests that the mask is obeyed, and that it follows the observation.
    """

    single_observation_space = spaces.Dict(obs=spaces.Box(-1.0, 1.0, (1,)), legal=spaces.MultiBinary(3))
    single_action_space = spaces.Discrete(3)

    def _first_state(self) -> Tensor:
        return self._random_sign()

    def _observe(self, state: Tensor) -> Obs:
        legal = torch.ones(len(state), 3, dtype=torch.bool)
        legal[:, 0], legal[:, 2] = state != -1, state != 1
        return {"obs": state.unsqueeze(-1), "legal": legal}

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        illegal = action == self._state + 1  # 0 at -1, 2 at 1
        reward = torch.where(illegal, 10.0, (action == 1).float())
        return reward, self._always(), self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """Value 1 for the best legal action."""
        return self._observe(torch.tensor([-1.0, 1.0])), torch.tensor([1.0, 1.0])

    def known_actions(self) -> tuple[Obs, Tensor]:
        """The middle action."""
        return self._observe(torch.tensor([-1.0, 1.0])), torch.tensor([1, 1])


class SeveralChoicesProbe(Probe):
    """One step, a choice of two and one of three, each of which pays 1: 0 and 2 at observation -1, 1 and 0 at 1."""

    single_action_space = spaces.MultiDiscrete([2, 3])

    def _first_state(self) -> Tensor:
        return self._random_sign()

    def _advance(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        right = torch.where(self._state.unsqueeze(-1) > 0, torch.tensor([1, 0]), torch.tensor([0, 2]))
        return (action == right).sum(dim=-1).float(), self._always(), self._never()

    def known_values(self, gamma: float) -> tuple[Obs, Tensor]:
        """Value 2 for two right choices."""
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([2.0, 2.0])

    def known_actions(self) -> tuple[Obs, Tensor]:
        """The choices that pay."""
        return torch.tensor([[-1.0], [1.0]]), torch.tensor([[0, 2], [1, 0]])
