from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli.accelerate import Accelerator
from ppo_cli.advantages import gae, standardize
from ppo_cli.algorithms.natural_gradient import flatten
from ppo_cli.algorithms.trpo import TRPO, dependencies
from ppo_cli.distributions import Categorical, Gaussian
from ppo_cli.envs.base import VecEnv
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.faults import NonFiniteError
from ppo_cli.networks.board import Board
from ppo_cli.networks.mlp import MLP
from ppo_cli.rollout import Collector
from ppo_cli.types import Batch, Obs, Rollout, map_tensors, take, training_batch
from tests.algorithms.test_natural_gradient import SmallPolicy, explicit_hessian
from tests.helpers import learner, on_policy

BOX = spaces.Box(-10, 10, (4,))
MASKED = spaces.Dict({"obs": BOX, "legal": spaces.MultiBinary(3)})
KINDS = ("categorical", "masked", "gaussian")


def network(kind: str = "categorical", *, shared: bool = False, sharpness: float = 50.0) -> MLP:
    """One that already prefers some actions: at 0.01 times its usual scale every policy looks uniform."""
    torch.manual_seed(0)
    actions: spaces.Space[object] = spaces.Box(-1, 1, (2,)) if kind == "gaussian" else spaces.Discrete(3)  # type: ignore[assignment]
    made = MLP(MASKED if kind == "masked" else BOX, actions, hidden=(16,), shared=shared)
    made.num_masked = 3 if kind == "masked" else 0  # type: ignore[assignment]
    with torch.no_grad():
        head = made.policy_head.mean if kind == "gaussian" else made.policy_head.logits  # type: ignore[union-attr]
        head.weight.mul_(sharpness)  # type: ignore[union-attr, operator]
    return made


def prepared(trpo: TRPO, rollout: Rollout) -> Batch:
    """The batch that the steps of an update work on."""
    batch = training_batch(rollout, gae(rollout, gamma=trpo.gamma, gae_lambda=trpo.gae_lambda))
    return replace(batch, advantage=standardize(batch.advantage, batch.valid))


def outputs(actor_critic: nn.Module, obs: Obs) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        policy, value = actor_critic(obs)
    return policy.mode() if not isinstance(policy, Categorical) else policy.log_probs, value


