"""Kernels that run side by side, each in a thread of its own, and meet at a barrier without the interpreter."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import compiled, in_llvm

Barrier = NDArray[np.int64]

_ARRIVED, _GENERATION, _SIZE = 0, 16, 32
"""Two counters, and the distance that keeps them in different cache lines."""

_SPINS = 4096
"""Looks at the counter before the core is offered to others: some microseconds, more than threads in step ever wait."""

_HAS_YIELD = os.name == "posix"
_yield_core = types.ExternalFunction("sched_yield", types.int32())


def new_barrier() -> Barrier:
    """For any number of threads, to be used over and over by the same ones."""
    return np.zeros(_SIZE, np.int64)


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401 (generates code)
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@in_llvm
def _atomic_add(typing_context: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ANN401
    """array[index] += value in one step; what was there before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.atomic_rmw("add", _address(context, builder, signature, arguments), arguments[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), generate


@in_llvm
def _atomic_load(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ANN401
    """array[index] as the other threads left it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.load_atomic(_address(context, builder, signature, arguments), "seq_cst", 8)

    return types.int64(array, types.int64), generate


@compiled
def meet(barrier: Barrier, num_threads: int) -> None:
    """Wait until ``num_threads`` threads have come here. What each wrote before, all read after."""
    if num_threads == 1:
        return
    generation = _atomic_load(barrier, _GENERATION)
    if _atomic_add(barrier, _ARRIVED, 1) == num_threads - 1:
        _atomic_add(barrier, _ARRIVED, -num_threads)
        _atomic_add(barrier, _GENERATION, 1)
        return
    spins = 0
    while _atomic_load(barrier, _GENERATION) == generation:
        spins += 1
        if _HAS_YIELD and spins > _SPINS:
            _yield_core()


@compiled
def share(total: int, thread: int, num_threads: int) -> tuple[int, int]:
    """First and end of this thread's part of ``total`` pieces of work; parts differ by at most one."""
    return total * thread // num_threads, total * (thread + 1) // num_threads
