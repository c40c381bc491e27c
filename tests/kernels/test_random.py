from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ppo_cli.kernels.random import mix, uniform


def draw(seed: int, episode: int, number: int) -> float:
    return float(uniform(np.uint64(seed), np.uint64(episode), number))


def series(**varying: range) -> np.ndarray:
    """Numbers along the one counter that is given as a range."""
    ((name, counts),) = varying.items()
    return np.array([draw(**{"seed": 7, "episode": 3, "number": 1, name: count}) for count in counts])


@pytest.mark.parametrize("name", ["seed", "episode", "number"])
def test_numbers_along_each_counter_are_uniform_between_0_and_1_and_uncorrelated(name: str) -> None:
    x = series(**{name: range(20_000)})
    assert x.min() >= 0.0 and x.max() < 1.0
    assert abs(x.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(x))
    assert abs(x.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / len(x))
    assert stats.kstest(x, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 5 / np.sqrt(len(x))


def test_no_two_of_neighbouring_seeds_episodes_and_numbers_are_equal() -> None:
    drawn = [draw(seed, episode, number) for seed in range(20) for episode in range(20) for number in range(20)]
    assert len(set(drawn)) == len(drawn)


def test_the_same_counters_give_the_same_number_in_every_process() -> None:
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1

    def reference(word: int) -> int:
        """SplitMix64's finalizer in Python's own integers."""
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        return word ^ (word >> 31)

    assert int(mix(np.uint64(golden))) == reference(golden) == 0xE220A8397B1DCDAF  # SplitMix64's first, from seed 0
    for seed, episode, number in [(0, 0, 0), (1, 2, 3), (2**32 - 1, 10**6, 3)]:
        stream = reference((reference((seed + golden) & mask) + (episode + 1) * golden) & mask)
        word = reference((stream + (number + 1) * golden) & mask)
        assert draw(seed, episode, number) == (word >> 11) / 2**53
