"""What holds for every algorithm of the ladder."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import pytest
import torch

from ppo_cli.algorithms.a2c import A2C
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.algorithms.ppo_kl import PPOKL
from ppo_cli.algorithms.trpo import TRPO
from ppo_cli.algorithms.vpg import VPG
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.types import Rollout
from tests.algorithms.test_trpo import network
from tests.helpers import learner, on_policy

LADDER: tuple[Any, ...] = (VPG, A2C, TRPO, PPO, PPOKL)
COMMON_TAGS = {
    "losses/policy_loss",
    "losses/value_loss",
    "losses/entropy",
    "losses/kl",
    "losses/approx_kl",
    "losses/old_approx_kl",
    "losses/ratio_max",
    "losses/grad_norm",
    "losses/explained_variance",
}
UNIT = {"gamma", "gae_lambda"}
COUNTS = {"num_epochs", "num_minibatches", "num_cg_iterations", "num_line_search_steps", "critic_epochs"}
ABOVE_0 = {"clip", "max_grad_norm", "max_kl", "fisher_fraction", "line_search_shrink"}
BAD: dict[str, list[Any]] = {
    **{name: [-0.1, 1.01, math.nan] for name in UNIT},
    **{name: [0, -1] for name in COUNTS},
    **{name: [0, -1.0, math.inf, math.nan] for name in ABOVE_0},
    **{name: [-0.1, math.nan] for name in ("clip_value", "entropy_coef", "value_coef", "kl_coef", "damping")},
    **{name: ["never"] for name in ("clip_schedule", "entropy_schedule", "kl_coef_schedule", "baseline")},
    "target_kl": [-1, math.nan],
}
ONE_AT_MOST = {"fisher_fraction": 1.1, "line_search_shrink": 1.0}


@pytest.mark.parametrize("algorithm", LADDER, ids=lambda a: a.__name__)
def test_a_value_outside_its_range_is_refused_by_name(algorithm: Any) -> None:
    numbers_and_choices = [field.name for field in dataclasses.fields(algorithm) if field.type != "bool"]
    assert set(numbers_and_choices) <= set(BAD)
    for name in numbers_and_choices:
        for value in [*BAD[name], *([ONE_AT_MOST[name]] if name in ONE_AT_MOST else [])]:
            with pytest.raises(ValueError, match=f"^{name} must be"):
                algorithm(**{name: value})


@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared"])
@pytest.mark.parametrize("kind", ["categorical", "masked", "gaussian"])
@pytest.mark.parametrize("algorithm", LADDER, ids=lambda a: a.__name__)
def test_every_algorithm_learns_from_every_kind_of_policy_and_reports_the_same_tags(
    algorithm: Any, kind: str, shared: bool
) -> None:
    state = learner(ActionProbe(4), network=network(kind, shared=shared))
    rollout = on_policy(state.actor_critic, 0, all_valid=False)
    before = [parameter.detach().clone() for parameter in state.actor_critic.parameters()]
    metrics = algorithm().update(state, rollout)
    assert set(metrics) >= COMMON_TAGS
    assert all(figure.dim() == 0 and figure.isfinite() for figure in metrics.values())
    assert metrics["losses/kl"] > 0
    for name, now, then in zip(
        dict(state.actor_critic.named_parameters()), state.actor_critic.parameters(), before, strict=True
    ):
        assert not torch.equal(now, then), f"{name} has not moved"


@pytest.mark.parametrize("algorithm", LADDER, ids=lambda a: a.__name__)
def test_an_update_depends_on_nothing_but_its_state_and_its_rollout(algorithm: Any) -> None:
    def update(rollout: Rollout) -> list[torch.Tensor]:
        state = learner(ActionProbe(4), network=network(), seed=5)
        algorithm().update(state, rollout)
        return list(state.actor_critic.parameters())

    rollout = on_policy(network(), 0)
    kept = pickle.dumps(rollout)
    first = update(rollout)
    torch.manual_seed(99)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, update(pickle.loads(kept)), strict=True))
