"""A batch of environments in worker processes that may be killed, hang or raise.

Each worker steps its share of the batch: one message there, one back, whatever the number of environments. One that
dies or does not answer in time is replaced; an environment that raises ends the run, since it would raise again.
Workers come from multiprocessing's fork server: the run itself has threads by then, which no fork survives.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space
from numpy.typing import NDArray

from ppo_cli.envs.base import EnvError, Fault
from ppo_cli.envs.gymnasium_spaces import emitted_space
from ppo_cli.envs.worker import rows_of, serve

Infos = dict[str, Any]

NURSERY = "ppo_cli.envs.worker_nursery"
START_TIMEOUT = 60.0  # seconds that a process gets at least to import and make its environments
CLOSE_TIMEOUT = 5.0  # seconds that all of them get to finish their last call
TICK = 1.0
"""Seconds counted at most for one wait: a run that was stopped for an hour (Ctrl-Z) has not waited an hour."""


class Worker:
    """One process, and the environments in it.

    Args:
        numbers: Of its environments, in the batch.
        start: Makes the process, which serves the other end of a pipe and notes where it is at work.
    """

    def __init__(self, numbers: range, start: Callable[[range, Connection, Any], Any], timeout: float) -> None:
        self.numbers = numbers
        self.rows = slice(numbers.start, numbers.stop)
        self._start = start
        self._timeout = timeout
        self._at_work = multiprocessing.RawValue("i", numbers.start)
        self.start()

    def start(self) -> None:
        """A new process.

        Raises:
            OSError, EOFError: it could not be started, or was killed before it knew what it is for.
        """
        self.pipe, theirs = multiprocessing.Pipe()
        never_block(self.pipe, self._timeout)
        with theirs:
            self.process = self._start(self.numbers, theirs, self._at_work)

    def restart(self) -> None:
        """Another process in the place of the one that has failed. One that does not start has failed like it."""
        self.end()
        with suppress(OSError, EOFError):
            self.start()

    def send(self, *request: Any) -> None:  # noqa: ANN401
        """Ask for something. A process that is gone is noticed when its answer is awaited."""
        with suppress(OSError):
            self.pipe.send(request)

    def blame(self, cause: str = "") -> str:
        """Which environment failed, and how: ``cause``, or what ended the process."""
        if not cause:
            self.process.join(TICK)
            code = self.process.exitcode
            cause = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended (exit code {code})"
            cause = f"its worker process {cause}"
        return f"environment {self._at_work.value}: {cause}"

    def end(self, patience: float = 0.0) -> None:
        """Let the process end, or kill it after so many seconds."""
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.pipe.close()


class SupervisedVectorEnv(VectorEnv[Any, Any, Any]):
    """As Gymnasium's ``AsyncVectorEnv``, for observations in a Box; what fails is replaced and listed in ``faults``.

    Where a worker failed, ``step`` pays nothing, ends nothing and returns the first observations of fresh episodes.

    Args:
        make_env: Makes one environment.
        num_envs: Environments of the batch.
        autoreset: When a finished episode restarts.
        num_workers: Processes, at most one for each environment.
        timeout: Seconds that a worker may take for a step of its environments.
        max_restarts: Workers that may be replaced before the run ends.

    Raises:
        ValueError: the observations are not one array.
    """

    def __init__(
        self,
        make_env: Callable[[], gym.Env[Any, Any]],
        num_envs: int,
        autoreset: AutoresetMode,
        num_workers: int,
        timeout: float,
        max_restarts: int,
    ) -> None:
        self.workers: list[Worker] = []
        self.faults: list[Fault] = []
        self.num_envs, self.timeout, self.max_restarts = num_envs, timeout, max_restarts
        self.restarts = 0
        probe = make_env()
        self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
        self.action_space = batch_space(probe.action_space, num_envs)
        self.metadata = {**probe.metadata, "autoreset_mode": autoreset}
        probe.close()
        space = self.single_observation_space
        emitted_space(space, str(probe.spec.id if probe.spec else probe))
        assert space.shape is not None and space.dtype is not None
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([NURSERY])
        memory = context.RawArray("b", num_envs * int(np.prod(space.shape)) * space.dtype.itemsize)
        self._observations = rows_of(memory, space)
        self._seeds = [0] * num_envs
        start = partial(start_process, context, CloudpickleWrapper(make_env), autoreset, memory, tuple(sys.path))
        num_workers = min(num_workers, num_envs)
        bounds = [num_envs * number // num_workers for number in range(num_workers + 1)]
        Finalize(self, end_all, args=[self.workers], exitpriority=10)  # before multiprocessing waits for the processes
        for first, end in itertools.pairwise(bounds):
            self.workers.append(Worker(range(first, end), start, timeout))

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], Infos]:  # noqa: ANN401
        """Start fresh episodes, environment n from ``seed[n]``; only those in ``options["reset_mask"]`` [N], if given.

        Raises:
            EnvError: an environment raised, or workers failed once too often.
        """
        mask = None if options is None else options["reset_mask"]
        asked = [worker for worker in self.workers if mask is None or mask[worker.rows].any()]
        for worker in asked:
            self._seeds[worker.rows] = seed[worker.rows]
            worker.send("reset", seed[worker.rows], None if mask is None else mask[worker.rows])
        infos, failed = self._answers(asked, max(self.timeout, START_TIMEOUT))
        return self._observations, self._merged(infos | self._replaced(failed))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        """Take one action in each environment.

        Raises:
            EnvError: an environment raised, or workers failed once too often.
        """
        for worker in self.workers:
            worker.send("step", actions[worker.rows])
        answers, failed = self._answers(self.workers, self.timeout)
        reward = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[Worker, Infos] = {}
        for worker, outcome in answers.items():
            reward[worker.rows], terminated[worker.rows], truncated[worker.rows], infos[worker] = outcome
        return self._observations, reward, terminated, truncated, self._merged(infos | self._replaced(failed))

    def close_extras(self) -> None:
        """End every process."""
        for worker in self.workers:
            worker.send("close")
        end_all(self.workers, CLOSE_TIMEOUT)

    def _answers(self, asked: Sequence[Worker], timeout: float) -> tuple[dict[Worker, Any], dict[Worker, str]]:
        """What each worker says, or else how it failed.

        Raises:
            EnvError: an environment raised.
        """
        answers: dict[Worker, Any] = {}
        failed: dict[Worker, str] = {}
        pending = {worker.pipe.fileno(): worker for worker in asked}
        poller, waited = select.poll(), 0.0
        for descriptor in pending:
            poller.register(descriptor, select.POLLIN)
        while pending:
            tick = min(TICK, timeout - waited)
            ready = poller.poll(1000 * tick)
            waited += 0.0 if ready else tick
            if waited >= timeout:
                return answers, failed | {
                    worker: worker.blame(f"no answer within {timeout:g} s") for worker in pending.values()
                }
            for descriptor, _ in ready:
                poller.unregister(descriptor)
                worker = pending.pop(descriptor)
                try:
                    kind, *said = worker.pipe.recv()
                except (EOFError, OSError):
                    failed[worker] = worker.blame()
                    continue
                if kind == "raised":
                    raise EnvError(worker.blame(f"raised {said[0]}"), said[1])
                answers[worker] = said[0]
        return answers, failed

    def _replaced(self, failed: Mapping[Worker, str]) -> dict[Worker, Infos]:
        """Other processes in the place of those that ``failed``, with fresh episodes; the infos of their resets.

        Raises:
            EnvError: no restart is left.
        """
        infos: dict[Worker, Infos] = {}
        while failed:
            for worker, cause in failed.items():
                if self.restarts == self.max_restarts:
                    raise EnvError(f"{cause}; env.max_restarts={self.max_restarts} allows no further restart")
                self.restarts += 1
                self.faults.append(Fault(list(worker.numbers), "restart", cause))
                worker.restart()
                worker.send("reset", fresh_seeds(self._seeds[worker.rows], self.restarts), None)
            answers, failed = self._answers(list(failed), max(self.timeout, START_TIMEOUT))
            infos |= answers
        return infos

    def _merged(self, infos: Mapping[Worker, Infos]) -> Infos:
        """The workers' infos as one."""
        return merged([infos.get(worker, {}) for worker in self.workers], [len(w.numbers) for w in self.workers])


