"""How kernels are compiled: on the first call, without the interpreter's lock, and kept on disk for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

FAST_MATH = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be reordered and products fused, so that loops use the vector units. NaN and infinity keep their meaning."""


def compiled(function: Function) -> Function:
    """Machine code with the arithmetic as it is written."""
    return _compiled(function, {})


def vectorized(function: Function) -> Function:
    """Machine code whose sums may be reordered."""
    return _compiled(function, FAST_MATH)


def _compiled(function: Function, fastmath: Any) -> Function:  # noqa: ANN401 (a set, or an empty one)
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath or False}
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package's folder nor the user's can be written to: anew in each process
        return cast(Function, numba.njit(**options)(function))
