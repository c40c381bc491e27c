from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli.advantages import gae, standardize
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.distributions import Categorical
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.losses import clipped_surrogate
from ppo_cli.networks.mlp import MLP
from ppo_cli.types import Batch, map_tensors, training_batch
from tests.helpers import learner, random_batch, random_rollout

CLIP, ENTROPY = torch.tensor(0.2), torch.tensor(0.01)


def network(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    actor_critic = MLP(spaces.Box(-10, 10, (4,)), spaces.Discrete(3), hidden=(16,))
    with torch.no_grad():
        actor_critic.policy_head.logits.weight.mul_(100)  # type: ignore[union-attr, operator]
    return actor_critic


def reference_loss(ppo: PPO, actor_critic: nn.Module, batch: Batch) -> Tensor:
    """Eq. 9 sample by sample in Python, on the valid samples alone."""
    policy, value = actor_critic(batch.obs)
    rows = [b for b in range(len(batch.action)) if batch.valid[b]]
    advantages = batch.advantage[rows]
    if ppo.standardize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    total = torch.zeros((), dtype=torch.float64)
    for advantage, b in zip(advantages, rows, strict=True):
        log_probs = policy.log_probs[b]
        ratio = (log_probs[batch.action[b]] - batch.log_prob[b]).exp()
        clipped = min(max(ratio, torch.tensor(1 - 0.2)), torch.tensor(1 + 0.2))
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        error = (value[b] - batch.value_target[b]) ** 2
        if ppo.clip_value:
            moved = batch.value[b] + (value[b] - batch.value[b]).clamp(-ppo.clip_value, ppo.clip_value)
            error = torch.maximum(error, (moved - batch.value_target[b]) ** 2)
        entropy = -(log_probs.exp() * log_probs).sum()
        total = total + (-surrogate + ppo.value_coef * error - 0.01 * entropy) / len(rows)
    return total


@pytest.mark.parametrize("all_valid", [True, False], ids=["all valid", "some dead"])
@pytest.mark.parametrize("ppo", [PPO(), PPO(clip_value=0.3), PPO(standardize_advantage=False)], ids=repr)
def test_loss_and_gradient_equal_a_hand_written_float64_reference(ppo: PPO, all_valid: bool) -> None:
    batch = random_batch(3, all_valid=all_valid)
    actor_critic = network()
    loss, _ = ppo.loss(actor_critic, batch, CLIP, ENTROPY)
    loss.backward()  # type: ignore[no-untyped-call]

    double = network().double()
    for head in double.modules():
        if isinstance(head, nn.Linear):
            head.double()
    reference_batch = map_tensors(lambda x: x.double() if x.is_floating_point() else x, batch)
    expected = reference_loss(ppo, DoubleMLP(double), reference_batch)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(actor_critic.parameters(), double.parameters(), strict=True):
        assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]


