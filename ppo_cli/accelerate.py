"""How functions are executed: number of threads, precision, compilation. One wrapper, no maths.

Nothing else in the package knows which executor runs it.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from ppo_cli.parallel import InParts, Threads

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 32 << 20
"""Bytes; the C library takes no more."""

Precision = Literal["float32", "bfloat16"]
Path = Literal["eager", "compile", "fused"]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Execution:
    """What a run's numbers depend on beside its settings: another path, or other threads in torch, round otherwise."""

    path: Path = "eager"  # plain torch, torch.compile, or the kernels of ppo_cli.fused
    num_threads: int = 1
    reason: str = ""  # why this path
    has_board_kernels: bool = False  # for a board's convolutions, where the hardware profits (`ppo_cli.networks.trunk`)


@dataclass(frozen=True)
class Accelerator:
    """Runs functions of tensors on ``device`` in ``precision``, compiled or not.

    In ``bfloat16`` only matrix products and convolutions drop precision (autocast): weights, optimizer,
    log-probabilities and losses stay in float32.
    """

    device: torch.device
    precision: Precision = "float32"
    compile: bool = False
    threads: Threads = field(default_factory=lambda: Threads(1))  # that share a batch, uncompiled

    @property
    def num_threads(self) -> int:
        """CPU threads in use, of either kind."""
        return max(self.threads.count, torch.get_num_threads())

    def wrap(self, function: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[nn.Module, P], R]:
        """The same function of a network (and more) under this executor; static shapes: nothing is compiled twice."""
        if self.compile:
            return self.autocast(torch.compile(function, dynamic=False))

        def run(network: nn.Module, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return function(self.network(network), *args, **kwargs)

        return self.autocast(run) if self.threads.count > 1 else self.autocast(function)

    def network(self, network: nn.Module) -> InParts:
        """The same network under this executor, never compiled: for batches of any size."""
        return InParts(self.autocast(network), network.parameters(), self.threads)

    def autocast(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function in this precision."""
        if self.precision == "float32":
            return function

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            # No cache: a pass reads every weight once, and the cache is one for all threads.
            with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
                return function(*args, **kwargs)

        return run


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; the host goes on before it has arrived."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the tensors of the next pass; where it is GNU's.

    It would hand large blocks back to the system and fetch them again page by page: in a virtual machine that takes a
    fifth of a convolutional network's update.
    """
    if sys.platform == "linux" and (set_option := getattr(ctypes.CDLL(None), "mallopt", None)):
        set_option(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        set_option(M_TRIM_THRESHOLD, 1 << 30)


def can_compile(device: torch.device) -> bool:
    """Whether compiled code can be built here: on a CPU that takes a C++ compiler. Says so once where there is none."""
    if device.type != "cpu" or any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return True
    warnings.warn("no C++ compiler found: running uncompiled, which is slower", stacklevel=2)
    return False


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
