from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli.advantages import monte_carlo
from ppo_cli.algorithms.vpg import VPG
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.types import Batch, map_tensors, training_batch
from tests.algorithms.test_ppo import DoubleMLP, network
from tests.helpers import learner, on_policy, random_batch


def reference_loss(vpg: VPG, actor_critic: nn.Module, batch: Batch) -> Tensor:
    """Sample by sample in Python, on the valid samples alone."""
    policy, value = actor_critic(batch.obs)
    rows = [b for b in range(len(batch.action)) if batch.valid[b]]
    advantages = (batch.value_target if vpg.baseline == "none" else batch.advantage)[rows]
    if vpg.standardize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    total = torch.zeros((), dtype=torch.float64)
    for advantage, b in zip(advantages, rows, strict=True):
        log_prob = policy.log_probs[b][batch.action[b]]
        total = total + (-log_prob * advantage + vpg.value_coef * (value[b] - batch.value_target[b]) ** 2) / len(rows)
    return total


@pytest.mark.parametrize("all_valid", [True, False], ids=["all valid", "some dead"])
@pytest.mark.parametrize(
    "vpg", [VPG(), VPG(baseline="none"), VPG(standardize_advantage=False, value_coef=0.1)], ids=repr
)
def test_loss_and_gradient_equal_a_hand_written_float64_reference(vpg: VPG, all_valid: bool) -> None:
    batch = random_batch(3, all_valid=all_valid)
    actor_critic = network()
    loss, _ = vpg.loss(actor_critic, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    double = network().double()
    reference_batch = map_tensors(lambda x: x.double() if x.is_floating_point() else x, batch)
    expected = reference_loss(vpg, DoubleMLP(double), reference_batch)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(actor_critic.parameters(), double.parameters(), strict=True):
        assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_an_update_is_one_step_on_the_reward_to_go_with_or_without_the_value(baseline: str) -> None:
    vpg = VPG(gamma=0.9, baseline=baseline)  # type: ignore[arg-type]
    rollout = on_policy(network(), 0)
    state = learner(ActionProbe(4), network=network())
    vpg.update(state, rollout)
    reference = learner(ActionProbe(4), network=network())
    reward_to_go = monte_carlo(rollout, gamma=0.9)
    policy, value = reference.actor_critic(rollout.obs.flatten(0, 1))  # type: ignore[union-attr]
    advantage = (reward_to_go - rollout.value if baseline == "value" else reward_to_go).flatten()
    advantage = (advantage - advantage.mean()) / advantage.std()
    loss = -(policy.log_prob(rollout.action.flatten()) * advantage).mean()
    reference.descend(loss + 0.5 * (value - reward_to_go.flatten()).square().mean(), 0.5)
    for ours, theirs in zip(state.actor_critic.parameters(), reference.actor_critic.parameters(), strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_without_a_baseline_the_values_of_an_episode_that_ends_do_not_matter() -> None:
    rollout = on_policy(network(), 0)
    ended = torch.zeros_like(rollout.terminated)
    ended[-1] = True
    rollout = replace(rollout, terminated=ended, truncated=torch.zeros_like(ended))
    other = replace(rollout, value=rollout.value + 5, next_value=rollout.next_value - 3)
    for baseline, is_same in (("none", True), ("value", False)):
        vpg = VPG(baseline=baseline, value_coef=0.0, standardize_advantage=False)  # type: ignore[arg-type]
        first, second = (
            vpg.loss(network(), training_batch(r, monte_carlo(r, gamma=vpg.gamma) - r.value))[0].item()
            for r in (rollout, other)
        )
        assert (first == pytest.approx(second, rel=1e-5)) is is_same


def test_the_kl_and_the_ratio_are_those_of_the_policy_after_the_step() -> None:
    rollout = on_policy(network(), 0)
    state = learner(ActionProbe(4), network=network(), learning_rate=0.05)
    metrics = VPG().update(state, rollout)
    with torch.no_grad():
        policy, _ = state.actor_critic(rollout.obs.flatten(0, 1))  # type: ignore[union-attr]
    old = map_tensors(lambda x: x.flatten(0, 1), rollout.policy)
    ratio = (policy.log_prob(rollout.action.flatten()) - rollout.log_prob.flatten()).exp()
    assert metrics["losses/kl"].item() == pytest.approx(old.kl(policy).mean().item(), rel=1e-5)
    assert metrics["losses/kl"].item() > 1e-3
    assert metrics["losses/ratio_max"].item() == pytest.approx(ratio.max().item(), rel=1e-5)
