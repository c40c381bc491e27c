"""Collecting through `ppo_cli.kernels.acting`: one call for each step, or one for a whole rollout.

A whole rollout where the environment is a kernel itself (`PlaysRollouts`); otherwise the environment is stepped as ever
and only the policy is compiled.
"""

from __future__ import annotations

import math
import time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.distributions import Categorical, Gaussian
from ppo_cli.envs.base import ArrayStep, StepsArrays, VecEnv
from ppo_cli.episodes import TRUNCATED_TAG, EpisodeWindow
from ppo_cli.fused.weights import MLPWeights
from ppo_cli.fused.workers import Workers
from ppo_cli.kernels import acting
from ppo_cli.kernels.acting import Actor, Moments, Outcome, Rows
from ppo_cli.kernels.linear import Floats
from ppo_cli.kernels.mlp import GAUSSIAN, Network, new_scratch
from ppo_cli.normalize import CLIP
from ppo_cli.rollout import Collector
from ppo_cli.train_state import TrainState
from ppo_cli.types import Distribution, Obs, Rollout, Step

BLOCK = 4
"""Environments that the matrix products take at a time."""

WORTH_SHARING = 2048
"""Samples from which their values are computed on several threads: waking one takes as long as some hundred of them."""

NO_ROWS = np.zeros((0, 0, 0), np.float32)


@runtime_checkable
class PlaysRollouts(Protocol):
    """An environment that plays whole rollouts. Its observations are vectors, and it has no dead steps."""

    @property
    def obs(self) -> Tensor:
        """What the next action is chosen from, [N, O] float32."""
        ...

    def play(
        self, actor: Actor, rows: Rows, outcome: Outcome, returns: Floats, lengths: Floats, first: int, end: int
    ) -> None:
        """Fill ``rows`` and ``outcome`` for the environments from ``first`` to ``end``.

        ``returns`` and ``lengths`` [N] are the figures of the episodes under way.
        """
        ...


