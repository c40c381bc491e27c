from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli.advantages import td_error
from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.types import Batch, map_tensors
from tests.algorithms.test_ppo import DoubleMLP, network
from tests.helpers import learner, on_policy, random_batch


def reference_loss(a2c: A2C, actor_critic: nn.Module, batch: Batch) -> Tensor:
    """Sample by sample in Python, on the valid samples alone."""
    policy, value = actor_critic(batch.obs)
    rows = [b for b in range(len(batch.action)) if batch.valid[b]]
    advantages = batch.advantage[rows]
    if a2c.standardize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    total = torch.zeros((), dtype=torch.float64)
    for advantage, b in zip(advantages, rows, strict=True):
        log_probs = policy.log_probs[b]
        entropy = -(log_probs.exp() * log_probs).sum()
        error = (value[b] - batch.value_target[b]) ** 2
        objective = log_probs[batch.action[b]] * advantage - a2c.value_coef * error + a2c.entropy_coef * entropy
        total = total - objective / len(rows)
    return total


@pytest.mark.parametrize("all_valid", [True, False], ids=["all valid", "some dead"])
@pytest.mark.parametrize("a2c", [A2C(), A2C(standardize_advantage=False, entropy_coef=0.2, value_coef=1.0)], ids=repr)
def test_loss_and_gradient_equal_a_hand_written_float64_reference(a2c: A2C, all_valid: bool) -> None:
    batch = random_batch(3, all_valid=all_valid)
    actor_critic = network()
    loss, _ = a2c.loss(actor_critic, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    double = network().double()
    reference_batch = map_tensors(lambda x: x.double() if x.is_floating_point() else x, batch)
    expected = reference_loss(a2c, DoubleMLP(double), reference_batch)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(actor_critic.parameters(), double.parameters(), strict=True):
        assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("all_valid", [True, False], ids=["all valid", "some dead"])
@pytest.mark.parametrize("standardize_advantage", [True, False])
def test_the_first_gradient_of_ppo_is_that_of_a2c_with_the_same_coefficients(
    standardize_advantage: bool, all_valid: bool
) -> None:
    batch = random_batch(0, all_valid=all_valid)
    with torch.no_grad():
        policy, _ = network()(batch.obs)
    batch = replace(batch, policy=policy, log_prob=policy.log_prob(batch.action))
    actor_critic, proximal = network(), network()
    a2c = A2C(entropy_coef=0.03, value_coef=0.7, standardize_advantage=standardize_advantage)
    ppo = PPO(value_coef=0.7, standardize_advantage=standardize_advantage)
    a2c.loss(actor_critic, batch)[0].backward()  # type: ignore[no-untyped-call]
    ppo.loss(proximal, batch, torch.tensor(0.2), torch.tensor(0.03))[0].backward()  # type: ignore[no-untyped-call]
    for ours, theirs in zip(actor_critic.parameters(), proximal.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_one_update_of_ppo_on_the_whole_batch_is_one_of_a2c() -> None:
    rollout = on_policy(network(), 0)
    state, proximal = (learner(ActionProbe(4), network=network()) for _ in range(2))
    A2C(gae_lambda=0.9).update(state, rollout)
    PPO(gae_lambda=0.9, num_epochs=1, num_minibatches=1).update(proximal, rollout)
    for ours, theirs in zip(state.actor_critic.parameters(), proximal.actor_critic.parameters(), strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_by_default_the_advantage_is_the_one_step_td_error() -> None:
    rollout = on_policy(network(), 0)
    a2c = A2C(standardize_advantage=False, value_coef=0.0, entropy_coef=0.0)
    metrics = a2c.update(learner(ActionProbe(4), network=network()), rollout)
    expected = -(rollout.log_prob * td_error(rollout, gamma=a2c.gamma)).mean()
    assert metrics["losses/policy_loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_kl_of_the_step_is_reported() -> None:
    rollout = on_policy(network(), 0)
    state = learner(ActionProbe(4), network=network(), learning_rate=0.05)
    metrics = A2C().update(state, rollout)
    with torch.no_grad():
        policy, _ = state.actor_critic(rollout.obs.flatten(0, 1))  # type: ignore[union-attr]
    old = map_tensors(lambda x: x.flatten(0, 1), rollout.policy)
    assert metrics["losses/kl"].item() == pytest.approx(old.kl(policy).mean().item(), rel=1e-5)
    assert metrics["losses/kl"].item() > 1e-3
