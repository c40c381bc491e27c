"""The state of Python environments as plain data: JSON text and bytes, read back without running any code.

An environment's attributes are walked through all of its wrappers. Numbers, text, arrays, random generators and lists,
tuples, dicts and deques of those are written down; classes, functions, spaces and specifications stay as they were
built. Anything else, such as an object of a physics engine, means that the environment cannot be copied, and by which
attribute. What nobody can see from here (a global, a C extension's own memory) is for a trial to find out.
"""

from __future__ import annotations

import enum
import functools
import json
import types
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from torch import Tensor

from ppo_cli.envs.base import NoStateError

T = TypeVar("T")
Items = TypeVar("Items", list[Any], deque[Any])

PLAIN = (type(None), bool, int, float, str)
WALKED = (gym.Env, VectorEnv)
FIXED = (gym.Space, EnvSpec, enum.Enum, np.dtype, type, types.ModuleType, types.BuiltinFunctionType)
NUMPY = (np.ndarray, np.generic)
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
CONSTRUCTORS = frozenset({"env_fns"})
"""Attributes of vector environments that make their parts: they have done so."""


def capture(env: object) -> dict[str, Any]:
    """Everything that changes in ``env``: ``tree``, JSON text, and ``arrays``, the bytes that it points to.

    Raises:
        NoStateError: naming the attribute that is no plain data.
    """
    writer = _Writer()
    tree = writer.write(env, "")
    return {"tree": json.dumps(tree), "arrays": writer.arrays}


def restore(env: object, state: Mapping[str, Any]) -> None:
    """Put ``state`` into ``env``, which was built like the one that it was captured from.

    Raises:
        NoStateError: it was built differently.
    """
    try:
        _Reader(state["arrays"]).read(json.loads(state["tree"]), env)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise NoStateError(f"the saved state does not fit it ({type(error).__name__}: {error})") from error


class _Writer:
    """Turns values into JSON. Objects that two places share are written once, so that they are shared again."""

    def __init__(self) -> None:
        self.arrays: list[Tensor] = []
        self.seen: dict[int, int] = {}
        self.kept: list[object] = []  # a living object's id is nobody else's

    def write(self, value: Any, path: str) -> Any:  # noqa: ANN401 - whatever an environment holds
        """``value`` as JSON; ``path`` says where it was found."""
        if type(value) in PLAIN:
            return value
        if isinstance(value, np.generic) and value.dtype != object:
            return ["scalar", value.dtype.str, value.tobytes().hex()]
        if type(value) is bytes:
            return ["bytes", value.hex()]
        if type(value) is tuple:
            return ["tuple", self.write_all(value, path)]
        if is_fixed(value):
            return ["fixed"]
        if id(value) in self.seen:
            return ["same", self.seen[id(value)]]
        self.seen[id(value)] = len(self.kept)
        self.kept.append(value)
        return self.write_shared(value, path)

    def write_shared(self, value: Any, path: str) -> Any:  # noqa: ANN401
        """What can change, and therefore matters to everyone who holds it."""
        if type(value) is list:
            return ["list", self.write_all(value, path)]
        if type(value) is deque:
            return ["deque", value.maxlen, self.write_all(value, path)]
        if type(value) is dict:
            return ["dict", [[self.write(key, path), self.write(value[key], f"{path}[{key!r}]")] for key in value]]
        if type(value) is np.ndarray and not value.dtype.hasobject:
            self.arrays.append(torch.frombuffer(bytearray(value.tobytes()) or bytearray(1), dtype=torch.uint8))
            return ["array", value.dtype.str, list(value.shape), len(self.arrays) - 1]
        if isinstance(value, np.random.Generator) and type(value.bit_generator).__name__ in BIT_GENERATORS:
            return ["generator", self.write(value.bit_generator.state, path)]
        if isinstance(value, WALKED):
            attributes = {name: held for name, held in vars(value).items() if name not in CONSTRUCTORS}
            return ["object", class_name(value), [[name, self.write(held, name)] for name, held in attributes.items()]]
        raise NoStateError(f"its attribute {path} is of {class_name(value)}, which cannot be copied")

    def write_all(self, values: Sequence[Any] | deque[Any], path: str) -> list[Any]:
        """One after the other."""
        return [self.write(value, f"{path}[{index}]") for index, value in enumerate(values)]


