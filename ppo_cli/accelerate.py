"""How functions are executed: number of threads, precision, compilation. One wrapper, no maths.

Nothing else in the package knows which executor runs it.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar

import torch

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


@dataclass(frozen=True)
class Accelerator:
    """Runs functions of tensors on ``device`` in ``precision``, compiled or not.

    In ``bfloat16`` only matrix products and convolutions drop precision (autocast): weights, optimizer,
    log-probabilities and losses stay in float32.
    """

    device: torch.device
    precision: Precision = "float32"
    compile: bool = False

    def wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function under this executor; static shapes, so that nothing is compiled twice."""
        return self.autocast(torch.compile(function, dynamic=False) if self.compile else function)

    def autocast(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function in this precision, never compiled: for shapes that vary."""
        if self.precision == "float32":
            return function

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with torch.autocast(self.device.type, torch.bfloat16):
                return function(*args, **kwargs)

        return run


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