class FusedCollector(Collector):
    """A collector whose policy, an MLP, is a kernel."""

    def __init__(
        self,
        env: VecEnv,
        state: TrainState,
        rollout_length: int,
        episodes: EpisodeWindow,
        weights: MLPWeights,
        workers: Workers,
    ) -> None:
        super().__init__(env, state, rollout_length, episodes)
        self.workers = workers
        self.player = env if isinstance(env, PlaysRollouts) else None
        self.arrays = env if isinstance(env, StepsArrays) and env.gives_arrays else None
        self.policy, action = policy_of(weights.network, env.num_envs)
        assert isinstance(self.raw_obs, Tensor)
        storage = self.storage = self.allocate(self.raw_obs.float(), action, torch.zeros(env.num_envs), self.policy)
        storage.valid.fill_(True)
        self.actions = storage.action.numpy()
        self.viewed: tuple[Obs, NDArray[Any]] | None = None  # ``raw_obs`` when it was looked at last, and its memory
        self.rows, self.outcome, self.valid = rows_of(storage), outcome_of(storage), storage.valid.numpy()
        self.dead_rows, self.returns, self.lengths = (
            figure.numpy() for figure in (self.dead, self.episode_return, self.episode_length)
        )  # the same memory
        episode_return = torch.from_numpy(self.outcome.episode_return)
        self.figures = {"return": episode_return, "length": torch.from_numpy(self.outcome.episode_length)}
        network, size = weights.network, self.rows.obs.shape[2] if state.obs_normalizer.enabled else 0
        width = int(network.layers[:-2, 3].max())
        self.scratch = [new_scratch(network) for _ in range(workers.num_threads)]
        self.noise = torch.empty(self.rows.policy.shape)
        self.actor = Actor(
            network=network,
            transposed=np.empty_like(network.parameters),
            hidden=np.zeros((network.depth, env.num_envs, width), np.float32),
            moments=Moments(np.zeros(1), np.zeros(size), np.zeros(size), np.float32(CLIP)),
            noise=self.noise.numpy(),
        )

    def collect(self) -> Rollout:
        """As ``Collector.collect``."""
        self.begin_rollout()
        return self.play(self.player) if self.player else super().collect()

    def begin_rollout(self) -> None:
        """Random numbers, the weights and the moments as they stand now."""
        self.policy.renew(self.noise, self.state.action_generator)
        acting.transpose_weights(self.actor.network, self.actor.transposed)
        if self.state.obs_normalizer.enabled:
            moments = self.state.obs_normalizer.moments
            self.actor.moments.rows_seen[:] = moments.count.numpy()
            self.actor.moments.mean[:] = moments.mean.numpy().reshape(-1)
            self.actor.moments.variance[:] = moments.variance.numpy().reshape(-1)

    def keep_moments(self) -> None:
        """Hand what the rollout has learnt of the observations to the training state."""
        if self.state.obs_normalizer.enabled:
            moments = self.state.obs_normalizer.moments
            moments.count.fill_(self.actor.moments.rows_seen[0])
            moments.mean.copy_(torch.from_numpy(self.actor.moments.mean).view_as(moments.mean))
            moments.variance.copy_(torch.from_numpy(self.actor.moments.variance).view_as(moments.variance))

    def collect_step(self, t: int) -> None:
        """As ``Collector.collect_step``; without a tensor where the environment knows arrays."""
        if self.arrays is None:
            super().collect_step(t)
            return
        started = time.perf_counter()
        self.choose(t)
        acted = time.perf_counter()
        step = self.arrays.step_arrays(self.actions[t])
        self.seconds["inference"] += acted - started
        self.seconds["env"] += time.perf_counter() - acted
        self.take_in(t, step)
        self.hear_of_losses(t)

    def act(self, t: int) -> Tensor:
        """As ``Collector.act``."""
        self.choose(t)
        return torch.from_numpy(self.actions[t])

    def choose(self, t: int) -> None:
        """The actions of step t."""
        self.note_raw_obs()
        rows = self.raw_array().reshape(self.env.num_envs, -1)
        acting.act(self.actor, self.rows, rows.astype(np.float32, copy=False), self.dead_rows, t)

    def raw_array(self) -> NDArray[Any]:
        """``raw_obs`` as an array: the same memory."""
        if self.viewed is None or self.viewed[0] is not self.raw_obs:
            assert isinstance(self.raw_obs, Tensor)
            self.viewed = self.raw_obs, self.raw_obs.numpy()
        return self.viewed[1]

    def record(self, t: int, step: Step) -> None:
        """As ``Collector.record``."""
        assert isinstance(step.obs, Tensor) and isinstance(step.final_obs, Tensor)
        _, reward, terminated, truncated, _ = step
        self.take_in(
            t,
            ArrayStep(step.obs.numpy(), reward.numpy(), terminated.numpy(), truncated.numpy(), step.final_obs.numpy()),
        )

    def take_in(self, t: int, step: ArrayStep) -> None:
        """Store what the environments answered to step t."""
        assert self.storage is not None
        is_cut = acting.record(
            self.outcome,
            self.valid,
            t,
            step.reward,
            step.terminated,
            step.truncated,
            self.dead_rows,
            self.returns,
            self.lengths,
            self.env.autoreset == "next_step",
        )
        self.raw_array()[...] = step.obs
        if figures := self.env.episode_metrics():
            self.keep_figures(t, figures)
        if is_cut and self.repairs_cuts:
            cut = self.storage.truncated[t] & ~self.storage.terminated[t]
            self.keep_final_obs(t, step.tensors(), cut)

    def require_finite(self) -> None:
        """As ``Collector.require_finite``; nearly always one look is enough."""
        if not math.isfinite(acting.total(self.rows.obs, self.outcome.reward, self.outcome.next_value)):
            super().require_finite()

    def value_successors(self, storage: Rollout) -> None:
        """As ``Collector.value_successors``, with the values of the rollout itself, which acting left out."""
        self.keep_moments()
        self.evaluate()
        super().value_successors(storage)

    def value_of(self, raw_obs: Obs) -> Tensor:
        """As ``Collector.value_of``."""
        assert isinstance(raw_obs, Tensor)
        rows = raw_obs.numpy().reshape(len(raw_obs), -1).astype(np.float32, copy=False)
        value = np.empty(len(rows), np.float32)
        acting.value_of(self.actor, self.scratch[0], rows, value)
        return torch.from_numpy(value)

    def evaluate(self) -> None:
        """Values of all samples, each thread its share."""
        total = self.rows.value.size

        def work(thread: int, threads: int) -> None:
            first, end = share_blocks(total, self.actor.network.tile, thread, threads)
            acting.evaluate(self.actor, self.scratch[thread], self.rows, first, end)

        if total < WORTH_SHARING:
            work(0, 1)
        else:
            self.workers.run(work)

    def report_episodes(self, storage: Rollout) -> None:
        """As ``Collector.report_episodes``."""
        terminated, truncated = self.outcome.terminated.reshape(-1), self.outcome.truncated.reshape(-1)
        ended = np.flatnonzero(terminated | truncated)
        if not len(ended):
            return
        figures = {tag: figure.numpy().reshape(-1)[ended] for tag, figure in self.figures.items()}
        if self.may_truncate:
            figures[TRUNCATED_TAG] = (truncated > terminated)[ended]
        self.episodes.add(figures.pop("return"), figures.pop("length"), figures)

    def play(self, env: PlaysRollouts) -> Rollout:
        """A rollout in one call for each thread; a single one where running moments tie the environments together."""
        storage = self.storage
        assert storage is not None
        started = time.perf_counter()
        self.play_all(env)
        self.keep_moments()
        self.evaluate()
        self.raw_obs = env.obs
        acting.value_successors(self.actor, self.scratch[0], self.rows, self.outcome, self.raw_array())
        self.require_finite()
        self.report_episodes(storage)
        if self.state.reward_normalizer.enabled:
            normalize = self.state.reward_normalizer
            storage.reward.copy_(normalize(storage.reward, storage.done, storage.valid))
        self.seconds = {"rollout": time.perf_counter() - started}
        return storage

    def play_all(self, env: PlaysRollouts) -> None:
        """Each thread its environments; one thread all of them where they are few, or tied by running moments."""
        num_envs = self.env.num_envs

        def work(thread: int, threads: int) -> None:
            first, end = share_blocks(num_envs, BLOCK, thread, threads)
            env.play(self.actor, self.rows, self.outcome, self.returns, self.lengths, first, end)

        if self.state.obs_normalizer.enabled or num_envs < 2 * BLOCK:
            work(0, 1)
        else:
            self.workers.run(work)


