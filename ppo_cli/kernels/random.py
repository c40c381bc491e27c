"""Random numbers as a function of a seed and counters: nothing to store, nothing that depends on who draws first."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppo_cli.kernels.compiled import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)
_ELEVEN, _TWENTY_SEVEN, _THIRTY, _THIRTY_ONE = (np.uint64(bits) for bits in (11, 27, 30, 31))
_ONE = np.uint64(1)
_RESOLUTION = 1.0 / (1 << 53)


@compiled
def mix(word: np.uint64) -> np.uint64:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014): every bit of the word moves every bit of the result."""
    word = (word ^ (word >> _THIRTY)) * _FACTOR_1
    word = (word ^ (word >> _TWENTY_SEVEN)) * _FACTOR_2
    return word ^ (word >> _THIRTY_ONE)


@compiled
def uniform(seed: np.uint64, episode: np.uint64, number: int) -> Any:  # noqa: ANN401 (a float)
    """The ``number``-th number of an episode of ``seed``: float64, at least 0 and below 1."""
    stream = mix(mix(seed + _GOLDEN) + (episode + _ONE) * _GOLDEN)
    return np.float64(mix(stream + (np.uint64(number) + _ONE) * _GOLDEN) >> _ELEVEN) * _RESOLUTION
