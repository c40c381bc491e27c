from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled
from ppo_cli.kernels.threads import Barrier, meet, new_barrier, share


@given(total=st.integers(0, 1000), num_threads=st.integers(1, 20))
def test_shares_follow_each_other_cover_everything_and_differ_by_one_at_most(total: int, num_threads: int) -> None:
    parts = [share(total, thread, num_threads) for thread in range(num_threads)]
    assert parts[0][0] == 0 and parts[-1][1] == total
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(parts))
    sizes = [end - first for first, end in parts]
    assert max(sizes) - min(sizes) <= 1


@compiled
def count_in_step(
    thread: int, num_threads: int, rounds: int, counters: NDArray[np.int64], seen: NDArray[np.int64], barrier: Barrier
) -> None:
    """Count to ``rounds`` together; ``seen[thread]`` counts the rounds in which the others had the same count."""
    for round_number in range(1, rounds + 1):
        counters[thread] = round_number
        meet(barrier, num_threads)
        alike = 0
        for other in range(num_threads):
            alike += counters[other] == round_number
        seen[thread] += alike == num_threads
        meet(barrier, num_threads)


@pytest.mark.parametrize(("num_threads", "rounds"), [(1, 100_000), (2, 5_000), (3, 2_000)])
def test_threads_stay_in_step_even_where_they_are_more_than_the_cores(num_threads: int, rounds: int) -> None:
    barrier = new_barrier()
    counters, seen = np.zeros(num_threads, np.int64), np.zeros(num_threads, np.int64)
    count_in_step(0, 1, 1, counters, seen, new_barrier())  # compile before the clock starts
    seen[:] = 0
    started = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        calls = [
            pool.submit(count_in_step, thread, num_threads, rounds, counters, seen, barrier)
            for thread in range(num_threads)
        ]
        for call in calls:
            call.result(timeout=60)
    assert seen.tolist() == [rounds] * num_threads
    assert time.perf_counter() - started < 30.0


def test_a_barrier_can_be_used_by_another_number_of_threads_afterwards() -> None:
    barrier = new_barrier()
    for num_threads in (3, 1, 2):
        counters, seen = np.zeros(num_threads, np.int64), np.zeros(num_threads, np.int64)
        with ThreadPoolExecutor(num_threads) as pool:
            for call in [
                pool.submit(count_in_step, thread, num_threads, 50, counters, seen, barrier)
                for thread in range(num_threads)
            ]:
                call.result(timeout=60)
        assert seen.tolist() == [50] * num_threads
