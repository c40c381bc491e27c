"""What runs in a worker process: some environments of a batch, stepped one after the other.

Imports little, torch least of all: there may be many of these processes. One that forks them imports this module first.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

PR_SET_PDEATHSIG = 1
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Signals to a process group reach the workers too: the run that they work for decides when it is over."""

GYMNASIUM = Path(gym.__file__).parent
OURS = [str(Path(__file__).with_name(name)) for name in ("worker.py", "gymnasium_making.py", "gymnasium_wrappers.py")]
NOISE = (*OURS, *(str(GYMNASIUM / part) for part in ("vector", "wrappers", "core.py")))
"""Files whose lines in a traceback say nothing about the environment."""


class Watched(gym.Wrapper[Any, Any, Any, Any]):
    """Notes which environment is at work, where the process that waits for it can read it."""

    def __init__(self, env: gym.Env[Any, Any], number: int, at_work: Any) -> None:  # noqa: ANN401 - a ctypes integer
        super().__init__(env)
        self.number = number
        self.at_work = at_work

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Note the number, and reset."""
        self.at_work.value = self.number
        return self.env.reset(**settings)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Note the number, and step."""
        self.at_work.value = self.number
        return self.env.step(action)


def serve(
    pipe: Connection,
    make_env: Callable[[], gym.Env[Any, Any]],
    numbers: range,
    autoreset: AutoresetMode,
    observations: Any,  # noqa: ANN401 - shared memory
    at_work: Any,  # noqa: ANN401 - a shared integer
) -> None:
    """Make the environments of these numbers and do what ``pipe`` asks, until it asks to end or breaks off.

    ``observations`` are those of the whole batch; only this worker's rows are written. An answer is ``("done", ...)``
    or ``("raised", what, traceback)``, after which the process ends.
    """
    ignore_signals()
    die_with_parent()
    try:
        makers = [lambda n=n: Watched(make_env(), n, at_work) for n in numbers]
        env = SyncVectorEnv(makers, copy=False, autoreset_mode=autoreset)
        rows = rows_of(observations, env.single_observation_space)[numbers.start : numbers.stop]
        while (request := pipe.recv())[0] != "close":
            pipe.send(("done", answer(env, rows, *request)))
        env.close()
    except (EOFError, ConnectionError):  # nobody is there to answer to
        return
    except Exception as error:
        pipe.send(("raised", "".join(traceback.format_exception_only(error)).strip(), own_traceback(error)))


def rows_of(memory: Any, space: gym.Space[Any]) -> NDArray[Any]:  # noqa: ANN401 - shared memory
    """The memory as observations [N, *O]."""
    return np.frombuffer(memory, space.dtype).reshape(-1, *(space.shape or ()))


def answer(env: SyncVectorEnv, rows: NDArray[Any], word: str, *arguments: Any) -> Any:  # noqa: ANN401
    """Step or reset; the observations go to ``rows``, what else there is to tell is returned."""
    if word == "step":
        obs, *outcome = env.step(*arguments)
        rows[:] = obs
        return outcome
    seeds, mask = arguments
    obs, info = env.reset(seed=seeds, options=None if mask is None else {"reset_mask": mask})
    rows[:] = obs
    return info


def own_traceback(error: Exception) -> str:
    """The traceback as the environment's author knows it: without the lines that led into the environment."""
    shown = traceback.TracebackException.from_exception(error)
    own = [frame for frame in shown.stack if not frame.filename.startswith(NOISE)]
    if own:
        shown.stack = traceback.StackSummary.from_list(own)
    return "".join(shown.format())


def ignore_signals() -> None:
    """Leave them to the process that this one works for."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent() -> None:
    """Ask the kernel to kill this process, hung or not, as soon as the one that started it is gone (Linux).

    Elsewhere a worker ends when it next looks at its pipe.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
