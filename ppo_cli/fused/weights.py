"""A network and its AdamW as flat vectors that kernels read and write; the torch objects become views of them.

Nothing is copied back and forth: checkpoints, evaluation and all other readers keep using module and optimizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppo_cli.kernels.linear import RELU, TANH, Floats
from ppo_cli.kernels.mlp import CATEGORICAL, GAUSSIAN, Network, tile_for
from ppo_cli.networks.base import CategoricalHead, GaussianHead
from ppo_cli.networks.mlp import MLP

ACTIVATION_CODES: dict[type[nn.Module], int] = {nn.Tanh: TANH, nn.ReLU: RELU}
STEP, FIRST, SECOND = "step", "exp_avg", "exp_avg_sq"
"""What torch.optim.AdamW calls its state."""

NO_FLOATS = np.zeros((0, 0), np.float32)
"""Stands for what a policy of the other kind would have."""


class FlatWeights:
    """Parameters in one vector, in their order."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        ordered = list(parameters)
        self.flat: Floats = np.empty(sum(p.numel() for p in ordered), np.float32)
        self.offsets: dict[Tensor, int] = {}
        end = 0
        for parameter in ordered:
            self.offsets[parameter], end = end, end + parameter.numel()
            parameter.data = self.view(self.flat, parameter).copy_(parameter.data)

    def view(self, flat: Floats, parameter: Tensor) -> Tensor:
        """The part of a vector [P] laid out like this one that belongs to ``parameter``, in its shape."""
        offset = self.offsets[parameter]
        return torch.from_numpy(flat[offset : offset + parameter.numel()]).view(parameter.shape)


class MLPWeights(FlatWeights):
    """The weights of an MLP, the actor's before the critic's; their layout is ``network``."""

    def __init__(self, actor_critic: MLP) -> None:
        is_shared = actor_critic.critic is actor_critic.actor
        critic = [] if is_shared else [*actor_critic.critic.parameters(), *actor_critic.value_head.parameters()]
        of_critic = {id(parameter) for parameter in critic}
        super().__init__([p for p in actor_critic.parameters() if id(p) not in of_critic] + critic)
        head = actor_critic.policy_head
        trunks = [actor_critic.actor] if is_shared else [actor_critic.actor, actor_critic.critic]
        hidden = [layer for trunk in trunks for layer in trunk if isinstance(layer, nn.Linear)]
        assert isinstance(head, GaussianHead | CategoricalHead)
        output = head.mean if isinstance(head, GaussianHead) else head.logits
        self.network = Network(
            parameters=self.flat,
            critic=len(self.flat) - sum(p.numel() for p in critic),
            layers=np.array([self.layout(layer) for layer in [*hidden, output, actor_critic.value_head]], np.int64),
            depth=len(hidden) // len(trunks),
            is_shared=is_shared,
            activation=ACTIVATION_CODES[type(actor_critic.actor[1])],
            head=GAUSSIAN if isinstance(head, GaussianHead) else CATEGORICAL,
            log_std=self.offsets[head.log_std] if isinstance(head, GaussianHead) else -1,
            tile=tile_for(max(layer.out_features for layer in hidden)),
        )

    def layout(self, layer: nn.Linear) -> tuple[int, int, int, int]:
        """Offsets of weights and biases, inputs, outputs."""
        return self.offsets[layer.weight], self.offsets[layer.bias], layer.in_features, layer.out_features


class FlatMoments:
    """AdamW's running means in two vectors, laid out as the weights are."""

    def __init__(self, weights: FlatWeights, optimizer: torch.optim.AdamW) -> None:
        self.weights = weights
        self.optimizer = optimizer
        self.first = np.zeros_like(weights.flat)
        self.second = np.zeros_like(weights.flat)
        self.steps_taken = 0
        self.adopt()
        optimizer.register_load_state_dict_post_hook(lambda _: self.adopt())
        optimizer.register_state_dict_pre_hook(lambda _: self.count_steps())

    def adopt(self) -> None:
        """Take the optimizer's state over; what it has not stored yet is 0."""
        for parameter in self.weights.offsets:
            state: dict[str, Any] = self.optimizer.state[parameter]
            self.steps_taken = int(state.setdefault(STEP, torch.zeros(())))  # the same for every parameter
            for name, flat in ((FIRST, self.first), (SECOND, self.second)):
                view = self.weights.view(flat, parameter)
                state[name] = view.copy_(state[name]) if name in state else view.zero_()

    def count_steps(self) -> None:
        """Tell the optimizer how many steps were taken."""
        for parameter in self.weights.offsets:
            self.optimizer.state[parameter][STEP].fill_(float(self.steps_taken))


def rows_of(x: Tensor | dict[str, Tensor]) -> Floats:
    """[T, N, ...] as [T * N, ...], sharing memory."""
    assert isinstance(x, Tensor)
    flat: Floats = x.view(x.shape[0] * x.shape[1], -1).numpy()
    return flat
