"""torch's optimizers as they run uncompiled: the same steps, without importing its compiler.

``torch.optim`` imports ``torch._dynamo``, a second or two, to tell the compiler which of its methods to leave alone.
Nothing here is ever traced: only losses are compiled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

UNTRACED = ("__init__", "add_param_group", "state_dict", "load_state_dict", "zero_grad")
"""Methods that torch shields from its compiler; which of them it does depends on its version."""


def uncompiled(kind: type[Optimizer]) -> type[Optimizer]:
    """``kind``, never traced: its methods run as they are written, without a look at the compiler."""
    for name in UNTRACED:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            method.__dynamo_disable = method
    step: Any = kind.step
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(getattr(step, "__wrapped__", step))})


AdamW = uncompiled(torch.optim.AdamW)
RMSprop = uncompiled(torch.optim.RMSprop)
