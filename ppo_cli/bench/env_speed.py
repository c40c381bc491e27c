"""Speed of the Minesweeper environment alone."""

from __future__ import annotations

import statistics
import time

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from ppo_cli.envs.base import env_seeds
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv

LEVELS = {"beginner": (9, 9, 10), "intermediate": (16, 16, 40), "expert": (16, 30, 99)}


def print_env_speed(rounds: int, num_envs: int = 1024) -> None:
    """Million steps/s on one core, observations and action masks included, for both ways to click."""
    torch.set_num_threads(1)
    print(f"\nenv: Minesweeper alone, {num_envs} boards, one core, observations and masks included")
    print(f"{'million steps/s':<18} {'random clicks':>14} {'safe clicks':>14}")
    for level, (height, width, mines) in LEVELS.items():
        medians = []
        for safe in (False, True):
            env = MinesweeperVecEnv(num_envs, height=height, width=width, mines=mines)
            medians.append(statistics.median(stepping_rate(env, safe=safe) for _ in range(rounds)))
        print(f"{level:<18} {medians[0] / 1e6:>14.2f} {medians[1] / 1e6:>14.2f}", flush=True)


def stepping_rate(env: MinesweeperVecEnv, *, safe: bool, seconds: float = 1.0) -> float:
    """Steps/s of ``env.step`` itself; choosing the actions is not timed. ``safe`` never clicks a mine."""
    env.reset(env_seeds(1, env.num_envs))
    obs = env.obs
    assert isinstance(obs, dict)
    legal = obs["legal"].numpy()
    action = np.zeros(env.num_envs, np.int64)
    steps, spent, warm_up = 0, 0.0, 10
    while spent < seconds:
        choose(legal, env.mines().numpy().reshape(legal.shape) if safe else legal, safe, action)
        started = time.perf_counter()
        env.step(torch.from_numpy(action))
        if warm_up:
            warm_up -= 1
            continue
        spent += time.perf_counter() - started
        steps += env.num_envs
    return steps / spent


@numba.njit(cache=True)
def choose(legal: NDArray[np.bool_], mines: NDArray[np.bool_], safe: bool, action: NDArray[np.int64]) -> None:
    """A uniformly random legal cell for each board [N, A], without a mine if ``safe``.

    By trial: it reads few bytes, so that the timed step finds its boards in the cache.
    """
    for n in range(len(action)):
        while True:
            cell = np.random.randint(legal.shape[1])  # noqa: NPY002 - compiled code has no generator objects
            if legal[n, cell] and not (safe and mines[n, cell]):
                action[n] = cell
                break
