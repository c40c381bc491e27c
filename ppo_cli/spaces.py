"""Gymnasium's spaces as JSON and back: the kinds that a policy here can have, and nothing that could run code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")

MOST_ELEMENTS = 2**24
"""Of one observation or action: a file of a hundred bytes cannot ask for a terabyte."""


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """The space as plain dicts, lists and numbers; a bound that is not there is null.

    Raises:
        ValueError: another kind of space.
    """
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {name: space_to_json(inner) for name, inner in space.items()}}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds_to_json(space.low), "high": _bounds_to_json(space.high)}
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    raise ValueError(f"{space} cannot be written as JSON; a policy here has Box, Discrete, MultiBinary and Dict spaces")


def space_from_json(node: Any) -> spaces.Space[Any]:  # noqa: ANN401 - whatever stands in a stranger's file
    """The space that `space_to_json` wrote.

    Raises:
        ValueError: something else stands there, or a space of an absurd size.
    """
    match node:
        case {"type": "Dict", "spaces": dict() as inner}:
            return spaces.Dict({str(name): space_from_json(part) for name, part in inner.items()})
        case {"type": "Discrete", "n": int(n), "start": int(start)} if 0 < n <= MOST_ELEMENTS and abs(start) < 2**62:
            return spaces.Discrete(n, start=start)
        case {"type": "MultiBinary", "shape": list() as shape}:
            sizes = _checked(shape)
            return spaces.MultiBinary(sizes[0] if len(sizes) == 1 else sizes)
        case {"type": "Box", "dtype": str(dtype), "shape": list() as shape, "low": low, "high": high} if (
            dtype in DTYPES
        ):
            size = _checked(shape)
            lows, highs = _bounds_from_json(low, size, -math.inf), _bounds_from_json(high, size, math.inf)
            if dtype.startswith("float"):
                return spaces.Box(lows.astype(dtype), highs.astype(dtype), dtype=np.dtype(dtype).type)
            limits = np.iinfo(dtype)
            if (lows < limits.min).any() or (highs > limits.max).any():
                raise ValueError(f"bounds outside of {dtype}")
            return spaces.Box(lows.astype(dtype), highs.astype(dtype), dtype=np.dtype(dtype).type)
    raise ValueError(f"{str(node)[:80]} is no space of a policy")


def _checked(shape: list[Any]) -> list[int]:
    """``shape``, if it is one of positive whole numbers and not too many elements."""
    if not all(type(length) is int and 0 < length <= MOST_ELEMENTS for length in shape) or len(shape) > 8:
        raise ValueError(f"{str(shape)[:80]} is no shape")
    if math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"the shape {shape} has more than {MOST_ELEMENTS:,} elements")
    return shape


def _bounds_to_json(bounds: NDArray[Any]) -> float | list[float | None] | None:
    """One number where all elements share it, otherwise one for each in C order."""
    values = [value if math.isfinite(value) else None for value in bounds.ravel().tolist()]
    return values[0] if values and all(value == values[0] for value in values) else values


def _bounds_from_json(node: Any, shape: Sequence[int], unbounded: float) -> NDArray[np.float64]:  # noqa: ANN401
    """[*shape] float64."""
    values = node if isinstance(node, list) else [node]
    if not all(value is None or type(value) in (int, float) for value in values):
        raise ValueError("bounds are numbers or null")
    numbers = np.array([unbounded if value is None else value for value in values], dtype=np.float64)
    return numbers.reshape(shape) if isinstance(node, list) else np.full(shape, numbers[0])
