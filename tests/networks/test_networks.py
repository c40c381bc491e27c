from __future__ import annotations

import math

import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.testing import assert_close

from ppo_cli.distributions import Categorical, Gaussian
from ppo_cli.networks.conv import Conv
from ppo_cli.networks.mlp import MLP

VECTOR = spaces.Box(-1, 1, (6,))


def test_initial_weights_are_orthogonal_with_the_gains_of_their_place() -> None:
    network = MLP(VECTOR, spaces.Discrete(3), hidden=(64, 64))
    hidden = [layer for layer in network.actor if isinstance(layer, nn.Linear)][1].weight
    assert_close(hidden @ hidden.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    policy = network.policy_head.logits.weight  # type: ignore[union-attr]
    assert_close(policy @ policy.T, 1e-4 * torch.eye(3), atol=1e-8, rtol=0)  # type: ignore[operator, union-attr]
    assert network.value_head.weight.norm().item() == pytest.approx(1, rel=1e-5)
    assert all(layer.bias.abs().max() == 0 for layer in network.modules() if isinstance(layer, nn.Linear))


def test_the_first_policy_is_nearly_uniform() -> None:
    policy, _ = MLP(VECTOR, spaces.Discrete(4))(torch.randn(100, 6))
    assert policy.entropy().min().item() > math.log(4) - 0.01


def test_a_shared_trunk_is_one_and_separate_ones_are_two() -> None:
    def size(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    trunk = 6 * 64 + 64 + 64 * 64 + 64
    separate = MLP(VECTOR, spaces.Discrete(3))
    shared = MLP(VECTOR, spaces.Discrete(3), shared=True)
    assert size(separate) - size(shared) == trunk


def test_the_value_gradient_reaches_the_actor_only_through_a_shared_trunk() -> None:
    for shared in (False, True):
        network = MLP(VECTOR, spaces.Discrete(3), shared=shared)
        network(torch.randn(5, 6))[1].sum().backward()
        assert (network.actor[0].weight.grad is not None) == shared


def test_continuous_actions_get_one_standard_deviation_per_dimension_that_no_state_changes() -> None:
    policy, value = MLP(VECTOR, spaces.Box(-1, 1, (2,)))(torch.randn(5, 6))
    assert isinstance(policy, Gaussian)
    assert policy.mean.shape == (5, 2)
    assert (policy.log_std == 0).all()
    assert value.shape == (5,)


def test_the_action_mask_of_the_observation_is_obeyed() -> None:
    legal = torch.tensor([[True, False, True]]).expand(5, 3)
    space = spaces.Dict(obs=VECTOR, legal=spaces.MultiBinary(3))
    policy, _ = MLP(space, spaces.Discrete(3))({"obs": torch.randn(5, 6), "legal": legal})
    assert isinstance(policy, Categorical)
    assert (policy.log_probs.exp()[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("shape", "dense_inputs"),
    [((4, 84, 84), 3136), ((84, 84, 4), 3136), ((3, 64, 64), 1024), ((7, 7, 3), 64), ((10, 10), 1024)],
)
def test_images_of_either_layout_are_read(shape: tuple[int, ...], dense_inputs: int) -> None:
    network = Conv(spaces.Box(0, 255, shape, dtype="uint8"), spaces.Discrete(3), features=32)  # type: ignore[arg-type]
    dense = next(layer for layer in network.actor if isinstance(layer, nn.Linear))
    assert dense.in_features == dense_inputs
    policy, value = network(torch.randint(0, 256, (2, *shape), dtype=torch.uint8))
    assert policy.log_probs.shape == (2, 3)
    assert value.shape == (2,)


def test_bytes_are_divided_by_255_and_floats_are_not() -> None:
    torch.manual_seed(0)
    integer = Conv(spaces.Box(0, 255, (3, 36, 36), dtype="uint8"), spaces.Discrete(3))  # type: ignore[arg-type]
    floating = Conv(spaces.Box(0, 1, (3, 36, 36)), spaces.Discrete(3))
    floating.load_state_dict(integer.state_dict())
    image = torch.randint(0, 256, (2, 3, 36, 36), dtype=torch.uint8)
    assert_close(integer(image)[1], floating(image / 255)[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv(spaces.Box(0, 1, (3, 5, 5)), spaces.Discrete(2)), "at least 7x7"),
        (lambda: Conv(VECTOR, spaces.Discrete(2)), "2 or 3 dimensions"),
        (lambda: MLP(VECTOR, spaces.MultiBinary(2)), "Discrete, MultiDiscrete of one row, or Box"),
        (lambda: MLP(VECTOR, spaces.MultiDiscrete([[2, 2]])), "Discrete, MultiDiscrete of one row, or Box"),
        (lambda: MLP(VECTOR, spaces.MultiDiscrete([1] * 2**12 + [2**12])), "4097 dimensions of up to 4096 choices"),
        (lambda: MLP(spaces.Discrete(3), spaces.Discrete(2)), "must be a Box"),
        (lambda: MLP(VECTOR, spaces.Discrete(2), hidden=()), "at least one width"),
    ],
)
def test_a_space_that_a_network_cannot_read_is_refused_with_what_it_could(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_each_choice_of_several_has_a_logit_of_its_own() -> None:
    torch.manual_seed(0)
    network = MLP(VECTOR, spaces.MultiDiscrete([2, 5, 1]))
    assert network.policy_head.logits.out_features == 8
    network.policy_head.logits.bias.data = torch.arange(8.0)
    policy, _ = network(torch.zeros(3, *VECTOR.shape))
    assert policy.mode().tolist() == [[1, 4, 0]] * 3
    log_odds = policy.dimensions.log_probs
    assert_close(log_odds[0, 0, 1] - log_odds[0, 0, 0], torch.tensor(1.0))
    assert_close(log_odds[0, 1, 4] - log_odds[0, 1, 0], torch.tensor(4.0))
    (policy.entropy() + policy.log_prob(policy.mode())).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())
