"""exp in float32 without a call: a third of the library's time, and loops around it stay vectorized."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppo_cli.kernels.compiled import compiled

_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
_LOG2_E, _HALF, _ONE = np.float32(1.4426950408889634), np.float32(0.5), np.float32(1.0)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C2, _C3, _C4, _C5, _C6 = (np.float32(1.0 / factorial) for factorial in (2, 6, 24, 120, 720))
_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)


@compiled
def exp(x: np.float32) -> Any:  # noqa: ANN401 (a float32)
    """e^x within two units in the last place, for x held between -87 and 88 (NaN stays NaN).

    x = k ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite 1980), e^r by its Taylor polynomial of degree 6.
    """
    if x != x:
        return x
    x = min(max(x, _LOWEST), _HIGHEST)
    k = np.floor(x * _LOG2_E + _HALF)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    power = _ONE + r + r * r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * _C6))))
    return power * np.int32((np.int32(k) + _BIAS) << _MANTISSA_BITS).view(np.float32)
