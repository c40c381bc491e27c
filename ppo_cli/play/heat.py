"""The colours of a probability, from the grey of a hidden cell to a glowing orange."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

STOPS = np.array([0.0, 0.25, 0.6, 1.0])
COLOURS = np.array([(192, 192, 192), (250, 226, 130), (255, 178, 40), (255, 122, 0)], np.float64)
LEVELS = 24
"""Shades; few enough that a GIF's 256 colours hold all of them."""


def heat(probs: ArrayLike) -> NDArray[np.float64]:
    """Colours [..., 3], 0 to 255, of probabilities [...].

    The square root makes small ones visible: an untrained policy spreads its choice over every cell.
    """
    level = np.rint(np.sqrt(np.clip(probs, 0, 1)) * LEVELS) / LEVELS
    return np.stack([np.interp(level, STOPS, COLOURS[:, channel]) for channel in range(3)], axis=-1)
