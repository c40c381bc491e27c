"""A policy in an environment, one moment after the other, with what it thinks of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.distributions import Categorical
from ppo_cli.envs.base import HasFrame, VecEnv
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.envs.minesweeper.layout import Rules
from ppo_cli.envs.minesweeper.rules import potential
from ppo_cli.networks.base import ActorCritic
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.types import Obs, Step, map_tensors

LONGEST_SHOWN = 10_000
"""Steps of an episode that anyone would watch: a greedy policy may walk in circles for ever."""


@dataclass(frozen=True)
class Moment:
    """One state of an episode: what the agent sees, thinks and is about to do. The last one is where it ended."""

    step: int  # actions taken so far
    episode_return: float  # rewards so far
    value: float  # V(s), in the environment's rewards; 0 at the end
    probs: NDArray[np.float64] | None  # [A] pi(. | s); None where actions are continuous, and at the end
    action: NDArray[Any] | None  # [*A]; None at the end
    done: bool
    success: bool | None  # how it ended, where the environment tells; None before
    board: NDArray[np.int8] | None = None  # [H, W] of Minesweeper, its mines uncovered at the end
    win: float | None = None  # Minesweeper: probability of winning from here, as the critic sees it
    frame: NDArray[np.uint8] | None = None  # [h, w, 3] of the environment's own picture, if pictures are wanted

    @property
    def choice(self) -> int | None:
        """The action's number; None where actions are continuous, and at the end."""
        return None if self.action is None or self.probs is None else int(self.action)


@dataclass(frozen=True)
class Agent:
    """Trained weights in an environment of their own."""

    name: str
    env: VecEnv  # of one copy, which does not restart in the step that ends an episode unless it keeps the frame
    actor_critic: ActorCritic
    obs_normalizer: ObsNormalizer
    device: torch.device
    value_scale: float = 1.0  # standard deviation that rewards were divided by in training
    shaping: float = 0.0  # weight of Minesweeper's potential in the rewards
    sample: bool = False  # draw actions as in training; the most probable one otherwise
    with_frames: bool = False

    def episode(self, seed: int) -> Iterator[Moment]:
        """The episode of ``seed``, the same one every time; its first `LONGEST_SHOWN` steps where it has more."""
        generator = torch.Generator(self.device).manual_seed(seed)
        obs = self.env.reset([seed])
        step, episode_return = 0, 0.0
        while True:
            moment, action = self._choose(obs, step, episode_return, generator)
            yield moment
            answer = self.env.step(action)
            obs, step = answer.obs, step + 1
            episode_return += float(answer.reward[0])
            if bool(answer.terminated[0] | answer.truncated[0]) or step >= LONGEST_SHOWN:
                yield self._end(answer, step, episode_return)
                return

    @torch.no_grad()
    def _choose(self, obs: Obs, step: int, episode_return: float, generator: torch.Generator) -> tuple[Moment, Tensor]:
        seen = map_tensors(lambda x: x.to(self.device), obs)
        policy, value = self.actor_critic(self.obs_normalizer(seen))
        action = (policy.sample(policy.noise(1, generator)[0]) if self.sample else policy.mode()).cpu()
        probs = policy.log_probs[0].exp().double().cpu().numpy() if isinstance(policy, Categorical) else None
        moment = Moment(
            step, episode_return, float(value[0]) * self.value_scale, probs, action[0].numpy(), done=False, success=None
        )
        return self._pictured(moment), action

    def _end(self, answer: Step, step: int, episode_return: float) -> Moment:
        figures = self.env.episode_metrics()
        success = next((bool(figures[tag][0]) for tag in SUCCESS_TAGS if tag in figures), None)
        return self._pictured(Moment(step, episode_return, 0.0, None, None, done=True, success=success))

    def _pictured(self, moment: Moment) -> Moment:
        """``moment`` with what is seen of the environment now."""
        if isinstance(self.env, MinesweeperVecEnv):
            board = self.env.final_boards()[0]
            win = win_estimate(self.env.rules, board, moment.value, self.shaping)
            return replace(moment, board=board, win=float(bool(moment.success)) if moment.done else win)
        if self.with_frames:
            assert isinstance(self.env, HasFrame)
            return replace(moment, frame=self.env.frame())
        return moment


SUCCESS_TAGS = ("minesweeper/win_rate", "charts/success_rate")


def win_estimate(rules: Rules, board: NDArray[np.int8], value: float, shaping: float) -> float:
    """P(win | s) = V(s) + Phi(s), within 0 to 1, of a game that is not over.

    With gamma = 1 the rewards from s on sum to won - Phi(s), because the changes of the potential telescope to the
    end's 0 (`rules.step_boards`). With a smaller gamma V discounts the win, and the sum is no more than an estimate.

    Args:
        rules: Of the game.
        board: Cell codes [H, W].
        value: V(s).
        shaping: Weight of the potential in the rewards that V was learned from.
    """
    return min(1.0, max(0.0, value + potential(rules, board.ravel(), shaping)))


def side_by_side(agents: Sequence[Agent], seed: int) -> Iterator[tuple[Moment, ...]]:
    """The episode of ``seed`` of each agent, step by step; one that has ended waits for the others."""
    episodes = [agent.episode(seed) for agent in agents]
    moments = tuple(next(episode) for episode in episodes)
    yield moments
    while not all(moment.done for moment in moments):
        pairs = zip(episodes, moments, strict=True)
        moments = tuple(moment if moment.done else next(episode) for episode, moment in pairs)
        yield moments


@dataclass
class Score:
    """How one agent has done so far."""

    episodes: int = 0
    successes: int = 0
    total_return: float = 0.0
    has_success: bool = False

    def add(self, end: Moment) -> None:
        """Count an episode by its last moment."""
        self.episodes += 1
        self.total_return += end.episode_return
        self.has_success |= end.success is not None
        self.successes += bool(end.success)

    def text(self, verb: str = "won") -> str:
        """``won 3 of 4``, or ``mean return 487.5 of 4``; empty before the first episode has ended."""
        if not self.episodes:
            return ""
        if self.has_success:
            return f"{verb} {self.successes} of {self.episodes}"
        return f"mean return {self.total_return / self.episodes:.5g} of {self.episodes}"