class _Reader:
    """Turns JSON back into values; what stays as it is built is taken from the environment at hand."""

    def __init__(self, arrays: Sequence[Tensor]) -> None:
        self.arrays = arrays
        self.shared: list[Any] = []

    def read(self, written: Any, current: Any) -> Any:  # noqa: ANN401
        """The value; ``current`` is what stands in its place."""
        if not isinstance(written, list):
            return written
        kind, *content = written
        if kind == "fixed":
            return current
        if kind == "same":
            return self.shared[content[0]]
        read: Callable[..., Any] = getattr(self, f"read_{kind}")
        return read(current, *content)

    def read_scalar(self, _current: object, dtype: str, data: str) -> np.generic:
        scalar: np.generic = np.frombuffer(bytes.fromhex(data), dtype)[0]
        return scalar

    def read_bytes(self, _current: object, data: str) -> bytes:
        return bytes.fromhex(data)

    def read_tuple(self, current: object, items: list[Any]) -> tuple[Any, ...]:
        return tuple(self.read_all(current, items))

    def read_list(self, current: object, items: list[Any]) -> list[Any]:
        return self.fill(self.share([]), current, items)

    def read_deque(self, current: object, maxlen: int | None, items: list[Any]) -> deque[Any]:
        return self.fill(self.share(deque(maxlen=maxlen)), current, items)

    def read_dict(self, current: object, items: list[Any]) -> dict[Any, Any]:
        result: dict[Any, Any] = self.share({})
        held = current if isinstance(current, dict) else {}
        for written_key, value in items:
            key = self.read(written_key, None)
            result[key] = self.read(value, held.get(key))
        return result

    def read_array(self, _current: object, dtype: str, shape: list[int], index: int) -> np.ndarray[Any, Any]:
        data = self.arrays[index].numpy().tobytes()
        count = int(np.prod(shape))
        array: np.ndarray[Any, Any] = np.frombuffer(data, dtype, count).reshape(shape).copy()
        return self.share(array)

    def read_generator(self, _current: object, written: list[Any]) -> np.random.Generator:
        number = len(self.shared)
        self.shared.append(None)  # its state is written after it
        state = self.read(written, None)
        if state["bit_generator"] not in BIT_GENERATORS:
            raise ValueError(f"there is no generator {state['bit_generator']}")
        bit_generator = getattr(np.random, state["bit_generator"])()
        bit_generator.state = state
        self.shared[number] = np.random.Generator(bit_generator)
        return self.shared[number]  # type: ignore[no-any-return]

    def read_object(self, current: object, name: str, attributes: list[list[Any]]) -> object:
        if class_name(current) != name:
            raise ValueError(f"{name} was saved, this is {class_name(current)}")
        held = vars(self.share(current))
        for extra in held.keys() - {attribute for attribute, _ in attributes} - CONSTRUCTORS:
            del held[extra]
        for attribute, value in attributes:
            held[attribute] = self.read(value, held.get(attribute))
        return current

    def share(self, value: T) -> T:
        """``value``, known to the places that refer to it."""
        self.shared.append(value)
        return value

    def fill(self, result: Items, current: object, items: list[Any]) -> Items:
        """``result`` with the items that were written."""
        result.extend(self.read_all(current, items))
        return result

    def read_all(self, current: object, items: list[Any]) -> list[Any]:
        """One after the other, beside those that stand there."""
        held = list(current) if isinstance(current, list | tuple | deque) else []
        return [self.read(item, held[n] if n < len(held) else None) for n, item in enumerate(items)]


def is_fixed(value: object) -> bool:
    """Whether nothing changes in ``value`` while episodes are played: code, and what describes an environment."""
    if isinstance(value, types.FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        return all(type(each) in PLAIN or isinstance(each, (*WALKED, *NUMPY)) or is_fixed(each) for each in held)
    if isinstance(value, types.MethodType):
        return isinstance(value.__self__, (*WALKED, *FIXED))
    if isinstance(value, functools.partial):
        held = [value.func, *value.args, *value.keywords.values()]
        return all(type(each) in PLAIN or is_fixed(each) for each in held)
    return isinstance(value, FIXED)


def class_name(value: object) -> str:
    """Module and name of the class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"
