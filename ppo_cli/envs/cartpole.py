"""CartPole, compiled: the dynamics of Gymnasium's CartPole-v1, all environments in one call, or a whole rollout in one.

The state is float64 and moves by the same formulas in the same order (Barto, Sutton and Anderson 1983; Florian 2007);
what differs is where the random starting states come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.envs.base import Autoreset
from ppo_cli.kernels.acting import Actor, Outcome, Rows, choose, learn_moments, normalize
from ppo_cli.kernels.compiled import compiled
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.random import uniform
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Step

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL_MASS, POLE_MOMENT = POLE_MASS + CART_MASS, POLE_MASS * HALF_LENGTH
MAX_POSITION, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360
START = 0.05
"""Every number of the starting state is uniform between minus this and this."""


class Carts(NamedTuple):
    """N carts."""

    state: NDArray[np.float64]  # [N, 4] position, velocity, angle, angular velocity
    steps: NDArray[np.int64]  # [N] taken in this episode
    seed: NDArray[np.uint64]  # [N]
    episode: NDArray[np.uint64]  # [N] the starting state depends on seed and episode only
    obs: Floats  # [N, 4] the state as the policy sees it
    max_steps: int


@compiled
def start(carts: Carts, n: int) -> None:
    """Begin cart n's next episode."""
    carts.episode[n] += np.uint64(1)
    carts.steps[n] = 0
    for k in range(4):
        carts.state[n, k] = START * (2.0 * uniform(carts.seed[n], carts.episode[n], k) - 1.0)
    look(carts, n)


@compiled
def look(carts: Carts, n: int) -> None:
    """Show cart n's state."""
    for k in range(4):
        carts.obs[n, k] = np.float32(carts.state[n, k])


@compiled
def push(carts: Carts, n: int, action: int) -> tuple[bool, bool]:
    """One step of cart n, to the left (0) or to the right (1); whether it terminated, whether it was truncated."""
    position, velocity, angle, spin = carts.state[n]
    force = FORCE if action == 1 else -FORCE
    cosine, sine = math.cos(angle), math.sin(angle)
    pull = (force + POLE_MOMENT * (spin * spin) * sine) / TOTAL_MASS
    angular = (GRAVITY * sine - cosine * pull) / (
        HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (cosine * cosine) / TOTAL_MASS)
    )
    linear = pull - POLE_MOMENT * angular * cosine / TOTAL_MASS
    position += SECONDS * velocity
    velocity += SECONDS * linear
    angle += SECONDS * spin
    spin += SECONDS * angular
    state = carts.state[n]
    state[0], state[1], state[2], state[3] = position, velocity, angle, spin
    carts.steps[n] += 1
    look(carts, n)
    fell = position < -MAX_POSITION or position > MAX_POSITION or angle < -MAX_ANGLE or angle > MAX_ANGLE
    return fell, carts.steps[n] >= carts.max_steps


@compiled
def start_all(carts: Carts) -> None:
    """Begin the next episode of each."""
    for n in range(len(carts.steps)):
        start(carts, n)


@partial(compiled, allocates=True)
def push_all(
    carts: Carts,
    action: NDArray[np.int64],
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    final_obs: Floats,
) -> None:
    """One step of each; an episode that ends is followed by the next one at once."""
    for n in range(len(action)):
        terminated[n], truncated[n] = push(carts, n, action[n])
        final_obs[n] = carts.obs[n]
        if terminated[n] or truncated[n]:
            start(carts, n)


@partial(compiled, allocates=True)
def play(
    actor: Actor,
    rows: Rows,
    outcome: Outcome,
    carts: Carts,
    returns: Floats,
    lengths: Floats,
    first: int,
    end: int,
) -> None:
    """A rollout of the carts from ``first`` to ``end``; ``returns`` and ``lengths`` [N] of their episodes so far."""
    is_valid = np.ones(len(carts.steps), np.bool_)
    for t in range(len(rows.value)):
        if len(actor.moments.mean):
            learn_moments(actor.moments, carts.obs, is_valid)
        normalize(actor.moments, carts.obs[first:end], rows.obs[t, first:end])
        choose(actor, rows, t, first, end)
        for n in range(first, end):
            terminated, truncated = push(carts, n, rows.choice[t, n])
            outcome.reward[t, n] = np.float32(1.0)
            outcome.terminated[t, n], outcome.truncated[t, n] = terminated, truncated
            returns[n] += np.float32(1.0)
            lengths[n] += np.float32(1.0)
            if terminated or truncated:
                outcome.final_obs[t, n] = carts.obs[n]
                outcome.episode_return[t, n], outcome.episode_length[t, n] = returns[n], lengths[n]
                returns[n] = lengths[n] = np.float32(0.0)
                start(carts, n)


