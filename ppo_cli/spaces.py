"""Gymnasium's spaces as JSON and back: the kinds that a policy here can have, and nothing that could run code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    if isinstance(space, spaces.MultiDiscrete):
        flat = {"type": "MultiDiscrete", "nvec": space.nvec.ravel().tolist(), "start": space.start.ravel().tolist()}
        return flat if space.nvec.ndim == 1 else flat | {"shape": list(space.shape)}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [space_to_json(inner) for inner in space]}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds_to_json(space.low), "high": _bounds_to_json(space.high)}
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    raise ValueError(
        f"{space} cannot be written as JSON; a policy here has Box, Discrete, MultiBinary, MultiDiscrete, Dict and "
        "Tuple spaces"
    )


def space_from_json(node: Any) -> spaces.Space[Any]:  # noqa: ANN401 - whatever stands in a stranger's file
    """The space that `space_to_json` wrote.

    Raises:
        ValueError: something else stands there, or a space of an absurd size.
    """
    match node:
        case {"type": "Dict", "spaces": dict() as inner}:
            return spaces.Dict([(str(name), space_from_json(part)) for name, part in inner.items()])  # a dict is sorted
        case {"type": "Tuple", "spaces": list() as inner}:
            return spaces.Tuple([space_from_json(part) for part in inner])
        case {"type": "MultiDiscrete", "shape": list() as shape, **flat}:
            row: Any = space_from_json({"type": "MultiDiscrete", **flat})
            return spaces.MultiDiscrete(row.nvec.reshape(_checked(shape)), start=row.start.reshape(shape))
        case {"type": "MultiDiscrete", "nvec": list() as nvec, "start": list() as start} if (
            len(nvec) == len(start) > 0
            and all(type(n) is int for n in [*nvec, *start])
            and all(0 < n <= MOST_ELEMENTS for n in nvec)
            and sum(nvec) <= MOST_ELEMENTS
            and all(abs(n) < 2**62 for n in start)
        ):
            return spaces.MultiDiscrete(nvec, start=start)
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


def flattened(space: spaces.Space[Any], value: Any) -> tuple[NDArray[Any], bool]:  # noqa: ANN401 - any observation
    """Observations of ``space`` as Gymnasium's ``FlattenObservation`` gives them, [B, n], and whether it is only one.

    Args:
        space: Of one observation; of the kinds that can be written as JSON.
        value: One observation, or a batch of them as Gymnasium's vector environments give it.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner: dict[Any, Any] = dict(space.spaces if isinstance(space, spaces.Dict) else enumerate(space.spaces))
        is_tuple = isinstance(value, tuple) and isinstance(space, spaces.Tuple)
        given = dict(enumerate(value)) if is_tuple else value
        if not isinstance(given, Mapping) or set(given) != set(inner):
            raise ValueError(f"expected an observation of {space}, got {value!r:.80}")
        parts = [flattened(part, given[name]) for name, part in inner.items()]
        if len({(len(rows), is_single) for rows, is_single in parts}) != 1:
            raise ValueError(f"the parts of an observation of {space} are not of one batch")
        return np.concatenate([rows for rows, _ in parts], axis=1), parts[0][1]
    array, shape = np.asarray(value), space.shape or ()
    is_single = array.ndim == len(shape)
    rows = array[None] if is_single else array
    counts = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    if rows.shape[1:] != shape or rows.ndim == 0 or (counts and not all(space.contains(row) for row in rows)):
        raise ValueError(f"expected an observation of {space}, or a batch of them, got {value!r:.80}")
    flat: list[Any] = [spaces.flatten(space, row) for row in rows]
    return np.stack(flat), is_single