@given(
    st.integers(0, 10_000), st.sampled_from(KINDS), st.booleans(), st.booleans(), st.sampled_from([0.001, 0.01, 0.3])
)
@settings(max_examples=40, deadline=None)
def test_every_update_improves_the_surrogate_within_the_trust_region_or_is_undone_bit_for_bit(
    seed: int, kind: str, shared: bool, all_valid: bool, max_kl: float
) -> None:
    actor_critic = network(kind, shared=shared)
    trpo = TRPO(max_kl=max_kl, num_line_search_steps=3)
    batch = prepared(trpo, on_policy(actor_critic, seed, all_valid=all_valid))
    before = copy.deepcopy(actor_critic)
    metrics, parameters = trpo.improve_policy(actor_critic, batch)
    if not metrics["trpo/accepted"]:
        assert metrics["losses/kl"] == 0
        assert torch.equal(flatten(list(actor_critic.parameters())), flatten(list(before.parameters())))
        return
    with torch.no_grad():
        old, new = before(batch.obs)[0], actor_critic(batch.obs)[0]
    kl = old.kl(new)[batch.valid].double().mean()
    assert 0 < kl.item() <= max_kl * (1 + 1e-4)
    assert metrics["losses/kl"].item() <= max_kl
    assert metrics["losses/kl"].item() == pytest.approx(kl.item(), rel=1e-3, abs=1e-7)
    ratio = (new.log_prob(batch.action) - old.log_prob(batch.action)).exp()
    change = ((ratio - 1) * batch.advantage)[batch.valid].mean()
    assert change.item() > 0
    assert len(parameters) == len(list(actor_critic.parameters())) - (2 if shared else 4)  # the critic's


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_is_that_of_a_direct_solve_with_the_explicit_fisher_matrix(kind: str) -> None:
    policy = SmallPolicy(kind)

    class WithCritic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, obs: Tensor) -> tuple[object, Tensor]:
            return self.policy(obs), obs[:, 0]

    actor_critic, trpo = WithCritic(), TRPO(max_kl=0.02, num_cg_iterations=500, damping=0.01)
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(11, 4, dtype=torch.float64, generator=generator)
    old = map_tensors(Tensor.detach, policy(obs))
    action, advantage = (
        old.sample(old.noise(1, generator)[0]),
        torch.randn(11, dtype=torch.float64, generator=generator),
    )
    valid = torch.arange(11) != 4
    batch = Batch(obs, action, old.log_prob(action), obs[:, 0], advantage, obs[:, 0], valid, old)
    surrogate, _ = trpo.objective(actor_critic, batch)
    parameters, gradient = dependencies(surrogate, actor_critic)
    step, residual = trpo.natural_step(actor_critic, batch, parameters, gradient)

    names = [name for name, _ in policy.named_parameters()]
    sizes = [parameter.numel() for parameter in parameters]

    def kl(flat: Tensor) -> Tensor:
        parts = {n: x.view_as(p) for n, x, p in zip(names, flat.split(sizes), parameters, strict=True)}
        return old.kl(torch.func.functional_call(policy, parts, obs))[valid].mean()

    fisher = explicit_hessian(kl, flatten(parameters).detach()) + 0.01 * torch.eye(len(gradient), dtype=torch.float64)
    log_prob_gradient = (advantage * policy(obs).log_prob(action))[valid].mean()
    assert_close(gradient, flatten(torch.autograd.grad(log_prob_gradient, parameters)))  # the policy gradient
    direction = torch.linalg.solve(fisher, gradient)
    expected = direction * (2 * 0.02 / direction.dot(fisher @ direction)).sqrt()
    assert residual.item() < 1e-5
    assert_close(step, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_search_that_fails_restores_every_parameter_bit_for_bit(kind: str) -> None:
    actor_critic, trpo = network(kind), TRPO()
    batch = prepared(trpo, on_policy(actor_critic, 0))
    parameters, gradient = dependencies(trpo.objective(actor_critic, batch)[0], actor_critic)
    before = [parameter.detach().clone() for parameter in parameters]
    search = trpo.line_search(actor_critic, batch, parameters, -1e-2 * gradient)  # downhill: no length of it helps
    assert search == (False, trpo.num_line_search_steps)
    assert all(torch.equal(now, then) for now, then in zip(parameters, before, strict=True))


def test_a_step_that_is_too_long_is_shortened_until_the_kl_allows_it() -> None:
    actor_critic, trpo = network(), TRPO(max_kl=0.01, num_line_search_steps=40)
    batch = prepared(trpo, on_policy(actor_critic, 0))
    parameters, gradient = dependencies(trpo.objective(actor_critic, batch)[0], actor_critic)
    step, _ = trpo.natural_step(actor_critic, batch, parameters, gradient)
    search = trpo.line_search(actor_critic, batch, parameters, 20 * step)
    assert search.accepted
    assert search.num_steps > 8  # 0.8^8 x 20 is still more than 3 times the natural step
    with torch.no_grad():
        assert 0.003 < trpo.objective(actor_critic, batch)[1] <= 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
def test_the_critics_steps_change_its_values_but_no_bit_of_the_policy(kind: str, shared: bool) -> None:
    actor_critic, trpo = network(kind, shared=shared), TRPO()
    state = learner(ActionProbe(4), network=actor_critic, learning_rate=0.01)
    rollout = on_policy(actor_critic, 0)
    trpo.update(state, rollout)  # gives the optimizer moments of whatever it may touch
    batch = prepared(trpo, rollout)
    parameters, _ = dependencies(trpo.objective(actor_critic, batch)[0], actor_critic)
    policy, value = outputs(actor_critic, batch.obs)
    first = trpo.fit_critic(state, batch, parameters)
    after, new_value = outputs(actor_critic, batch.obs)
    assert torch.equal(after, policy)
    assert not torch.equal(new_value, value)
    assert trpo.fit_critic(state, batch, parameters)["losses/value_loss"] < first["losses/value_loss"]


def test_a_shared_trunk_belongs_to_the_policy() -> None:
    env = MinesweeperVecEnv(2, height=4, width=4, mines=3, backend="reference")
    board = Board(env.single_observation_space, env.single_action_space, channels=8)
    policy, _ = board(env.reset([1, 2]))
    names = {parameter: name.partition(".")[0] for name, parameter in board.named_parameters()}
    parameters, gradient = dependencies(policy.log_prob(torch.tensor([0, 1])).sum(), board)
    assert {names[parameter] for parameter in parameters} == {"convolutions", "policy_head"}  # type: ignore[index]
    assert len(gradient) == sum(parameter.numel() for parameter in parameters)
    parameters, _ = dependencies(board(env.reset([1, 2]))[1].sum(), board)
    assert {names[parameter] for parameter in parameters} == {"convolutions", "critic_hidden", "value_head"}  # type: ignore[index]


def test_rows_that_are_not_valid_have_no_say() -> None:
    trpo = TRPO()
    rollout = on_policy(network(), 3, all_valid=False)
    batch = prepared(trpo, rollout)
    assert 0.5 < batch.valid.float().mean() < 1
    first, second = network(), network()
    trpo.improve_policy(first, batch)
    poison = torch.where(batch.valid, 0.0, 1e9)
    assert isinstance(batch.obs, Tensor)
    poisoned = replace(batch, obs=batch.obs + poison.unsqueeze(-1), advantage=batch.advantage + poison)
    trpo.improve_policy(second, poisoned)
    kept = batch.valid.nonzero().squeeze(-1)
    third = network()
    trpo.improve_policy(third, take(batch, kept))
    for other in (second, third):
        for ours, theirs in zip(first.parameters(), other.parameters(), strict=True):
            assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_a_fraction_of_1_takes_every_sample_once_and_a_smaller_one_that_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def remembered(batch: Batch, index: Tensor) -> Batch:
        seen.append(index.tolist())
        return take(batch, index)

    monkeypatch.setattr("ppo_cli.algorithms.trpo.take", remembered)
    for fraction in (1.0, 0.25, 1e-6):
        actor_critic, trpo = network(), TRPO(fisher_fraction=fraction)
        trpo.improve_policy(actor_critic, prepared(trpo, on_policy(actor_critic, 0)))
    assert seen[0] == list(range(64))
    assert len(set(seen[1])) == 16
    assert seen[2] == [0]


def test_only_the_critic_runs_in_bfloat16() -> None:
    class Watched(MLP):
        def forward(self, obs: Obs) -> tuple[object, Tensor]:  # type: ignore[override]
            seen.append((torch.is_autocast_enabled("cpu"), in_critic))
            return super().forward(obs)

    seen: list[tuple[bool, bool]] = []
    in_critic = False
    actor_critic = network()
    actor_critic.__class__ = Watched
    state = learner(ActionProbe(4), network=actor_critic)
    state.accelerator = Accelerator(torch.device("cpu"), "bfloat16")
    trpo = TRPO()
    batch = prepared(trpo, on_policy(network(), 0))
    metrics, parameters = trpo.improve_policy(actor_critic, batch)
    in_critic = True
    trpo.fit_critic(state, batch, parameters)
    assert set(seen) == {(False, False), (True, True)}
    assert metrics["losses/kl"] <= trpo.max_kl


def test_a_reward_that_is_not_a_number_stops_before_the_step() -> None:
    actor_critic, trpo = network(), TRPO()
    before = flatten(list(actor_critic.parameters())).detach()
    batch = prepared(trpo, on_policy(actor_critic, 0))
    with pytest.raises(NonFiniteError, match="the step was not taken"):
        trpo.improve_policy(actor_critic, replace(batch, advantage=batch.advantage * torch.nan))
    assert torch.equal(flatten(list(actor_critic.parameters())), before)


def test_where_no_action_is_better_than_another_nothing_moves() -> None:
    actor_critic, trpo = network(), TRPO()
    batch = prepared(trpo, on_policy(actor_critic, 0))
    before = flatten(list(actor_critic.parameters())).detach()
    metrics, _ = trpo.improve_policy(actor_critic, replace(batch, advantage=torch.zeros(64)))
    assert metrics["trpo/accepted"] == 0
    assert all(figure.isfinite() for figure in metrics.values())
    assert torch.equal(flatten(list(actor_critic.parameters())), before)


@pytest.mark.parametrize("name", ["minesweeper", "cartpole", "cartpole, shared trunk", "pendulum"])
def test_every_update_of_a_run_keeps_to_the_trust_region(name: str) -> None:
    torch.manual_seed(1)
    made: nn.Module
    if name == "minesweeper":
        env: VecEnv = MinesweeperVecEnv(8, height=4, width=4, mines=3, backend="reference")
        made = Board(env.single_observation_space, env.single_action_space, channels=32)
    else:
        env = GymnasiumVecEnv(16, id="Pendulum-v1" if name == "pendulum" else "CartPole-v1", vectorization="sync")
        made = MLP(env.single_observation_space, env.single_action_space, hidden=(16,), shared="shared" in name)
    state, trpo = learner(env, network=made), TRPO(critic_epochs=1)
    collector = Collector(env, state, 16, EpisodeWindow())
    accepted = []
    for _ in range(15):
        rollout = collector.collect()
        old = map_tensors(lambda x: x.flatten(0, 1).clone(), rollout.policy)
        metrics = trpo.update(state, rollout)
        with torch.no_grad():
            new, _ = made(map_tensors(lambda x: x.flatten(0, 1), rollout.obs))
        valid = rollout.valid.flatten()
        assert metrics["losses/kl"].item() <= trpo.max_kl
        assert old.kl(new)[valid].mean().item() <= trpo.max_kl * 1.001
        accepted.append(metrics["trpo/accepted"].item())
    assert sum(accepted) >= 12


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_first_step_is_that_of_sb3_contrib(env_id: str) -> None:
    theirs = pytest.importorskip("sb3_contrib").TRPO(
        "MlpPolicy", env_id, n_steps=256, seed=3, n_critic_updates=0, cg_max_steps=10, policy_kwargs={"net_arch": [8]}
    )

    class Wrapped(nn.Module):
        """Their network, answering as ours do."""

        def __init__(self) -> None:
            super().__init__()
            self.policy = copy.deepcopy(theirs.policy)

        def forward(self, obs: Tensor) -> tuple[object, Tensor]:
            made = self.policy.get_distribution(obs).distribution
            if env_id == "CartPole-v1":
                return Categorical(made.logits), self.policy.predict_values(obs).squeeze(-1)
            return Gaussian(made.mean, made.stddev.log()), self.policy.predict_values(obs).squeeze(-1)

    _, callback = theirs._setup_learn(256)
    theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, n_rollout_steps=256)
    data = next(iter(theirs.rollout_buffer.get(None)))
    ours = Wrapped()
    discrete = env_id == "CartPole-v1"
    with torch.no_grad():
        policy, value = ours(data.observations)
    advantage = (data.advantages - data.advantages.mean()) / (data.advantages.std() + 1e-8)
    batch = Batch(
        obs=data.observations,
        action=data.actions.long().flatten() if discrete else data.actions,
        log_prob=data.old_log_prob,
        value=value,
        advantage=advantage,
        value_target=data.returns,
        valid=torch.ones(256, dtype=torch.bool),
        policy=policy,
    )
    start = flatten(list(ours.parameters())).detach()
    trpo = TRPO(damping=theirs.cg_damping, max_kl=theirs.target_kl, num_cg_iterations=theirs.cg_max_steps)
    metrics, _ = trpo.improve_policy(ours, batch)
    theirs.train()
    our_step = flatten(list(ours.parameters())).detach() - start
    their_step = flatten(list(theirs.policy.parameters())).detach() - start
    assert metrics["trpo/accepted"] == 1
    assert torch.cosine_similarity(our_step, their_step, dim=0).item() > 0.999
    assert our_step.norm().item() == pytest.approx(their_step.norm().item(), rel=0.01)
