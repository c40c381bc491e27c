"""Collecting with a board network through its kernels; environments are stepped as ever."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ppo_cli.distributions import Categorical
from ppo_cli.envs.base import VecEnv
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.fused.board_weights import BoardWeights, Room
from ppo_cli.kernels.heads import Choices, act_on_boards
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.threads import share
from ppo_cli.parallel import MIN_ROWS
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from ppo_cli.types import Obs, write_row


class BoardCollector(Collector):
    """A collector whose policy is a board network in kernels."""

    def __init__(
        self,
        env: VecEnv,
        state: TrainState,
        rollout_length: int,
        episodes: EpisodeWindow,
        weights: BoardWeights,
        rooms: list[Room],
    ) -> None:
        super().__init__(env, state, rollout_length, episodes)
        self.weights = weights
        self.rooms = rooms
        assert isinstance(self.raw_obs, dict)
        self.policy = Categorical(torch.zeros(self.raw_obs["legal"].shape))
        action = torch.zeros(env.num_envs, dtype=torch.int64)
        storage = self.storage = self.allocate(self.raw_obs, action, torch.zeros(env.num_envs), self.policy)
        assert isinstance(storage.policy, Categorical)
        rows = storage.policy.log_probs, storage.action, storage.log_prob, storage.value
        self.choices = Choices(*(tensor.numpy() for tensor in rows))

    def act(self, t: int) -> Tensor:
        """As ``Collector.act``."""
        storage = self.storage
        assert storage is not None
        if t == 0:
            self.noise = self.policy.noise(self.rollout_length, self.state.action_generator)
            self.weights.spread_out()
        write_row(storage.obs, t, self.raw_obs)
        self.choose(self.raw_obs, self.noise[t].numpy(), rows_of(self.choices, t))
        return storage.action[t]

    def value_of(self, raw_obs: Obs) -> Tensor:
        """As ``Collector.value_of``."""
        assert isinstance(raw_obs, dict)
        rows, actions = raw_obs["legal"].shape
        value = np.empty(rows, np.float32)
        choices = Choices(
            log_probs=np.empty((rows, actions), np.float32),
            action=np.empty(rows, np.int64),
            log_prob=np.empty(rows, np.float32),
            value=value,
        )
        self.choose(raw_obs, np.ones((rows, actions), np.float32), choices)
        return torch.from_numpy(value)

    def choose(self, obs: Obs, noise: Floats, choices: Choices) -> None:
        """Fill ``choices`` on the boards of ``obs``, each thread its part."""
        assert isinstance(obs, dict)
        boards, legal = obs["board"].numpy(), obs["legal"].numpy()
        threads, total = self.state.accelerator.threads, len(boards)
        number = max(1, min(threads.count, total // MIN_ROWS))

        def choose_some(first: int, end: int) -> None:
            room = self.rooms.pop()
            for part in room.parts(end - first):
                rows = slice(first + part.start, first + part.stop)
                group = room.read(boards[rows])
                act_on_boards(
                    self.weights.stored.heads,
                    group.scratch,
                    self.weights.pooling,
                    group.readings,
                    legal[rows],
                    noise[rows],
                    rows_of(choices, rows),
                )
            self.rooms.append(room)

        threads.run([partial(choose_some, *share(total, part, number)) for part in range(number)])


def rows_of(choices: Choices, rows: int | slice) -> Choices:
    """Some of them: the same memory."""
    return Choices(choices.log_probs[rows], choices.action[rows], choices.log_prob[rows], choices.value[rows])
