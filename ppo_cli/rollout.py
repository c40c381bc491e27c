"""Collecting experience: T steps of N environments under the current policy.

Where the environment lives on the network's device, never truncates, and nothing is normalized, the steps are queued
without waiting for the device; the figures of the finished episodes are read once, after the last step.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from ppo_cli.envs.base import RESUMED, Fault, HasFaults, HasState, NoStateError, VecEnv, env_seeds, may_truncate
from ppo_cli.episodes import TRUNCATED_TAG, EpisodeWindow
from ppo_cli.faults import RESTARTS, NonFiniteError
from ppo_cli.networks.base import act
from ppo_cli.train_state import TrainState
from ppo_cli.types import Distribution, Obs, Rollout, Step, map_tensors, take_rows, write_row


class Collector:
    """Plays on where the last rollout stopped, and writes into the same storage every time.

    A rollout is read before the next ``collect``: its tensors are overwritten then.
    """

    def __init__(self, env: VecEnv, state: TrainState, rollout_length: int, episodes: EpisodeWindow) -> None:
        self.env = env
        self.state = state
        self.rollout_length = rollout_length
        self.episodes = episodes
        self.device = state.accelerator.device
        self.seconds = {"env": 0.0, "inference": 0.0}  # spent in the last rollout
        self.raw_obs = self.to_device(env.reset(env_seeds(state.seed, env.num_envs)))
        self.dead = torch.zeros(env.num_envs, dtype=torch.bool, device=self.device)  # this step will be a dead one
        self.episode_return = torch.zeros(env.num_envs, device=self.device)
        self.episode_length = torch.zeros(env.num_envs, device=self.device)
        self.obs_sum = torch.zeros(env.num_envs, device=self.device)  # of a rollout, where normalizing hides who
        self.storage: Rollout | None = None
        self.noise: Tensor  # [T, N, ...] random numbers that decide the actions of a rollout
        self.final_obs: list[tuple[int, Tensor, Obs]] = []  # (t, rows, what those rows ended on) of this rollout's cuts
        self.may_truncate = may_truncate(env)
        self.repairs_cuts = env.autoreset == "same_step" and self.may_truncate
        self.watched = env if isinstance(env, HasFaults) and env.may_fail else None
        if self.watched is not None:
            state.faults.counts.setdefault(RESTARTS, 0)
        self.lost: list[tuple[int, list[int]]] = []  # (t, environments whose step never happened) of this rollout
        self.figures: dict[str, Tensor] = {}  # [T, N] by tag: how the episodes stood after each step, read where done

    @torch.no_grad()
    def collect(self) -> Rollout:
        """The next T steps. Feeds the episode window and the running moments on the way."""
        self.seconds = {"env": 0.0, "inference": 0.0}
        self.final_obs, self.lost = [], []
        self.obs_sum.zero_()
        self.hear_of_starts()
        try:
            for t in range(self.rollout_length):
                self.collect_step(t)
        except Exception:
            self.require_finite()  # an environment that is given NaN fails in ways of its own
            raise
        assert self.storage is not None
        self.report_episodes(self.storage)
        self.cut_lost(self.storage)
        self.value_successors(self.storage)
        self.require_finite()
        normalize = self.state.reward_normalizer
        self.storage.reward.copy_(normalize(self.storage.reward, self.storage.done, self.storage.valid))
        return self.storage

    def hear_of_starts(self) -> None:
        """Count what went wrong while episodes began, before the first step: nothing of a step is lost by it."""
        if self.watched is not None:
            for fault in self.watched.faults():
                fault.tell(self.state.faults)

    def collect_step(self, t: int) -> None:
        """Act, step, record."""
        started = time.perf_counter()
        action = self.act(t)
        acted = time.perf_counter()
        step = self.env.step(action)
        self.seconds["inference"] += acted - started
        self.seconds["env"] += time.perf_counter() - acted
        self.record(t, step)
        self.hear_of_losses(t)

    def hear_of_losses(self, t: int) -> None:
        """Leave out what went wrong in step t."""
        if self.watched is not None:
            for fault in self.watched.faults():
                self.lose(t, fault)

    def act(self, t: int) -> Tensor:
        """Choose the actions of step t and store what they were chosen from and by. [N, *A]."""
        state = self.state
        self.note_raw_obs()
        state.obs_normalizer.update(self.raw_obs, ~self.dead)
        obs = state.obs_normalizer(self.raw_obs)
        policy, value = state.evaluate(act, obs)
        if t == 0:  # the random numbers of a whole rollout at once: one call, whoever computes the policy
            self.noise = policy.noise(self.rollout_length, state.action_generator)
        action: Tensor = policy.sample(self.noise[t])
        storage = self.storage = self.storage or self.allocate(obs, action, value, policy)
        write_row(storage.obs, t, obs)
        write_row(storage.policy, t, policy)
        storage.action[t] = action
        storage.log_prob[t] = policy.log_prob(action)
        storage.value[t] = value
        return action

    def record(self, t: int, step: Step) -> None:
        """Store what the environments answered to step t."""
        storage = self.storage
        assert storage is not None
        storage.valid[t] = ~self.dead
        storage.reward[t] = step.reward.to(self.device)
        storage.terminated[t] = step.terminated.to(self.device) & ~self.dead
        storage.truncated[t] = step.truncated.to(self.device) & ~self.dead
        self.raw_obs = self.to_device(step.obs)
        done = storage.terminated[t] | storage.truncated[t]
        self.count_episodes(storage, t, done)
        if self.repairs_cuts and (cut := storage.truncated[t] & ~storage.terminated[t]).any():
            self.keep_final_obs(t, step, cut)
        self.dead = done if self.env.autoreset == "next_step" else torch.zeros_like(done)

    def lose(self, t: int, fault: Fault) -> None:
        """Leave out step t of environments that failed in it: nobody learns from it, and their episodes never ended."""
        storage, envs = self.storage, fault.envs
        assert storage is not None
        storage.valid[t, envs] = False
        self.episode_return[envs] = 0.0
        self.episode_length[envs] = 0.0
        self.lost.append((t, envs))
        fault.tell(self.state.faults)

    def cut_lost(self, storage: Rollout) -> None:
        """Truncate the episodes that were lost, after the last step that counts and before the fresh ones begin.

        What came before the loss is valued by the observation that the lost step began with. Done once finished
        episodes are reported: these are none.
        """
        for t, envs in self.lost:
            storage.truncated[t, envs] = True
            if t > 0:
                storage.truncated[t - 1, envs] |= ~storage.terminated[t - 1, envs]

    def keep_final_obs(self, t: int, step: Step, cut: Tensor) -> None:
        """Remember what the episodes that were ``cut`` [N] at step t ended on."""
        rows = cut.nonzero().squeeze(-1)
        self.final_obs.append((t, rows, take_rows(step.final_obs, rows, self.device)))

    def note_raw_obs(self) -> None:
        """One environment's NaN makes the running moments NaN, and with them everyone's observation."""
        if self.state.obs_normalizer.enabled:
            obs = self.raw_obs["obs"] if isinstance(self.raw_obs, dict) else self.raw_obs
            self.obs_sum += obs.flatten(1).sum(dim=1)

    def require_finite(self) -> None:
        """Make sure that the environments gave numbers, before anything is learnt from them.

        Raises:
            NonFiniteError: naming the environment and the step.
        """
        if (storage := self.storage) is None:
            return
        observations = storage.obs if isinstance(storage.obs, dict) else {"": storage.obs}
        observations = {key: obs for key, obs in observations.items() if obs.is_floating_point()}
        if math.isfinite(sum(map(torch.sum, observations.values()), storage.reward.sum() + storage.next_value.sum())):
            return  # nearly always: one pass, no memory, one answer to wait for
        gifts = {f"an observation {key}".strip(): values for key, values in observations.items()}
        gifts |= {"a reward": storage.reward, "a next observation with a value": storage.next_value}
        for gift, values in gifts.items():
            if (entry := nonfinite_entry(values, storage.valid if gift == "a reward" else None)) is None:
                continue
            t, n = entry
            value = values[t, n].flatten()
            number = value[~value.isfinite()][0].item()
            if gift.startswith("an observation") and not self.obs_sum.isfinite().all():
                n, number = int((~self.obs_sum.isfinite()).nonzero()[0]), math.nan
            env_steps = self.state.env_steps + t * self.env.num_envs
            raise NonFiniteError(
                f"environment {n} gave {gift} of {number} in step {t + 1} of the rollout of update "
                f"{self.state.updates + 1}, after {env_steps:,} env steps: nothing was learnt from it"
            )

    def value_successors(self, storage: Rollout) -> None:
        """Fill ``next_value``: the next row's value, except where the next row belongs to another episode.

        The last row looks at the current observation; truncated rows at the observation they really ended on, all in
        one pass of the network. Under next_step auto-reset the next row is the true successor anyway.
        """
        storage.next_value[:-1] = storage.value[1:]
        storage.next_value[-1] = self.value_of(self.raw_obs)
        if self.final_obs:
            value = self.value_of(concatenate([obs for _, _, obs in self.final_obs]))
            parts = torch.split(value, [len(rows) for _, rows, _ in self.final_obs])
            for (t, rows, _), part in zip(self.final_obs, parts, strict=True):
                storage.next_value[t, rows] = part
        storage.next_value.masked_fill_(storage.terminated, 0.0)

    def value_of(self, raw_obs: Obs) -> Tensor:
        """V of unnormalized observations [B, *O], outside the compiled path: B varies. [B]."""
        network = self.state.accelerator.network(self.state.actor_critic)
        value: Tensor = network(self.state.obs_normalizer(raw_obs))[1]
        return value

    def count_episodes(self, storage: Rollout, t: int, done: Tensor) -> None:
        """Add step t to its episodes' figures, keep how they stand, and start again where ``done`` [N]."""
        valid = storage.valid[t]
        self.episode_return += torch.where(valid, storage.reward[t], 0.0)
        self.episode_length += valid
        figures = {"return": self.episode_return, "length": self.episode_length, **self.env.episode_metrics()}
        self.keep_figures(t, figures)
        self.episode_return.masked_fill_(done, 0.0)
        self.episode_length.masked_fill_(done, 0.0)

    def keep_figures(self, t: int, figures: dict[str, Tensor]) -> None:
        """How the episodes stand after step t, by tag, each [N]."""
        for tag, figure in figures.items():
            if tag not in self.figures:
                self.figures[tag] = figure.new_zeros((self.rollout_length, *figure.shape))
            self.figures[tag][t] = figure

    def report_episodes(self, storage: Rollout) -> None:
        """Tell the window about the episodes that ended in a rollout, in the order they did."""
        done = storage.done
        figures = {tag: figure[done.to(figure.device)] for tag, figure in self.figures.items()}
        if self.may_truncate:
            figures[TRUNCATED_TAG] = (storage.truncated & ~storage.terminated)[done]
        self.episodes.add(figures.pop("return"), figures.pop("length"), figures)

    def allocate(self, obs: Obs, action: Tensor, value: Tensor, policy: Distribution) -> Rollout:
        """Storage for T rows shaped like these."""

        def rows(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
            return torch.zeros((self.rollout_length, *x.shape), dtype=dtype or x.dtype, device=self.device)

        return Rollout(
            obs=map_tensors(rows, obs),
            action=rows(action),
            log_prob=rows(value),
            value=rows(value),
            next_value=rows(value),
            reward=rows(value),
            terminated=rows(value, torch.bool),
            truncated=rows(value, torch.bool),
            valid=rows(value, torch.bool),
            policy=map_tensors(rows, policy),
        )

    def to_device(self, obs: Obs) -> Obs:
        """On the network's device, and safe from the environment's next step."""
        return map_tensors(lambda x: x.to(self.device, copy=True), obs)

    def state_dict(self) -> dict[str, Any]:
        """Figures of the episodes under way, and their environments' state where they can give it."""
        return {
            **self.env_state(),
            "raw_obs": map_tensors(Tensor.clone, self.raw_obs),
            "dead": self.dead.clone(),
            "episode_return": self.episode_return.clone(),
            "episode_length": self.episode_length.clone(),
            "episodes": self.episodes.state_dict(),
        }

    def env_state(self) -> dict[str, Any]:
        """The environments' state, or why there is none."""
        if not isinstance(self.env, HasState):
            return {"env": {}, "no_env_state": f"{type(self.env).__name__} has no state_dict"}
        try:
            return {"env": self.env.state_dict()}
        except NoStateError as error:
            return {"env": {}, "no_env_state": str(error)}

    def load_state_dict(self, state: dict[str, Any], *, resumes: int, changed: str | None = None) -> str | None:
        """Take up where ``state_dict`` was taken. Returns why the episodes under way could not be continued, or None.

        Where the environment cannot give its state, or another one is wanted now (``changed`` says how), fresh episodes
        start instead, from seeds that depend on ``resumes``, how often the run has been resumed: none is played twice.
        """
        self.episodes.load_state_dict(state["episodes"])
        reason = changed or self.load_env_state(state)
        if reason:
            self.raw_obs = self.to_device(
                self.env.reset(env_seeds(self.state.seed, self.env.num_envs, RESUMED + resumes))
            )
            self.state.reward_normalizer.begin_episodes()
            return reason
        self.raw_obs = self.to_device(state["raw_obs"])
        for name in ("dead", "episode_return", "episode_length"):
            getattr(self, name).copy_(state[name])
        return None

    def load_env_state(self, state: dict[str, Any]) -> str | None:
        """Put the environments where they were, or say why not."""
        if (num_envs := len(state["dead"])) != self.env.num_envs:
            return f"there were {num_envs} environments, now there are {self.env.num_envs}"
        if not (isinstance(self.env, HasState) and state["env"]):
            return str(state.get("no_env_state", "the environment did not give its state"))
        try:
            self.env.load_state_dict(state["env"])
        except NoStateError as error:
            return str(error)
        return None


def nonfinite_entry(values: Tensor, valid: Tensor | None) -> tuple[int, int] | None:
    """Step and environment of the first NaN or infinity in ``values`` [T, N, ...], where ``valid`` [T, N], if any."""
    entries = ~values.isfinite().flatten(2).all(dim=2) if values.dim() > 2 else ~values.isfinite()
    if valid is not None:
        entries &= valid
    if not entries.any():
        return None
    t, n = entries.nonzero()[0].tolist()
    return t, n


def concatenate(parts: list[Obs]) -> Obs:
    """Observations [B_i, *O] one after the other, [sum B_i, *O]."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: torch.cat([part[key] for part in parts]) for key in first}  # type: ignore[index]
    return torch.cat(parts)  # type: ignore[arg-type]
