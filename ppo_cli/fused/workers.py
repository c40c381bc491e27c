"""The threads that kernels run on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

USEFUL_FLOP = 1.5e6
"""Arithmetic for one thread between two meetings: less of it, some 20 microseconds, is not worth the meeting."""


def useful_threads(num_parameters: int, minibatch: int, available: int) -> int:
    """How many threads are worth having: a sample costs about 6 operations for each parameter, there and back."""
    return max(1, min(available, int(6 * num_parameters * minibatch / USEFUL_FLOP)))


class Workers:
    """``num_threads`` threads, the caller's included, that start together."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self.pool = ThreadPoolExecutor(max(num_threads - 1, 1), thread_name_prefix="kernel")

    def run(self, work: Callable[[int], Result]) -> Result:
        """``work(thread)`` on each thread, numbered from 0; what the first, the caller's own, returned."""
        others = [self.pool.submit(work, thread) for thread in range(1, self.num_threads)]
        result = work(0)
        for other in others:
            other.result()
        return result
