"""The threads that kernels run on, and how many of them at the moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean
from typing import TypeVar

Result = TypeVar("Result")

USEFUL_FLOP = 1.5e6
"""Arithmetic for one thread between two meetings: less of it, some 20 microseconds, is not worth the meeting."""

PROBE_EVERY = 200
"""Calls between two looks at whether another number of threads is faster now."""

PROBES = 8
"""Calls with each number at a look. Their mean counts, not the fastest: a thread that slept while the environment
stepped may find its core taken and be milliseconds late, now and then."""

WORTH_MEETING = 1.1
"""Times the seconds of all threads that a single one must need: threads that gain little by each other lose much when
another program has a core."""

CLEARLY_SLOWER = 1.2
"""Times the seconds of all threads: a single one that takes so much longer need not be tried again."""


def useful_threads(num_parameters: int, minibatch: int, available: int) -> int:
    """How many threads are worth having: a sample costs about 6 operations for each parameter, there and back."""
    return max(1, min(available, int(6 * num_parameters * minibatch / USEFUL_FLOP)))


class Workers:
    """Up to ``num_threads`` threads, the caller's included, that start together.

    Threads that meet often lose more than they gain when other programs take their cores. What a kernel computes does
    not depend on how many threads it has, so their number follows the clock: one, unless all are clearly faster.
    """

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self.active = num_threads
        self.pool = ThreadPoolExecutor(max(num_threads - 1, 1), thread_name_prefix="kernel")
        self.calls = 0  # since the last look began
        self.is_warm = False  # the first call loads what the others find in memory
        self.seconds: dict[int, list[float]] = {1: [], num_threads: []}  # of calls since the last decision

    def run(self, work: Callable[[int, int], Result], *, meets: bool = False) -> Result:
        """``work(thread, num_threads)`` on each thread; what the first, the caller's own, returned.

        Where the work of all ends with them meeting, nobody waits for the others' way back through the interpreter.
        """
        num_threads = self.active
        others = [self.pool.submit(work, thread, num_threads) for thread in range(1, num_threads)]
        result = work(0, num_threads)
        if not meets:
            for other in others:
                other.result()
        return result

    def run_timed(self, work: Callable[[int, int], Result]) -> Result:
        """The same, for work of the same size that ends with a meeting: decides now and then on how many threads."""
        if self.num_threads == 1:
            return self.run(work, meets=True)
        if self.calls == 0:
            self.active = self.num_threads
        if self.calls == PROBES:
            self.active = 1
        started = time.perf_counter()
        result = self.run(work, meets=True)
        seconds = time.perf_counter() - started
        if not self.is_warm:
            self.is_warm = True
            return result
        self.seconds[self.active].append(seconds)
        is_trial = PROBES <= self.calls < 2 * PROBES
        self.calls += 1
        if is_trial and (self.calls == 2 * PROBES or seconds > CLEARLY_SLOWER * fmean(self.seconds[self.num_threads])):
            is_worth_it = fmean(self.seconds[1]) > WORTH_MEETING * fmean(self.seconds[self.num_threads])
            self.active = self.num_threads if is_worth_it else 1
            self.seconds = {1: [], self.num_threads: []}
            self.calls = 2 * PROBES
        self.calls %= PROBE_EVERY
        return result