class CartPole:
    """N poles on carts. Observation: position, velocity, angle, angular velocity; action: push left (0) or right (1).

    Pays 1 for each step. Terminates where the cart leaves 2.4 to either side or the pole leans by more than 12 degrees.
    """

    autoreset: Autoreset = "same_step"
    render_fps = 1 / SECONDS

    def __init__(
        self,
        num_envs: Annotated[int, Range(at_least=1)],
        max_steps: Annotated[int, Range(at_least=1)] = 500,
    ) -> None:
        """Allocate the carts; `reset` begins the episodes.

        Args:
            num_envs: Carts, N.
            max_steps: Steps after which an episode is truncated.

        Raises:
            ValueError: naming the setting, what was expected and what was given.
        """
        check_arguments(CartPole.__init__, locals())
        self.num_envs = num_envs
        bound = np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf], np.float32)
        self.single_observation_space: spaces.Space[Any] = spaces.Box(-bound, bound, dtype=np.float32)
        self.single_action_space: spaces.Space[Any] = spaces.Discrete(2)
        self.carts = Carts(
            state=np.zeros((num_envs, 4)),
            steps=np.zeros(num_envs, np.int64),
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint64),
            obs=np.zeros((num_envs, 4), np.float32),
            max_steps=max_steps,
        )
        self._terminated = np.zeros(num_envs, np.bool_)
        self._truncated = np.zeros(num_envs, np.bool_)
        self._final_obs = np.zeros((num_envs, 4), np.float32)
        self._answer = Step(
            obs=torch.from_numpy(self.carts.obs),
            reward=torch.ones(num_envs),
            terminated=torch.from_numpy(self._terminated),
            truncated=torch.from_numpy(self._truncated),
            final_obs=torch.from_numpy(self._final_obs),
        )

    @property
    def obs(self) -> Tensor:
        """What the next action is chosen from, [N, 4]; changes with the next step."""
        return self._answer.obs  # type: ignore[return-value]

    def reset(self, seeds: Sequence[int]) -> Tensor:
        """Start N episodes; cart n's starting states depend on ``seeds[n]`` and the episode's number only.

        Raises:
            ValueError: unless there is one seed for each cart.
        """
        if len(seeds) != self.num_envs:
            raise ValueError(f"reset takes one seed for each of {self.num_envs} carts, got {len(seeds)}")
        self.carts.seed[:] = np.array(list(seeds), np.uint64)
        self.carts.episode[:] = 0
        start_all(self.carts)
        self._final_obs[:] = self.carts.obs
        return self.obs

    def step(self, action: Tensor) -> Step:
        """Push every cart once; ``action`` [N] int64, 0 or 1. The tensors are overwritten by the next call."""
        push_all(self.carts, action.cpu().numpy(), self._terminated, self._truncated, self._final_obs)
        return self._answer

    def play(
        self, actor: Actor, rows: Rows, outcome: Outcome, returns: Floats, lengths: Floats, first: int, end: int
    ) -> None:
        """A whole rollout of the carts from ``first`` to ``end`` (`ppo_cli.fused.collector.PlaysRollouts`)."""
        play(actor, rows, outcome, self.carts, returns, lengths, first, end)

    def episode_metrics(self) -> dict[str, Tensor]:
        """None of its own."""
        return {}

    def frame(self) -> NDArray[np.uint8]:
        """Cart 0 as Gymnasium draws it, uint8 [400, 600, 3].

        Raises:
            ValueError: without the package that Gymnasium draws with.
        """
        from ppo_cli.envs.gymnasium_frames import cartpole_frame

        return cartpole_frame(self._final_obs[0])

    def state_dict(self) -> dict[str, Tensor]:
        """All that the future depends on, as copies."""
        carts = self.carts
        arrays = {"state": carts.state, "steps": carts.steps, "seed": carts.seed, "episode": carts.episode}
        return {
            name: torch.from_numpy((array.view(np.int64) if array.dtype == np.uint64 else array).copy())
            for name, array in arrays.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit."""
        self.carts.state[:] = state["state"].numpy()
        self.carts.steps[:] = state["steps"].numpy()
        self.carts.seed[:] = state["seed"].numpy().view(np.uint64)
        self.carts.episode[:] = state["episode"].numpy().view(np.uint64)
        for n in range(self.num_envs):
            look(self.carts, n)

    def close(self) -> None:
        """Nothing to release."""
