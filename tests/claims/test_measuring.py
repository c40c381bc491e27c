"""The measuring algorithms count and average what they say they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from ppo_cli.advantages import gae
from ppo_cli.algorithms.natural_gradient import flatten
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.algorithms.trpo import TRPO
from ppo_cli.claims.measuring.clip_sides import ClipSides, incentive, sides
from ppo_cli.claims.measuring.gradient_noise import ESTIMATORS, GradientNoise, squared_mean, trajectory_gradients
from ppo_cli.claims.measuring.held_out_trpo import HeldOutTRPO
from ppo_cli.claims.measuring.update_cost import PeakMemory, UpdateCost
from ppo_cli.cli.declared import declared_settings
from ppo_cli.envs.cartpole import CartPole
from ppo_cli.train_state import TrainState
from ppo_cli.types import Rollout, map_tensors
from tests.helpers import learner, on_policy

CONFIGS = Path(__file__).parent.parent.parent / "configs/algo/claims"


def state_and_rollout(num_steps: int = 16, num_envs: int = 4) -> tuple[TrainState, Rollout]:
    state = learner(CartPole(num_envs=num_envs))
    rollout = on_policy(state.actor_critic, 3, num_steps, num_envs)
    return state, replace(rollout, action=rollout.action % 2)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_is_the_declaration_of_the_class(path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    declared = declared_settings(written.pop("algo")["_target_"]) or {}
    declared.pop("ppo", None)  # made from the other fields
    assert written == {name: setting.default for name, setting in declared.items()}


def test_squared_mean_is_exact_for_two_samples() -> None:
    assert squared_mean(torch.tensor([[1.0, 2.0], [3.0, -1.0]])).item() == 1 * 3 - 2 * 1


def test_squared_mean_has_no_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.tensor([0.5, 0.0, 0.0]) + torch.randn(20_000, 4, 3, generator=generator)
    estimates = torch.stack([squared_mean(each) for each in samples])
    assert estimates.mean().item() == pytest.approx(0.25, abs=4 * estimates.std().item() / 20_000**0.5)
    naive = samples.mean(dim=1).square().sum(dim=1).mean().item()
    assert naive == pytest.approx(0.25 + 3 / 4, abs=0.05)  # what the mean of four would say


def test_the_trajectories_gradients_average_to_the_gradient_of_the_whole_rollout() -> None:
    state, rollout = state_and_rollout()
    advantage = gae(rollout, gamma=0.99, gae_lambda=0.5)
    gradients = trajectory_gradients(state.actor_critic, rollout, [advantage, 2 * advantage])
    policy, _ = state.actor_critic(map_tensors(lambda x: x.flatten(0, 1), rollout.obs))
    loss = (policy.log_prob(rollout.action.flatten()) * advantage.flatten()).mean()
    parameters = list(state.actor_critic.parameters())
    whole = flatten(torch.autograd.grad(loss, parameters, materialize_grads=True))
    torch.testing.assert_close(gradients[0].mean(dim=0), whole)
    torch.testing.assert_close(gradients[1], 2 * gradients[0])


def test_noise_and_bias_vanish_where_all_trajectories_are_the_same() -> None:
    state, rollout = state_and_rollout()
    same = map_tensors(lambda x: x[:, :1].expand(x.shape).clone(), rollout)
    metrics = GradientNoise(gamma=0.99).measure(state.actor_critic, same)
    for name in ESTIMATORS:
        signal = metrics[f"noise/{name}/signal"].item()
        assert signal > 0
        assert metrics[f"noise/{name}/variance"].item() == pytest.approx(0, abs=1e-4 * signal)
    assert metrics["noise/lambda_1/bias"].item() == 0
    assert metrics["noise/lambda_0/bias"].item() > 0


def test_first_the_policy_learns_then_the_critic_then_nothing() -> None:
    algorithm = GradientNoise(num_epochs=1, num_minibatches=2, policy_until=0.3, critic_until=0.6)
    state, rollout = state_and_rollout()
    actor, critic = state.actor_critic.policy_head, state.actor_critic.value_head
    assert isinstance(actor, nn.Module)
    assert isinstance(critic, nn.Module)
    moved = []
    for progress in (0.0, 0.3, 0.6):
        before = [flatten([weight.detach().clone() for weight in part.parameters()]) for part in (actor, critic)]
        state.env_steps = round(progress * state.total_env_steps)
        algorithm.update(state, rollout)
        after = [flatten([weight.detach() for weight in part.parameters()]) for part in (actor, critic)]
        moved.append([not torch.equal(*each) for each in zip(before, after, strict=True)])
    assert moved == [[True, True], [False, True], [False, False]]


def test_the_incentive_is_the_advantage_inside_and_nothing_beyond_on_the_favoured_side() -> None:
    ratio = torch.tensor([0.7, 1.0, 1.3, 0.7, 1.0, 1.3])
    advantage = torch.tensor([2.0, 2.0, 2.0, -3.0, -3.0, -3.0])
    assert incentive(ratio, advantage, torch.tensor(0.2)).tolist() == [2.0, 2.0, 0.0, 0.0, -3.0, -3.0]


def test_sides_are_counted_over_valid_samples() -> None:
    ratio = torch.tensor([1.3, 0.7, 1.3, 0.7, 1.0, 1.3])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
    valid = torch.tensor([True] * 5 + [False])
    metrics = {name: value.item() for name, value in sides(ratio, advantage, valid, torch.tensor(0.2)).items()}
    shares = [metrics[f"clip/{side}"] for side in ("good_above", "good_below", "bad_above", "bad_below")]
    assert shares == pytest.approx([0.2] * 4)
    assert (metrics["clip/samples"], metrics["clip/pushed_further"], metrics["clip/silenced_elsewhere"]) == (5, 0, 0)


def test_clip_sides_learns_as_ppo_does() -> None:
    updated = []
    for algorithm in (ClipSides(num_epochs=2), PPO(num_epochs=2)):
        state, rollout = state_and_rollout()
        algorithm.update(state, rollout)
        updated.append(flatten([weight.detach() for weight in state.actor_critic.parameters()]))
    assert torch.equal(*updated)


def test_held_out_trpo_learns_from_the_first_half_of_the_environments_only() -> None:
    updated = []
    for algorithm in (HeldOutTRPO(critic_epochs=1), TRPO(critic_epochs=1)):
        state, rollout = state_and_rollout(num_envs=8)
        part = rollout if isinstance(algorithm, HeldOutTRPO) else map_tensors(lambda x: x[:, :4], rollout)
        metrics = algorithm.update(state, part)
        updated.append(flatten([weight.detach() for weight in state.actor_critic.parameters()]))
        assert float(metrics["losses/kl"]) <= 0.01
        assert ("trpo/held_out_kl" in metrics) == isinstance(algorithm, HeldOutTRPO)
    assert torch.equal(*updated)


@pytest.mark.parametrize(
    ("measured", "forward", "backward", "steps"), [("vpg", 2, 1, 1), ("a2c", 2, 1, 1), ("ppo", 4, 4, 16)]
)
def test_passes_are_counted(measured: str, forward: float, backward: float, steps: float) -> None:
    state, rollout = state_and_rollout()
    metrics = UpdateCost(measured=measured).update(state, rollout)  # type: ignore[arg-type]
    counted = [metrics[f"cost/{name}"] for name in ("forward_passes", "backward_passes", "gradient_steps")]
    assert counted == [forward, backward, steps]
    assert metrics["cost/seconds"] > 0
    assert metrics["cost/parameters"] == sum(weight.numel() for weight in state.actor_critic.parameters())


def test_trpo_takes_a_pass_back_through_the_actor_for_every_product_with_the_fisher_matrix() -> None:
    state, rollout = state_and_rollout()
    metrics = UpdateCost(measured="trpo").update(state, rollout)
    backward = metrics["cost/backward_passes"]
    # of the surrogate, of the KL, of at most 10 products and the curvature: half a pass each; and one of the critic's
    assert 2 <= backward <= (1 + 1 + 10 + 1 + 1) / 2
    assert backward == int(2 * backward) / 2


def test_peak_memory_counts_what_lives_at_the_same_time() -> None:
    kept = torch.zeros(1000)
    with PeakMemory() as memory:
        for _ in range(3):
            kept = torch.ones(1000) + kept.view(10, 100).flatten()
        first = torch.zeros(5000)
        del first
        torch.zeros(2000)
    assert memory.peak == 4 * (1000 + 5000)  # the last sum and the largest


def test_a_view_and_a_step_in_place_take_no_memory() -> None:
    weights = torch.zeros(1000)
    with PeakMemory() as memory:
        weights.add_(1)
        weights[:10].t()
    assert memory.peak == 0
