from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli.accelerate import Accelerator
from ppo_cli.networks.board import Board
from ppo_cli.networks.conv import Conv
from ppo_cli.networks.mlp import MLP
from ppo_cli.parallel import GOOD_ROWS, MIN_ROWS, Threads, number_of_parts, split
from ppo_cli.types import Obs

CPU = torch.device("cpu")
DISCRETE = spaces.Discrete(30)


def board(rows: int) -> tuple[nn.Module, Obs]:
    space = spaces.Dict({"board": spaces.Box(-2, 8, (5, 6), np.int8), "legal": spaces.MultiBinary(30)})
    legal = torch.rand(rows, 30) < 0.6
    legal[:, 0] = True
    obs: Obs = {"board": torch.randint(-1, 9, (rows, 5, 6), dtype=torch.int8), "legal": legal}
    return Board(space, DISCRETE, channels=32, num_layers=3), obs


def conv(rows: int) -> tuple[nn.Module, Obs]:
    space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    return Conv(space, DISCRETE, features=16), torch.randint(0, 256, (rows, 8, 8, 3), dtype=torch.uint8)


def gaussian_mlp(rows: int) -> tuple[nn.Module, Obs]:
    space = spaces.Dict({"obs": spaces.Box(-1, 1, (4,)), "legal": spaces.MultiBinary(2)})
    return MLP(space, spaces.Box(-1, 1, (2,)), hidden=(8,)), {"obs": torch.randn(rows, 4)}


def policy_and_value(actor_critic: Callable[[Obs], tuple[Any, Tensor]], obs: Obs) -> Tensor:
    policy, value = actor_critic(obs)
    return (policy.log_prob(policy.mode()).sin() + 0.1 * policy.entropy() + value.square()).mean()


def value_only(actor_critic: Callable[[Obs], tuple[Any, Tensor]], obs: Obs) -> Tensor:
    return actor_critic(obs)[1].square().mean()


def learned(accelerator: Accelerator, network: nn.Module, obs: Obs, loss_of: Any) -> tuple[Tensor, list[Tensor | None]]:
    """The loss and every parameter's gradient."""
    network.zero_grad(set_to_none=True)
    loss = accelerator.wrap(loss_of)(network, obs)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("make", [board, conv, gaussian_mlp])
@pytest.mark.parametrize("rows", [1, 2 * MIN_ROWS, 77])
@pytest.mark.parametrize("loss_of", [policy_and_value, value_only])
def test_in_parts_losses_and_gradients_are_the_plain_networks(make: Any, rows: int, loss_of: Any) -> None:
    torch.manual_seed(1)
    network, obs = make(rows)
    loss, gradients = learned(Accelerator(CPU), network, obs, loss_of)
    loss_in_parts, gradients_in_parts = learned(Accelerator(CPU, threads=Threads(3)), network, obs, loss_of)
    assert_close(loss_in_parts, loss)
    assert [g is None for g in gradients_in_parts] == [g is None for g in gradients]
    for one, other in zip(gradients_in_parts, gradients, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_in_bfloat16_the_gradients_agree_to_its_precision() -> None:
    torch.manual_seed(1)
    network, obs = board(64)
    _, exact = learned(Accelerator(CPU), network, obs, policy_and_value)
    _, in_parts = learned(Accelerator(CPU, "bfloat16", threads=Threads(2)), network, obs, policy_and_value)
    one, other = (torch.cat([g.flatten() for g in gradients if g is not None]) for gradients in (in_parts, exact))
    assert (one - other).norm() <= 0.05 * other.norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_on_two_threads_are_equal_to_the_bit(precision: Any) -> None:
    torch.manual_seed(1)
    network, obs = board(4 * GOOD_ROWS + 3)
    first = learned(Accelerator(CPU, precision, threads=Threads(2)), network, obs, policy_and_value)
    second = learned(Accelerator(CPU, precision, threads=Threads(2)), network, obs, policy_and_value)
    assert torch.equal(first[0], second[0])
    for one, other in zip(first[1], second[1], strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_without_gradients_the_outputs_are_the_plain_networks() -> None:
    torch.manual_seed(1)
    network, obs = board(50)
    with torch.no_grad():
        policy, value = Accelerator(CPU, threads=Threads(2)).network(network)(obs)
        expected_policy, expected_value = network(obs)
    assert_close(policy.log_probs, expected_policy.log_probs)
    assert_close(value, expected_value)
    assert not value.requires_grad


def test_a_second_derivative_is_refused_and_not_silently_wrong() -> None:
    network, obs = board(50)
    loss = Accelerator(CPU, threads=Threads(2)).wrap(policy_and_value)(network, obs)
    gradient = torch.autograd.grad(loss, [*network.parameters()], create_graph=True, allow_unused=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(part.sum() for part in gradient if part is not None).backward()  # type: ignore[union-attr]


def test_an_error_in_another_thread_reaches_the_caller() -> None:
    class Fails(nn.Module):
        def forward(self, obs: Tensor) -> tuple[Any, Tensor]:
            if obs.sum() > 0:  # the last part only
                raise ValueError("no such board")
            return {}, obs

    obs = torch.zeros(100)
    obs[-1] = 1.0
    with pytest.raises(ValueError, match="no such board"):
        Accelerator(CPU, threads=Threads(2)).network(Fails())(obs)


def test_results_come_in_the_order_of_the_tasks() -> None:
    tasks = [lambda number=number: number for number in range(50)]
    assert Threads(3).run(tasks) == [*range(50)]


@pytest.mark.parametrize("rows", [1, 17, 64, 1000, 5001])
@pytest.mark.parametrize("threads", [1, 2, 16])
def test_every_row_is_in_one_part_and_every_thread_has_as_many_parts(rows: int, threads: int) -> None:
    number = number_of_parts(rows, threads)
    if number > 1:
        parts = split(torch.arange(rows), number)
        assert torch.equal(torch.cat(parts), torch.arange(rows))  # type: ignore[arg-type]
        assert min(map(len, parts)) >= MIN_ROWS
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    if rows >= threads * MIN_ROWS:
        assert number % threads == 0


def test_the_parameters_of_a_network_are_what_its_parts_share() -> None:
    network, obs = gaussian_mlp(40)
    learned(Accelerator(CPU, threads=Threads(2)), network, obs, value_only)
    frozen = next(network.parameters()).requires_grad_(False)
    _, gradients = learned(Accelerator(CPU, threads=Threads(2)), network, obs, policy_and_value)
    assert gradients[0] is None
    assert not frozen.requires_grad
    assert any(g is not None and g.abs().sum() > 0 for g in itertools.islice(gradients, 1, None))
