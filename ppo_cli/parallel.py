"""A network evaluated on several threads, each with its own rows of the batch. No maths: the same function, in parts.

Threads inside every operation (OpenMP) wait for each other some hundred times in each pass over a small network, and
stall altogether where another process wants one of the cores. Here they meet twice: after the forward and after the
backward pass.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property, partial
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ppo_cli.types import Obs, map_tensors, num_rows

Network = Callable[[Obs], tuple[Any, Tensor]]
R = TypeVar("R")

MIN_ROWS = 16
"""Of a part: for fewer, handing it to another thread takes longer than the work."""

GOOD_ROWS = 256
"""Of a part: for more, the threads wait longer for the last one where another process slows one of them down."""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """The calling thread and ``count - 1`` others. torch's own should be one in between too: idle, they spin."""

    def __init__(self, count: int) -> None:
        self.count = count

    @cached_property
    def helpers(self) -> ThreadPoolExecutor:
        """Started at the first use."""
        return ThreadPoolExecutor(self.count - 1, "part", initializer=torch.set_num_threads, initargs=(1,))

    def run(self, tasks: Sequence[Callable[[], R]]) -> list[R]:
        """Every task's result, in order; who takes which is left to chance. The first error is raised in the caller."""
        results: dict[int, R] = {}
        waiting = deque(enumerate(tasks))

        def work() -> None:
            while waiting:
                try:
                    number, task = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                results[number] = task()

        own_threads = torch.get_num_threads()
        torch.set_num_threads(1)  # another number sums in another order, and who takes which part is left to chance
        others = [self.helpers.submit(work) for _ in range(min(self.count, len(tasks)) - 1)]
        try:
            work()
        finally:
            waiting.clear()
            wait(others)
            torch.set_num_threads(own_threads)
        for other in others:
            other.result()
        return [results[number] for number in range(len(tasks))]


class InParts:
    """A network with the rows of its observations shared out over ``threads``: called like the network itself.

    ``network`` is what a part calls, in the precision of the run, and ``parameters`` what it is made of. Gradients of
    the parts are added in the parts' order, so that a run repeats itself exactly. First derivatives only.
    """

    def __init__(self, network: Network, parameters: Iterable[Tensor], threads: Threads) -> None:
        self.network = network
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.threads = threads

    def __call__(self, obs: Obs) -> tuple[Any, Tensor]:
        """[B, *O] -> a policy over [B] and the value [B]."""
        num_parts = number_of_parts(num_rows(obs), self.threads.count)
        if num_parts < 2:
            return self.network(obs)
        parts = Parts(self, split(obs, num_parts), records=torch.is_grad_enabled())
        tensors = PartsFunction.apply(parts, *self.parameters)  # type: ignore[no-untyped-call]
        outputs = rebuilt(parts.outputs[0], tensors)
        return outputs["policy"], outputs["value"]


class Parts:
    """One evaluation: the parts of an observation, and what the network made of each."""

    def __init__(self, owner: InParts, obs: list[Obs], *, records: bool) -> None:
        self.owner = owner
        self.obs = obs
        self.records = records
        self.outputs: list[dict[str, Any]] = []

    def forward(self) -> list[Tensor]:
        """The tensors of policy and value, [B, ...] each; their graphs stay with the parts."""
        self.outputs = self.owner.threads.run([partial(self.evaluate, obs) for obs in self.obs])
        return [torch.cat(tensors) for tensors in zip(*map(tensors_of, self.outputs), strict=True)]

    def evaluate(self, obs: Obs) -> dict[str, Any]:
        """One part, in whichever thread."""
        with torch.set_grad_enabled(self.records):
            policy, value = self.owner.network(obs)
        return {"policy": policy, "value": value}

    def backward(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients of the outputs carried back to the parameters, through graphs that are gone afterwards."""
        sizes = [num_rows(obs) for obs in self.obs]
        pieces = [[None] * len(sizes) if g is None else torch.split(g, sizes) for g in gradients]
        tasks = [
            partial(backward_of_part, tensors_of(output), [piece[number] for piece in pieces], self.owner.parameters)
            for number, output in enumerate(self.outputs)
        ]
        self.outputs = []
        return [total(parts) for parts in zip(*self.owner.threads.run(tasks), strict=True)]


class PartsFunction(torch.autograd.Function):
    """Shows the graphs of all parts to autograd as one operation on the parameters."""

    @staticmethod
    def forward(ctx: Any, parts: Parts, *parameters: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """The tensors of all outputs, in order."""
        tensors = parts.forward()
        ctx.parts = parts
        ctx.set_materialize_grads(False)
        recorded = tensors_of(parts.outputs[0])
        ctx.mark_non_differentiable(*[x for x, part in zip(tensors, recorded, strict=True) if not part.requires_grad])
        return tuple(tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """The gradient of every parameter, None where no output depends on it."""
        return None, *ctx.parts.backward(gradients)


def backward_of_part(
    outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradient of each parameter, None where the outputs do not depend on it."""
    pairs = zip(outputs, gradients, strict=True)
    with torch.enable_grad():  # scalars: to compare the shape of anything else with its gradient's, torch loads sympy
        products = [x.mul(g).sum() for x, g in pairs if g is not None and x.requires_grad]
    return torch.autograd.grad(products, parameters, allow_unused=True)


def total(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of what is there, from the first to the last."""
    found = [part for part in parts if part is not None]
    return sum(found[1:], start=found[0]) if found else None


def number_of_parts(rows: int, threads: int) -> int:
    """As many as threads, or a multiple of it as long as the parts have ``GOOD_ROWS``."""
    return min(threads * max(1, rows // (threads * GOOD_ROWS)), rows // MIN_ROWS)


def split(obs: Obs, num_parts: int) -> list[Obs]:
    """Observations [B, *O] cut into parts of nearly the same size."""
    bounds = [num_rows(obs) * number // num_parts for number in range(num_parts + 1)]
    return [map_tensors(itemgetter(slice(*rows)), obs) for rows in itertools.pairwise(bounds)]


def tensors_of(outputs: dict[str, Any]) -> list[Tensor]:
    """All tensors of a tree, in order."""
    tensors: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        tensors.append(x)
        return x

    map_tensors(keep, outputs)
    return tensors


def rebuilt(outputs: dict[str, Any], tensors: Iterable[Tensor]) -> dict[str, Any]:
    """A tree like ``outputs`` of other tensors."""
    remaining = iter(tensors)

    def replaced(_: Tensor) -> Tensor:
        return next(remaining)

    return map_tensors(replaced, outputs)