class DoubleMLP(nn.Module):
    """The same network without its casts to float32."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, obs: Tensor) -> tuple[Categorical, Tensor]:
        logits = self.mlp.policy_head.logits(self.mlp.actor(obs))  # type: ignore[union-attr, operator]
        return Categorical(logits.log_softmax(-1)), self.mlp.value_head(self.mlp.critic(obs)).squeeze(-1)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "gradient"),
    [
        (1.1, 2.0, 2.2, 2.0),
        (1.5, 2.0, 2.4, 0.0),  # beyond 1 + clip on the favoured side: nothing left to gain
        (0.5, 2.0, 1.0, 2.0),  # the wrong side stays open, so that a mistake can be undone
        (0.5, -2.0, -1.6, 0.0),
        (1.5, -2.0, -3.0, -2.0),
        (0.9, -2.0, -1.8, -2.0),
    ],
)
def test_clipping_removes_the_incentive_on_the_favoured_side_only(
    ratio: float, advantage: float, expected: float, gradient: float
) -> None:
    r = torch.tensor(ratio, requires_grad=True)
    surrogate = clipped_surrogate(r, torch.tensor(advantage), clip=CLIP)
    surrogate.backward()  # type: ignore[no-untyped-call]
    assert surrogate.item() == pytest.approx(expected)
    assert r.grad is not None
    assert r.grad.item() == gradient


def test_on_the_first_minibatch_the_ratio_is_1_the_kl_0_and_nothing_is_clipped() -> None:
    actor_critic = network()
    batch = random_batch(0)
    with torch.no_grad():
        policy, _ = actor_critic(batch.obs)
    batch = replace(batch, policy=policy, log_prob=policy.log_prob(batch.action))
    _, metrics = PPO().loss(actor_critic, batch, CLIP, ENTROPY)
    assert metrics["losses/ratio_max"].item() == pytest.approx(1, abs=1e-6)
    for tag in ("losses/approx_kl", "losses/old_approx_kl", "losses/kl", "losses/clipfrac"):
        assert metrics[tag].item() == pytest.approx(0, abs=1e-6), tag


def test_the_first_gradient_is_that_of_advantage_actor_critic() -> None:
    actor_critic = network()
    batch = random_batch(0)
    with torch.no_grad():
        policy, _ = actor_critic(batch.obs)
    batch = replace(batch, policy=policy, log_prob=policy.log_prob(batch.action))
    loss, _ = PPO(value_coef=0.0).loss(actor_critic, batch, CLIP, torch.tensor(0.0))
    loss.backward()  # type: ignore[no-untyped-call]
    other = network()
    policy, _ = other(batch.obs)
    (-(policy.log_prob(batch.action) * standardize(batch.advantage, batch.valid)).mean()).backward()
    for ours, theirs in zip(actor_critic.actor.parameters(), other.actor.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad)


def test_the_exact_kl_is_the_mean_over_states_of_the_closed_form() -> None:
    actor_critic = network()
    batch = random_batch(4)
    _, metrics = PPO().loss(actor_critic, batch, CLIP, ENTROPY)
    old = torch.distributions.Categorical(logits=batch.policy.log_probs)  # type: ignore[attr-defined]
    new = torch.distributions.Categorical(logits=actor_critic(batch.obs)[0].log_probs)  # type: ignore[attr-defined]
    assert_close(metrics["losses/kl"], torch.distributions.kl_divergence(old, new).mean().detach())


def test_every_epoch_shuffles_anew_and_visits_every_sample_once() -> None:
    state = learner(ActionProbe(4))
    ppo = PPO(num_epochs=3, num_minibatches=5)
    batch = replace(random_batch(0, size=20), advantage=torch.arange(20.0))
    seen = [(epoch, minibatch.advantage.tolist()) for epoch, minibatch in ppo.minibatches(batch, state)]
    assert [epoch for epoch, _ in seen] == [0] * 5 + [1] * 5 + [2] * 5
    orders = [[sample for number, samples in seen if number == epoch for sample in samples] for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_the_target_kl_stops_an_update_before_the_step_that_would_go_further() -> None:
    rollout = random_rollout(0, 32, 4)
    state = learner(ActionProbe(4), learning_rate=0.05, network=network())
    with torch.no_grad():
        policy, value = network()(rollout.obs.flatten(0, 1))  # type: ignore[union-attr]
        rollout = replace(
            rollout,
            policy=map_tensors(lambda x: x.unflatten(0, (32, 4)), policy),
            log_prob=policy.log_prob(rollout.action.flatten()).unflatten(0, (32, 4)),
            value=value.unflatten(0, (32, 4)),
        )
    free = PPO(num_epochs=10).update(state, rollout)
    state = learner(ActionProbe(4), learning_rate=0.05, network=network())
    stopped = PPO(num_epochs=10, target_kl=0.01).update(state, rollout)
    assert free["charts/gradient_steps"].item() == 40
    assert 1 <= stopped["charts/gradient_steps"].item() < 10
    assert stopped["losses/approx_kl"].item() < free["losses/approx_kl"].item()


def test_annealed_coefficients_follow_the_share_of_the_run_that_has_passed() -> None:
    state = learner(ActionProbe(4), network=network(), total_env_steps=1000)
    ppo = PPO(clip=0.4, clip_schedule="linear", entropy_coef=0.1, entropy_schedule="cosine", num_minibatches=1)
    state.env_steps = 750
    metrics = ppo.update(state, random_rollout(0))
    assert metrics["charts/clip"].item() == pytest.approx(0.1)
    assert metrics["charts/entropy_coef"].item() == pytest.approx(0.05 * (1 + math.cos(0.75 * math.pi)))


def test_metrics_are_means_over_all_minibatches_and_name_the_last_epoch_apart() -> None:
    state = learner(ActionProbe(4), learning_rate=0.01, network=network())
    rollout = random_rollout(1)
    ppo = PPO(num_epochs=2, num_minibatches=1)
    metrics = ppo.update(state, rollout)
    fresh = learner(ActionProbe(4), learning_rate=0.01, network=network())
    batch = training_batch(rollout, gae(rollout, gamma=ppo.gamma, gae_lambda=ppo.gae_lambda))
    kls = []
    for _ in range(2):
        loss, each = ppo.loss(fresh.actor_critic, batch, CLIP, ENTROPY)
        fresh.descend(loss, ppo.max_grad_norm)
        kls.append(each["losses/kl"].item())
    assert metrics["losses/kl"].item() == pytest.approx(sum(kls) / 2, rel=1e-3)
    assert metrics["losses/kl_last_epoch"].item() == pytest.approx(kls[1], rel=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gamma", 1.01),
        ("gamma", -0.1),
        ("gae_lambda", 2),
        ("clip", 0),
        ("clip", -1),
        ("clip", math.nan),
        ("clip_value", -0.1),
        ("target_kl", -1),
        ("entropy_coef", -0.01),
        ("value_coef", -1),
        ("num_epochs", 0),
        ("num_minibatches", 0),
        ("max_grad_norm", 0),
        ("clip_schedule", "quadratic"),
        ("entropy_schedule", "never"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(field: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        PPO(**{field: value})  # type: ignore[arg-type]
