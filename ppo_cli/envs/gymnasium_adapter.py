"""Any Gymnasium environment as a batch of environments that speaks tensors.

Stepping is Gymnasium's own: the environment's vector entry point where it has one, otherwise ``SyncVectorEnv``, here or
in worker processes (`ppo_cli.envs.supervised`). This module only translates: observations to float32 (images stay
uint8), actions from the policy's space to the environment's, and the two autoreset modes
(https://farama.org/Vector-Autoreset-Mode) to one ``Step``. Statistics and normalization are the trainer's, not
Gymnasium wrappers', so that a checkpoint holds them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.envs.base import ArrayStep, Autoreset, Fault, NoStateError
from ppo_cli.envs.gymnasium_frames import drawn
from ppo_cli.envs.gymnasium_making import Workers, autoreset_mode, make_single, make_vector_env, require_shape
from ppo_cli.envs.gymnasium_spaces import action_translation, emitted_space
from ppo_cli.envs.gymnasium_specs import find_spec
from ppo_cli.envs.gymnasium_wrappers import wrapper_named
from ppo_cli.envs.nonfinite import describe, nonfinite_rows, replaced, rows_with_nonfinite, voided
from ppo_cli.envs.object_state import capture, restore
from ppo_cli.envs.supervised import SupervisedVectorEnv, fresh_seeds
from ppo_cli.envs.trial_copy import COPIED_ENVS, try_copies
from ppo_cli.settings import Range, check_arguments
from ppo_cli.types import Obs, Step

SUCCESS_KEYS = ("is_success", "success")
MOST_STARTS = 10
"""Of an episode whose first observation holds NaN or infinity."""


class GymnasiumVecEnv:
    """N copies of a registered Gymnasium environment.

    Observations: vectors become float32 ``[N, *O]``; uint8 images stay uint8 ``[N, H, W, C]``, ``[N, C, H, W]`` or
    ``[N, H, W]``, as the environment lays them out. Discrete, MultiBinary, MultiDiscrete, Dict and Tuple observations
    are flattened to one vector (a Discrete one is one-hot). Where the environment reports ``info["action_mask"]`` at
    reset, the observation is ``{"obs": [N, *O], "legal": [N, A] bool}``.

    Actions: Discrete ones count from 0 whatever the environment's ``start``. MultiDiscrete, MultiBinary and a Box of
    whole numbers are one row of choices, each counted from 0. In a Box of real numbers, a dimension with two bounds is
    acted on as -1 to 1, stretched to ``low`` to ``high`` and clipped; any other passes through, clipped to its bound.

    A native vector environment takes a single seed for all N, which is derived from all that ``reset`` is given; sync
    and async ones take one seed per environment.

    Args:
        num_envs: Environments stepped as one batch.
        id: Registered id, or ``module:id``, which imports the module first.
        kwargs: Keywords for the environment's constructor; ``max_episode_steps`` sets another time limit.
        vectorization: ``native`` is the environment's own vector entry point, ``sync`` steps one after the other,
            ``async`` shares them among worker processes (for environments slower than about 0.05 ms a step); ``auto``
            is native where it exists and suits the other settings, otherwise sync.
        autoreset: Whether a finished episode restarts in the same step or in the next; ``auto`` is what a native
            environment does, and the same step otherwise.
        wrappers: Wrappers for each environment, innermost first: a name from ``gymnasium.wrappers``, ``{name:
            {keyword: value}}``, or a callable. One that learns moments is refused: ``normalize_obs`` and
            ``normalize_reward`` of a run do the same, and are saved.
        num_workers: Processes of ``async``, at most one for each environment; 0 is one for each core.
        timeout: Seconds that a worker may take for a step of its environments before it is replaced.
        max_restarts: Workers that may die or hang, and be replaced, before the run ends.
        skip_nonfinite: Whether an environment that gives NaN or infinity loses its episode, rather than its run.
        trusted_modules: Top-level packages that ``module:id`` may import.

    Raises:
        ValueError: if the environment is unknown, lacks a package, or has a space that no policy here can handle.
    """

    num_envs: int
    single_observation_space: spaces.Space[Any]
    single_action_space: spaces.Space[Any]
    autoreset: Autoreset

    def __init__(
        self,
        num_envs: Annotated[int, Range(at_least=1)],
        id: str,
        kwargs: Mapping[str, Any] | None = None,
        vectorization: Literal["auto", "native", "sync", "async"] = "auto",
        autoreset: Literal["auto", "same_step", "next_step"] = "auto",
        wrappers: Sequence[Any] = (),
        num_workers: Annotated[int, Range(at_least=0)] = 0,
        timeout: Annotated[float, Range(above=0)] = 60.0,
        max_restarts: Annotated[int, Range(at_least=0)] = 10,
        skip_nonfinite: bool = False,
        trusted_modules: Sequence[str] = (),
    ) -> None:
        check_arguments(GymnasiumVecEnv.__init__, locals())
        self.num_envs = num_envs
        self._id = id
        self._make_copy = partial(
            GymnasiumVecEnv,
            min(num_envs, COPIED_ENVS),
            id,
            copy.deepcopy(kwargs),
            vectorization,
            autoreset,
            wrappers,
            trusted_modules=trusted_modules,
        )
        self._against_copying: str | None = None  # empty: tried, and they play alike
        spec, made_with = find_spec(id, trusted_modules), dict(kwargs or {})
        around = [wrapper_named(wrapper) for wrapper in wrappers]
        self._make_plain = partial(make_single, spec, made_with, around)
        self._env = make_vector_env(
            spec,
            num_envs,
            made_with,
            vectorization,
            autoreset,
            around,
            Workers(num_workers, timeout, max_restarts),
        )
        is_native = not isinstance(self._env, SyncVectorEnv | SupervisedVectorEnv)
        self._skips = skip_nonfinite and not is_native  # a native batch cannot reset one of its environments
        self._skipped: list[Fault] = []
        self._seeds: list[int] = []
        self.may_fail = self._skips or isinstance(self._env, SupervisedVectorEnv)
        try:
            self.autoreset = cast(Autoreset, autoreset_mode(self._env))
            self._obs_space = emitted_space(self._env.single_observation_space, id)
            self.single_action_space, self._to_env_action = action_translation(self._env.single_action_space, id)
            self._num_actions = self._count_masked_actions(id)
        except Exception:
            self.close()
            raise
        self.single_observation_space = (
            spaces.Dict(obs=self._obs_space, legal=spaces.MultiBinary(self._num_actions))
            if self._num_actions
            else self._obs_space
        )
        self._success: Tensor | None = None

    def reset(self, seeds: Sequence[int]) -> Obs:
        """Start N fresh episodes, environment n from ``seeds[n]``. Returns the first observations [N, *O]."""
        if len(seeds) != self.num_envs:
            raise ValueError(f"reset takes one seed per environment: {self.num_envs}, got {len(seeds)}")
        self._seeds = [int(seed) for seed in seeds]
        obs, info = self._reset_env(self._seeds)
        return self._with_finite_starts(self._emitted(obs, info))

    def step(self, action: Tensor) -> Step:
        """Take one action in each environment; ``action`` [N] counting from 0, or [N, *A] in the policy's units."""
        answer, info, final_info = self._play(action.numpy(force=True))
        step = answer.tensors()
        if self._num_actions:
            step = self._with_legal(step, info, final_info)
        return self._without_nonfinite(step) if self._skips else step

    @property
    def gives_arrays(self) -> bool:
        """Not where an observation carries a mask, and not where what is not finite is left out."""
        return not (self._num_actions or self._skips)

    def step_arrays(self, action: NDArray[Any]) -> ArrayStep:
        """As ``step``."""
        return self._play(action)[0]

    def faults(self) -> list[Fault]:
        """What went wrong since the last call: workers that were replaced, and numbers that were none."""
        found, self._skipped = self._skipped, []
        if isinstance(self._env, SupervisedVectorEnv):
            found, self._env.faults = self._env.faults + found, []
        return found

    def episode_metrics(self) -> dict[str, Tensor]:
        """Figures of the episodes that the last step ended: whether each [N] succeeded, if the environment tells.

        It tells by ``is_success`` or ``success`` in the last info; once it has, an episode without it did not succeed.
        """
        return {} if self._success is None else {"charts/success_rate": self._success}

    @property
    def env_action_space(self) -> spaces.Space[Any]:
        """What the environment itself takes, of which ``single_action_space`` is the policy's view."""
        return self._env.single_action_space

    @property
    def flattened_space(self) -> spaces.Space[Any] | None:
        """What one environment gives, its wrappers included; None where that is an array, which is not flattened."""
        env = self._make_plain()
        env.close()
        return None if isinstance(env.observation_space, spaces.Box) else env.observation_space

    @property
    def render_modes(self) -> Sequence[str]:
        """The ways in which the environment says that it can draw itself."""
        return list(self._env.metadata.get("render_modes") or ())

    @property
    def render_fps(self) -> float:
        """Steps a second that look natural, as the environment says."""
        return float(self._env.metadata.get("render_fps") or 30)

    def frame(self) -> NDArray[np.uint8]:
        """Environment 0 as it draws itself; it must have been made with ``render_mode="rgb_array"``.

        With ``autoreset="same_step"`` an episode's last picture is already that of the next one.

        Raises:
            ValueError: a package that it draws with is missing, or it draws no pictures.
        """
        envs = getattr(self._env, "envs", None)
        if not envs:
            raise ValueError(f"{self._id} can only be drawn with vectorization=sync")
        return drawn(self._id, envs[0].render)

    def state_dict(self) -> dict[str, Any]:
        """All that the future depends on, as plain data; the first call tries on copies whether it really is all.

        Raises:
            NoStateError: the environment holds something that cannot be copied, or a copy played differently.
        """
        if isinstance(self._env, SupervisedVectorEnv):
            raise NoStateError("its environments are in processes of their own (env.vectorization=async)")
        success = None if self._success is None else self._success.clone()
        try:
            state = capture(self._env) | {"success": success, "seeds": list(self._seeds)}
            self._try_copies()
        except NoStateError as error:
            raise NoStateError(f"{self._id}: {error}") from error
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            NoStateError: ``state`` is of an environment that was built differently.
        """
        restore(self._env, state)
        self._success = state["success"]
        self._seeds = list(state.get("seeds", self._seeds))  # older checkpoints have none

    def close(self) -> None:
        """Release windows, files and processes. Safe to call twice, and after a worker process died."""
        if not self._env.closed:
            self._env.close()
            self._env.closed = True  # some native environments override close() and forget

    def _try_copies(self) -> None:
        """Once: see whether copies play on like their originals.

        Raises:
            NoStateError: they do not.
        """
        if self._against_copying is None:
            self._against_copying = try_copies(
                self._make_copy, lambda env: capture(env._env), lambda env, state: restore(env._env, state)
            )
        if self._against_copying:
            raise NoStateError(self._against_copying)

    def _play(self, action: NDArray[Any]) -> tuple[ArrayStep, dict[str, Any], dict[str, Any]]:
        """One step: what the trainer sees of it, the infos [N], and those of the episodes that ended."""
        try:
            env_obs, reward, terminated, truncated, info = self._env.step(self._to_env_action(action))
        except ValueError:
            if isinstance(self._env, SyncVectorEnv):  # the observations may be what did not fit into a batch
                for env, obs in zip(self._env.envs, self._env._env_obs, strict=True):
                    require_shape(env, obs)
            raise
        terminated, truncated = np.asarray(terminated, dtype=bool), np.asarray(truncated, dtype=bool)
        obs = final_obs = self._array(env_obs)
        final_info = info
        may_tell = bool(info) or self._success is not None or self.autoreset == "same_step"
        if may_tell and (terminated.any() or truncated.any()):
            if self.autoreset == "same_step":
                final_info = info.get("final_info", {})
                final_obs = self._final_obs(obs, terminated | truncated, info)
            self._note_success(final_info)
        return ArrayStep(obs, np.asarray(reward, np.float32), terminated, truncated, final_obs), info, final_info

    def _with_legal(self, step: Step, info: dict[str, Any], final_info: dict[str, Any]) -> Step:
        """The step with observations that carry their action masks."""
        legal = self._legal(info)
        obs = final_obs = cast(Obs, {"obs": step.obs, "legal": legal})
        if step.final_obs is not step.obs:
            done = step.terminated | step.truncated
            final_legal = torch.where(done.unsqueeze(1), self._legal(final_info), legal)
            final_obs = cast(Obs, {"obs": step.final_obs, "legal": final_legal})
        return step._replace(obs=obs, final_obs=final_obs)

    def _reset_env(self, seeds: list[int]) -> tuple[Any, dict[str, Any]]:
        if isinstance(self._env, SyncVectorEnv | SupervisedVectorEnv):
            return self._env.reset(seed=cast(Any, seeds))
        return self._env.reset(seed=int(np.random.SeedSequence(seeds).generate_state(1)[0]))

    def _without_nonfinite(self, step: Step) -> Step:
        """The step, with environments reset from fresh seeds that gave NaN or infinity."""
        rows = nonfinite_rows(step)
        if not rows.any():
            return step
        for row in rows.nonzero().flatten().tolist():
            self._skipped.append(Fault([row], "nonfinite", f"environment {row} {describe(step, row)}"))
        return voided(step, rows, self._with_finite_starts(self._restarted(rows)))

    def _with_finite_starts(self, obs: Obs) -> Obs:
        """First observations [N, *O], with environments reset again whose own holds NaN or infinity.

        One that begins so every time keeps it, and whoever looks at it will say so.
        """
        for _ in range(MOST_STARTS if self._skips else 0):
            if not (rows := rows_with_nonfinite(obs)).any():
                break
            for row in rows.nonzero().flatten().tolist():
                self._skipped.append(Fault([row], "nonfinite", f"environment {row} began with NaN or infinity"))
            obs = replaced(rows, self._restarted(rows), obs)
        return obs

    def _restarted(self, rows: Tensor) -> Obs:
        """Observations after fresh episodes began in ``rows`` [N], from fresh seeds."""
        self._seeds = fresh_seeds(self._seeds, 0)  # restarts of workers count from 1
        obs, info = self._env.reset(seed=cast(Any, self._seeds), options={"reset_mask": rows.numpy()})
        return self._emitted(obs, info)

    def _count_masked_actions(self, id: str) -> int:
        """A if the environment reports action masks [N, A], otherwise 0."""
        _, info = self._reset_env(list(range(self.num_envs)))
        if "action_mask" not in info:
            return 0
        if not isinstance(self.single_action_space, spaces.Discrete):
            raise ValueError(f"{id} reports an action mask, which needs Discrete actions, got {self._env.action_space}")
        num_actions = int(self.single_action_space.n)
        if (length := len(info["action_mask"][_reported(info, "action_mask").argmax()])) != num_actions:
            raise ValueError(f"{id} has {num_actions} actions but reports action masks of length {length}")
        return num_actions

    def _emitted(self, obs: Any, info: Mapping[str, Any]) -> Obs:  # noqa: ANN401 - what Gymnasium returns
        tensor = torch.from_numpy(self._array(obs))
        return {"obs": tensor, "legal": self._legal(info)} if self._num_actions else tensor

    def _array(self, obs: Any) -> NDArray[Any]:  # noqa: ANN401
        return np.ascontiguousarray(obs, dtype=self._obs_space.dtype)

    def _final_obs(self, obs: NDArray[Any], done: NDArray[np.bool_], info: Mapping[str, Any]) -> NDArray[Any]:
        """True successors [N, *O]: ``obs``, with the rows of finished episodes from before their reset."""
        if info.get("final_obs") is None:
            raise ValueError(f"{self._env} resets in the same step but does not report info['final_obs']")
        final = obs.copy()
        for row in np.flatnonzero(done):
            final[row] = info["final_obs"][row]
        return final

    def _note_success(self, final_info: Mapping[str, Any]) -> None:
        key = next((key for key in SUCCESS_KEYS if key in final_info), None)
        if key is not None:
            self._success = torch.from_numpy(np.array(final_info[key], dtype=np.float32)).nan_to_num()
        elif self._success is not None:
            self._success = torch.zeros(self.num_envs)

    def _legal(self, info: Mapping[str, Any]) -> Tensor:
        """Action mask [N, A]. Rows without one, and rows that allow nothing, allow everything."""
        legal = np.ones((self.num_envs, self._num_actions), dtype=bool)
        if "action_mask" in info:
            reported = _reported(info, "action_mask")
            legal[reported] = np.array(info["action_mask"][reported].tolist(), dtype=bool)
            legal[~legal.any(axis=1)] = True
        return torch.from_numpy(legal)


def _reported(info: Mapping[str, Any], key: str) -> NDArray[np.bool_]:
    """[N] bool, True for the environments whose info has the key; a native environment may report it for all."""
    return np.asarray(info.get(f"_{key}", np.ones(len(info[key]), dtype=bool)))
