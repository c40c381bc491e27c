from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli import checkpoint
from ppo_cli.algorithms.ppo_kl import KL_COEF_RANGE, PPOKL
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.train_state import TrainState
from ppo_cli.types import Batch, map_tensors
from tests.algorithms.test_ppo import DoubleMLP, network
from tests.helpers import learner, on_policy, random_batch


def reference_loss(ppo_kl: PPOKL, actor_critic: nn.Module, batch: Batch) -> Tensor:
    """Eq. 8 sample by sample in Python, with beta 2 and entropy bonus 0.01, on the valid samples alone."""
    policy, value = actor_critic(batch.obs)
    rows = [b for b in range(len(batch.action)) if batch.valid[b]]
    advantages = batch.advantage[rows]
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    total = torch.zeros((), dtype=torch.float64)
    for advantage, b in zip(advantages, rows, strict=True):
        log_probs, old = policy.log_probs[b], batch.policy.log_probs[b]  # type: ignore[attr-defined]
        ratio = (log_probs[batch.action[b]] - batch.log_prob[b]).exp()
        kl = (old.exp() * (old - log_probs)).sum()
        error = (value[b] - batch.value_target[b]) ** 2
        entropy = -(log_probs.exp() * log_probs).sum()
        total = total - (ratio * advantage - 2 * kl - ppo_kl.value_coef * error + 0.01 * entropy) / len(rows)
    return total


@pytest.mark.parametrize("all_valid", [True, False], ids=["all valid", "some dead"])
def test_loss_and_gradient_equal_a_hand_written_float64_reference(all_valid: bool) -> None:
    batch = random_batch(3, all_valid=all_valid)
    actor_critic, ppo_kl = network(), PPOKL()
    loss, _ = ppo_kl.loss(actor_critic, batch, torch.tensor(2.0), torch.tensor(0.01))
    loss.backward()  # type: ignore[no-untyped-call]
    double = network().double()
    reference_batch = map_tensors(lambda x: x.double() if x.is_floating_point() else x, batch)
    expected = reference_loss(ppo_kl, DoubleMLP(double), reference_batch)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(actor_critic.parameters(), double.parameters(), strict=True):
        assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (0.0, 0.4),
        (0.0199, 0.4),  # below 0.03 / 1.5
        (0.0201, 0.8),
        (0.0449, 0.8),
        (0.0451, 1.6),  # above 0.03 x 1.5
        (9.0, 1.6),
    ],
)
def test_beta_is_halved_below_and_doubled_above_the_target_by_hand(kl: float, expected: float) -> None:
    assert PPOKL(target_kl=0.03).adapted(0.8, kl) == pytest.approx(expected)


def test_beta_stays_within_its_bounds() -> None:
    low = high = 1.0
    for _ in range(100):
        low, high = PPOKL().adapted(low, 0.0), PPOKL().adapted(high, 1.0)
    assert (low, high) == KL_COEF_RANGE


def test_beta_moves_against_the_kl_that_the_whole_update_caused() -> None:
    rollout = on_policy(network(), 0)
    for learning_rate, factor in ((0.05, 2.0), (1e-6, 0.5)):
        state = learner(ActionProbe(4), network=network(), learning_rate=learning_rate)
        metrics = PPOKL(kl_coef=0.6).update(state, rollout)
        with torch.no_grad():
            new, _ = state.actor_critic(rollout.obs.flatten(0, 1))  # type: ignore[union-attr]
        old = map_tensors(lambda x: x.flatten(0, 1), rollout.policy)
        assert metrics["losses/kl_after_update"].item() == pytest.approx(old.kl(new).mean().item(), rel=1e-4, abs=1e-8)
        assert metrics["charts/kl_coef"].item() == pytest.approx(0.6)  # what this update used
        assert state.algorithm_state["kl_coef"] == pytest.approx(0.6 * factor)


def test_a_fixed_beta_stays_and_leaves_no_state() -> None:
    state = learner(ActionProbe(4), network=network(), learning_rate=0.05)
    ppo_kl = PPOKL(kl_coef=0.6, kl_coef_schedule="fixed")
    for seed in range(2):
        metrics = ppo_kl.update(state, on_policy(network(), seed))
        assert metrics["charts/kl_coef"].item() == pytest.approx(0.6)
    assert state.algorithm_state == {}


def test_an_adapted_beta_gives_way_to_one_that_the_user_sets() -> None:
    state = learner(ActionProbe(4), network=network(), learning_rate=0.05)
    PPOKL(kl_coef=0.6).update(state, on_policy(network(), 0))
    adapted = state.algorithm_state["kl_coef"]
    for changed, expected in (
        (PPOKL(kl_coef=0.6), adapted),
        (PPOKL(kl_coef=9.0), 9.0),
        (PPOKL(kl_coef=9.0, kl_coef_schedule="fixed"), 9.0),
        (PPOKL(kl_coef=0.6, kl_coef_schedule="fixed"), 0.6),
    ):
        assert changed.current_kl_coef(state.algorithm_state) == expected
    assert PPOKL(kl_coef=0.6).current_kl_coef({"kl_coef": 7.0}) == 7.0  # of a checkpoint from before this was asked


def test_a_larger_beta_keeps_the_policy_nearer() -> None:
    moved = []
    for kl_coef in (0.0, 3.0, 100.0):
        state = learner(ActionProbe(4), network=network(), learning_rate=0.01)
        metrics = PPOKL(kl_coef=kl_coef, num_epochs=10, entropy_coef=0.0).update(state, on_policy(network(), 0))
        moved.append(metrics["losses/kl_after_update"].item())
    assert moved[0] > 1.5 * moved[1] > 3 * moved[2]


def test_a_run_taken_up_from_a_checkpoint_goes_on_with_the_adapted_beta(tmp_path: Path) -> None:
    ppo_kl = PPOKL(num_minibatches=2)

    def fresh() -> TrainState:
        return learner(ActionProbe(4), network=network(), learning_rate=0.05)

    first = fresh()
    for seed in range(3):
        ppo_kl.update(first, on_policy(network(), seed))
    assert first.algorithm_state["kl_coef"] != ppo_kl.kl_coef
    path = checkpoint.save(tmp_path, 1, {"state": first.state_dict()}, keep=1)
    second = fresh()
    second.load_state_dict(checkpoint.load(path)["state"])
    ours, theirs = (ppo_kl.update(state, on_policy(network(), 9)) for state in (first, second))
    assert ours["charts/kl_coef"] == theirs["charts/kl_coef"] != ppo_kl.kl_coef
    for mine, yours in zip(first.actor_critic.parameters(), second.actor_critic.parameters(), strict=True):
        assert torch.equal(mine, yours)
