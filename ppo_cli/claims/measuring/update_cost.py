"""What one update of an algorithm costs: processor time, memory, passes through the network.

Every kind is run as it ships, with a batch and a network that are the same for all; two measured updates are made on
each rollout, one on the clock and one under the counters, which slow it down.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.base import Algorithm
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.algorithms.trpo import TRPO
from ppo_cli.algorithms.vpg import VPG
from ppo_cli.networks.base import num_parameters
from ppo_cli.settings import Range, check_ranges
from ppo_cli.train_state import TrainState
from ppo_cli.types import Distribution, Obs, Rollout, num_rows

KINDS: dict[str, Callable[..., Algorithm]] = {
    "vpg": VPG,
    "a2c": A2C,
    "ppo": PPO,
    "trpo": partial(TRPO, critic_epochs=1, num_minibatches=1),  # one step of the critic, as vpg and a2c take
}


@dataclass(frozen=True, kw_only=True)
class UpdateCost:
    """Fields are hyperparameters; those of the measured algorithm are its defaults."""

    measured: Literal["vpg", "a2c", "ppo", "trpo"] = "vpg"
    """The algorithm whose update is measured."""
    gamma: Annotated[float, Range(at_least=0, at_most=1)] = 0.99
    """Discount of a reward one step later."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def update(self, state: TrainState, rollout: Rollout) -> Mapping[str, Tensor | float]:
        """Two updates on one rollout, the second one counted."""
        algorithm = KINDS[self.measured](gamma=self.gamma)
        started = time.thread_time()  # of this thread alone: other programs do not count
        metrics = algorithm.update(state, rollout)
        seconds = time.thread_time() - started
        with counted_passes(state.actor_critic) as passes, PeakMemory() as memory:
            algorithm.update(state, rollout)
        parameters = num_parameters(state.actor_critic)
        figures = {
            "seconds": seconds,
            "megabytes": memory.peak / 1e6,
            "forward_passes": passes["forward"] / rollout.reward.numel(),
            "backward_passes": passes["backward"] / rollout.reward.numel(),
            "gradient_steps": state.gradient_steps / 2,
            "parameters": float(parameters),
        }
        return {**metrics, **{f"cost/{name}": value for name, value in figures.items()}}


@contextmanager
def counted_passes(network: nn.Module) -> Iterator[dict[str, float]]:
    """Samples that go forward through ``network`` and samples whose gradient comes back through it, by direction.

    What comes back through the actor or the critic alone is half a pass. A product with the Hessian counts as one: the
    gradient returns through the forward graph once, though the way there is longer.
    """
    counts = {"forward": 0.0, "backward": 0.0}

    def count(_: nn.Module, inputs: tuple[Obs], outputs: tuple[Distribution, Tensor]) -> None:
        rows = num_rows(inputs[0])
        counts["forward"] += rows

        def note(_: Tensor) -> None:
            counts["backward"] += rows / 2

        policy, value = outputs
        for output in (next(iter(vars(policy).values())), value):
            if output.requires_grad:
                output.register_hook(note)

    handle = network.register_forward_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors that torch makes inside the block, at their peak; what exists before does not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[int, int] = {}  # bytes by storage

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known | self._live.keys():
                storage = leaf.untyped_storage()
                self._live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self._live.values()))
        return result
