from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.distributions import Categorical, Gaussian
from ppo_cli.fused.weights import MLPWeights
from ppo_cli.kernels.acting import transpose_weights
from ppo_cli.kernels.mlp import (
    LARGEST_TILE,
    Network,
    Scratch,
    backward,
    forward_policy,
    forward_trunk,
    forward_value,
    new_scratch,
    values,
)
from ppo_cli.networks.base import GaussianHead
from ppo_cli.networks.mlp import MLP

VECTOR = spaces.Box(-1.0, 1.0, (5,))
BUTTONS, LEVERS = spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"hidden": (64, 64)},
    "one odd layer": {"hidden": (7,)},
    "one unit": {"hidden": (1,)},
    "narrowing": {"hidden": (33, 9, 5)},
    "widening": {"hidden": (3, 17)},
    "relu": {"hidden": (16, 13), "activation": "relu"},
    "deep relu": {"hidden": (8, 8, 8), "activation": "relu"},
    "shared": {"hidden": (13, 18), "shared": True},
    "shared, one layer": {"hidden": (5,), "shared": True},
    "shared, deep relu": {"hidden": (6, 11, 9), "activation": "relu", "shared": True},
}


def forward(network: Network, scratch: Scratch, n: int) -> None:
    """Both networks over the tile in ``scratch.x``."""
    forward_trunk(network, scratch, 0, n)
    if not network.is_shared:
        forward_trunk(network, scratch, network.depth, n)
    forward_policy(network, scratch, n)
    forward_value(network, scratch, n)


def made(name: str, actions: spaces.Space[Any]) -> tuple[MLP, MLPWeights]:
    """A network none of whose weights is near 0, as those of fresh heads are."""
    torch.manual_seed(3)
    network = MLP(VECTOR, actions, **NETWORKS[name])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network, MLPWeights(network)


def loaded(network: Network, obs: Tensor) -> Scratch:
    """Working memory with ``obs`` [n, O] in place, and nonsense in everything that the kernels must fill."""
    scratch = new_scratch(network)
    for part in scratch:
        part.fill(1e3)
    scratch.x[:, : len(obs)] = obs.numpy().T
    return scratch


def outputs(network: MLP, obs: Tensor) -> tuple[Tensor, Tensor]:
    """What the policy's head says, log-probabilities or means [n, A], and the values [n]."""
    policy, value = network(obs)
    assert isinstance(policy, Categorical | Gaussian)
    return (policy.mean if isinstance(policy, Gaussian) else policy.log_probs), value


@pytest.mark.parametrize("actions", [BUTTONS, LEVERS], ids=["categorical", "gaussian"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 7, LARGEST_TILE])
def test_forward_is_the_modules(name: str, actions: spaces.Space[Any], n: int) -> None:
    module, weights = made(name, actions)
    obs = torch.randn(n, 5)
    scratch = loaded(weights.network, obs)
    forward(weights.network, scratch, n)
    expected, value = (x.detach() for x in outputs(module, obs))
    policy = torch.from_numpy(scratch.policy[:, :n].T.copy())
    policy = policy.log_softmax(-1) if isinstance(actions, spaces.Discrete) else policy
    torch.testing.assert_close(policy, expected, rtol=1e-5, atol=3e-6)
    torch.testing.assert_close(torch.from_numpy(scratch.value[0, :n].copy()), value, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 150), (3, 67), (64, 150), (20, 20)])
def test_values_fill_their_range_tile_by_tile_and_nothing_else(name: str, first: int, end: int) -> None:
    module, weights = made(name, BUTTONS)
    obs = torch.randn(150, 5)
    out = np.full(150, 99.0, np.float32)
    values(weights.network, loaded(weights.network, obs[:0]), obs.numpy(), out, first, end)
    expected = torch.full((150,), 99.0)
    with torch.no_grad():
        expected[first:end] = module(obs[first:end])[1] if end > first else 0.0
    torch.testing.assert_close(torch.from_numpy(out), expected, rtol=1e-5, atol=3e-6)


def exact_gradient(
    module: MLP, obs: Tensor, d_policy: Tensor, d_value: Tensor, order: list[Tensor]
) -> NDArray[np.float64]:
    """Autograd's in float64, flattened [P]; the log standard deviations have none here."""
    module = module.double()
    head = module.policy_head.mean if isinstance(module.policy_head, GaussianHead) else module.policy_head.logits
    actor, critic = module.actor(obs.double()), module.critic(obs.double())
    loss = (head(actor) * d_policy).sum() + (module.value_head(critic)[:, 0] * d_value).sum()
    gradients = torch.autograd.grad(loss, order, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients]).numpy()


@pytest.mark.parametrize("actions", [BUTTONS, LEVERS], ids=["categorical", "gaussian"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 7, LARGEST_TILE])
def test_backward_adds_the_gradient_that_autograd_has_in_float64(name: str, actions: spaces.Space[Any], n: int) -> None:
    module, weights = made(name, actions)
    obs, d_value = torch.randn(n, 5), torch.randn(n)
    scratch = loaded(weights.network, obs)
    d_policy = torch.randn(n, scratch.policy.shape[0])
    forward(weights.network, scratch, n)
    scratch.d_policy[:, :n], scratch.d_value[0, :n] = d_policy.numpy().T, d_value.numpy()
    gradient = np.full_like(weights.network.parameters, 0.5)
    backward(weights.network, scratch, gradient, True, True, n)
    exact = exact_gradient(module, obs, d_policy, d_value, list(weights.offsets))
    assert np.abs(gradient - 0.5 - exact).max() <= 3e-6 * max(1.0, np.abs(exact).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weights_that_acting_reads_are_transposed_layer_by_layer(name: str) -> None:
    _, weights = made(name, BUTTONS)
    network = weights.network
    expected, out = np.zeros_like(network.parameters), np.zeros_like(network.parameters)
    for offset, _, inputs, outputs in [*network.layers[: network.depth], network.layers[-2]]:
        inside = slice(offset, offset + inputs * outputs)
        expected[inside] = network.parameters[inside].reshape(outputs, inputs).T.ravel()
    transpose_weights(network, out)
    assert np.array_equal(out, expected)