def start_process(
    context: Any,  # noqa: ANN401
    make_env: CloudpickleWrapper,
    autoreset: AutoresetMode,
    memory: Any,  # noqa: ANN401
    path: Sequence[str],
    numbers: range,
    pipe: Connection,
    at_work: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """A process that serves these environments at the other end of ``pipe``, and finds modules along ``path``."""
    name = f"environments {numbers.start} to {numbers.stop - 1}"
    process = context.Process(
        target=serve, args=(pipe, make_env, numbers, autoreset, memory, at_work), name=name, daemon=True
    )
    here, sys.path[:] = sys.path[:], path  # where the batch was made: the user's module may be in the current folder
    try:
        process.start()
    finally:
        sys.path[:] = here
    return process


def end_all(workers: list[Worker], patience: float = 0.0) -> None:
    """End every worker, those that are stuck after ``patience`` seconds in all; none is left in the list."""
    deadline = time.monotonic() + patience
    while workers:
        workers.pop().end(max(0.0, deadline - time.monotonic()))


def never_block(pipe: Connection, seconds: float) -> None:
    """Make reading and writing fail after so long: a process can stop in the middle of a message."""
    limit = struct.pack("ll", int(seconds), int(1e6 * (seconds % 1)))
    with socket.socket(fileno=os.dup(pipe.fileno())) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def fresh_seeds(seeds: Sequence[int], count: int) -> list[int]:
    """Seeds that follow from ``seeds``, other ones for each ``count``."""
    return [int(np.random.SeedSequence([seed, count]).generate_state(1)[0]) for seed in seeds]


def merged(parts: Sequence[Infos], sizes: Sequence[int]) -> Infos:
    """Infos of vector environments of these sizes as that of one: ``key`` and, for who has it, ``_key``."""
    result: Infos = {}
    for key in dict.fromkeys(key for part in parts for key in part if f"_{key}" in part):
        given = [part.get(key) for part in parts]
        masks = [part.get(f"_{key}", np.zeros(size, bool)) for part, size in zip(parts, sizes, strict=True)]
        known = next(value for value in given if value is not None)
        if isinstance(known, dict):
            result[key] = merged([value or {} for value in given], sizes)
        else:
            empty = partial(np.full, fill_value=None if known.dtype == object else 0, dtype=known.dtype)
            values = [empty((n, *known.shape[1:])) if v is None else v for v, n in zip(given, sizes, strict=True)]
            result[key] = np.concatenate(values)
        result[f"_{key}"] = np.concatenate(masks)
    return result