def share_blocks(total: int, block: int, thread: int, num_threads: int) -> tuple[int, int]:
    """A thread's part of ``total`` rows in whole blocks: rows are computed in the same company whoever does it."""
    blocks = -(-total // block)
    first, end = blocks * thread // num_threads, blocks * (thread + 1) // num_threads
    return min(first * block, total), min(end * block, total)


def policy_of(network: Network, num_envs: int) -> tuple[Distribution, Tensor]:
    """A policy of the network's kind for N environments, and actions of its kind: shapes and types, no values."""
    outputs = torch.zeros(num_envs, int(network.layers[-2, 3]))
    if network.head == GAUSSIAN:
        return Gaussian(outputs, outputs), outputs
    return Categorical(outputs), torch.zeros(num_envs, dtype=torch.int64)


def rows_of(storage: Rollout) -> Rows:
    """What acting fills, as the kernels see it: the same memory."""
    policy, (length, num_envs) = storage.policy, storage.value.shape
    assert isinstance(storage.obs, Tensor)
    gaussian = policy if isinstance(policy, Gaussian) else None
    outputs = policy.mean if isinstance(policy, Gaussian) else policy.log_probs  # type: ignore[attr-defined]
    return Rows(
        obs=storage.obs.view(length, num_envs, -1).numpy(),
        choice=np.zeros((0, 0), np.int64) if gaussian else storage.action.numpy(),
        action=storage.action.numpy() if gaussian else NO_ROWS,
        log_prob=storage.log_prob.numpy(),
        value=storage.value.numpy(),
        policy=outputs.numpy(),
        log_std=gaussian.log_std.numpy() if gaussian else NO_ROWS,
    )


def outcome_of(storage: Rollout) -> Outcome:
    """What stepping fills, as the kernels see it: the same memory, and some that only they need."""
    assert isinstance(storage.obs, Tensor)
    return Outcome(
        reward=storage.reward.numpy(),
        terminated=storage.terminated.numpy(),
        truncated=storage.truncated.numpy(),
        next_value=storage.next_value.numpy(),
        final_obs=np.empty(storage.obs.shape, np.float32),
        episode_return=np.empty(storage.value.shape, np.float32),
        episode_length=np.empty(storage.value.shape, np.float32),
    )
