from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from ppo_cli.algorithms.ppo import PPO
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.faults import NonFiniteError
from ppo_cli.schedules import schedule_factor
from ppo_cli.train_state import TrainState
from tests.helpers import learner, random_rollout
from tests.test_rollout import EchoNetwork


def single_weight(learning_rate: float = 0.1) -> TrainState:
    state = learner(ActionProbe(1), network=EchoNetwork(), learning_rate=learning_rate)
    state.optimizer = torch.optim.SGD(state.actor_critic.parameters(), lr=learning_rate)
    return state


def test_a_gradient_longer_than_the_limit_is_scaled_down_to_it_and_reported_as_it_was() -> None:
    state = single_weight(learning_rate=0.1)
    weight = next(state.actor_critic.parameters())
    grad_norm = state.descend(3.0 * weight.sum(), max_grad_norm=0.5)
    assert grad_norm.item() == 3.0
    assert weight.item() == pytest.approx(-0.1 * 0.5, rel=1e-5)


def test_the_norm_is_global_over_all_parameters() -> None:
    state = learner(ActionProbe(1))
    loss = torch.stack([p.sum() for p in state.actor_critic.parameters()]).sum()
    count = sum(p.numel() for p in state.actor_critic.parameters())
    assert state.descend(loss, max_grad_norm=1.0).item() == pytest.approx(math.sqrt(count), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_step(bad: float) -> None:
    state = single_weight()
    weight = next(state.actor_critic.parameters())
    before = weight.detach().clone()
    with pytest.raises(NonFiniteError, match="the step was not taken"):
        state.descend(bad * weight.sum(), max_grad_norm=0.5)
    assert torch.equal(weight, before)


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ("constant", 0.9, 1.0),
        ("linear", 0.0, 1.0),
        ("linear", 0.25, 0.75),
        ("linear", 1.0, 0.0),
        ("linear", 1.5, 0.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
    ],
)
def test_schedules_by_hand(schedule: str, progress: float, factor: float) -> None:
    assert schedule_factor(schedule, progress) == pytest.approx(factor)  # type: ignore[arg-type]


def test_a_schedule_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="constant, linear or cosine, got 'quadratic'"):
        schedule_factor("quadratic", 0.5)  # type: ignore[arg-type]


def test_the_annealed_learning_rate_reaches_the_optimizer() -> None:
    state = learner(ActionProbe(1), learning_rate=0.4, total_env_steps=100)
    state.learning_rate_schedule = "linear"
    state.env_steps = 75
    state.begin_update()
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(("kl", "factor"), [(0.021, 1 / 1.5), (0.019, 1.0), (0.006, 1.0), (0.004, 1.5)])
def test_the_kl_adaptive_learning_rate_moves_against_the_kl(kl: float, factor: float) -> None:
    state = learner(ActionProbe(1), learning_rate=1e-3)
    state.learning_rate_schedule = "kl_adaptive"
    state.begin_update()
    state.end_update(10, torch.tensor(kl))
    assert state.current_learning_rate == pytest.approx(1e-3 * factor)


def test_the_kl_adaptive_learning_rate_stays_within_its_bounds() -> None:
    state = learner(ActionProbe(1), learning_rate=1e-3)
    state.learning_rate_schedule = "kl_adaptive"
    for _ in range(30):
        state.end_update(1, torch.tensor(1.0))
    assert state.current_learning_rate == 1e-5
    for _ in range(30):
        state.end_update(1, torch.tensor(0.0))
    assert state.current_learning_rate == 1e-2


@pytest.mark.parametrize(("rate", "kl"), [(1e-6, 1.0), (0.05, 0.0)], ids=["below the bounds", "above the bounds"])
def test_a_learning_rate_outside_its_bounds_is_not_moved_the_wrong_way(rate: float, kl: float) -> None:
    state = learner(ActionProbe(1), learning_rate=rate)
    state.learning_rate_schedule = "kl_adaptive"
    state.end_update(1, torch.tensor(kl))
    assert state.current_learning_rate == rate


@pytest.mark.parametrize(("then", "expected"), [(1e-3, 1e-3 / 1.5), (8e-3, 8e-3)], ids=["the same", "another one"])
def test_an_adapted_learning_rate_is_taken_up_unless_the_user_set_another_one(then: float, expected: float) -> None:
    first, second = learner(ActionProbe(1), learning_rate=1e-3), learner(ActionProbe(1), learning_rate=then)
    first.learning_rate_schedule = second.learning_rate_schedule = "kl_adaptive"
    first.end_update(1, torch.tensor(1.0))
    second.load_state_dict(first.state_dict())
    second.begin_update()
    assert second.current_learning_rate == pytest.approx(expected)


def test_a_restored_state_updates_exactly_as_the_one_it_was_saved_from() -> None:
    ppo = PPO(num_minibatches=5)
    env = ActionProbe(4)

    def fresh() -> TrainState:
        torch.manual_seed(0)
        from tests.algorithms.test_ppo import network

        return learner(env, network=network(), seed=3)

    first = fresh()
    ppo.update(first, random_rollout(0))
    saved = first.state_dict()
    saved = {key: value for key, value in saved.items()}
    second = fresh()
    second.load_state_dict(torch.load(_roundtrip(saved), weights_only=True))
    ppo.update(first, random_rollout(1))
    ppo.update(second, random_rollout(1))
    for ours, theirs in zip(first.actor_critic.parameters(), second.actor_critic.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_of_some_parameters_leaves_the_others_bit_for_bit() -> None:
    state = learner(ActionProbe(1), learning_rate=0.1)
    loss = torch.stack([p.sum() for p in state.actor_critic.parameters()]).sum()
    state.descend(loss, max_grad_norm=1.0)  # so that the optimizer has moments of all
    before = {name: parameter.detach().clone() for name, parameter in state.actor_critic.named_parameters()}
    value_head = list(state.actor_critic.value_head.parameters())  # type: ignore[union-attr]
    loss = torch.stack([p.sum() for p in state.actor_critic.parameters()]).sum()
    grad_norm = state.descend(loss, 10.0, value_head)
    assert grad_norm.item() == pytest.approx(math.sqrt(sum(p.numel() for p in value_head)))
    moved = {name for name, p in state.actor_critic.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"value_head.weight", "value_head.bias"}


def test_numbers_that_an_algorithm_moves_are_part_of_the_checkpoint() -> None:
    state, other = learner(ActionProbe(1)), learner(ActionProbe(1))
    state.algorithm_state["kl_coef"] = 0.25
    other.load_state_dict(torch.load(_roundtrip(state.state_dict()), weights_only=True))
    assert other.algorithm_state == {"kl_coef": 0.25}
    older = {key: value for key, value in state.state_dict().items() if key != "algorithm_state"}
    other.load_state_dict(older)
    assert other.algorithm_state == {}


def _roundtrip(content: object) -> object:
    import io

    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


def test_a_small_network_overfits_one_batch() -> None:
    state = learner(ActionProbe(4), learning_rate=1e-2)
    target = torch.tensor([1.0, -1.0])
    obs = torch.tensor([[0.5], [-0.5]])
    for _ in range(200):
        value = state.evaluate(lambda network: network(obs)[1])
        loss = (value - target).square().mean()
        state.descend(loss, 10.0)
    assert_close(value.detach(), target, atol=0.05, rtol=0)
