"""Every claim can hold, fail and stay open: verdicts on data whose answer is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppo_cli.claims import (
    advantage_variance,
    base,
    clip,
    diverse,
    entropy,
    policy_collapse,
    sample_reuse,
    trpo_cost,
    trust_region,
)
from ppo_cli.claims.base import NAMES, Verdict, claim_named
from ppo_cli.claims.page import figure_png
from ppo_cli.report.runs import Run

RETURN = base.RETURN
SEEDS = 5


def seeds(centre: float, spread: float = 1.0) -> list[float]:
    """Five samples around ``centre``, the farthest ``spread`` away."""
    return [centre + spread * step / 2 for step in range(-2, 3)]


def run(settings: Mapping[str, Any], curves: Mapping[str, Sequence[float]], status: str = "completed") -> Run:
    """A run of as many updates as the curves have points, 100 env steps each."""
    records = [
        {"env_steps": 100 * (place + 1)} | {tag: values[place] for tag, values in curves.items()}
        for place in range(len(next(iter(curves.values()))))
    ]
    return Run(Path("run"), dict(settings), (), {}, "", status, records)  # type: ignore[arg-type]


def returns_of(name: str, levels: Mapping[float, Iterable[float]]) -> list[Run]:
    """Runs that differ in one setting; each seed's return rises by 2 to its level."""
    return [run({name: value}, {RETURN: [level - 1, level, level + 1]}) for value in levels for level in levels[value]]


def check(name: Any, runs: Sequence[Run]) -> Verdict:
    """The verdict; and the figure can be drawn."""
    claim, _ = claim_named(name)
    verdict, measured = claim.check(runs)
    assert figure_png(claim, measured).startswith(b"\x89PNG")
    return verdict


def test_sample_reuse_says_by_how_much_and_where_it_breaks() -> None:
    verdict = check("sample_reuse", returns_of("num_epochs", {1: seeds(100), 4: seeds(200), 16: seeds(150)}))
    assert verdict.outcome == "holds"
    assert "200 (95 % interval" in verdict.sentence
    assert "a difference of 100" in verdict.sentence
    assert "it breaks at 16 epochs, with -50" in verdict.sentence


@pytest.mark.parametrize(("reused", "outcome"), [(90, "does not hold"), (100.5, "undecided"), (110, "holds")])
def test_sample_reuse_can_fail(reused: float, outcome: str) -> None:
    measured = sample_reuse.measure(returns_of("num_epochs", {1: seeds(100, 4), 4: seeds(reused, 4)}))
    verdict = sample_reuse.judge(measured)
    assert verdict.outcome == outcome
    assert "up to 4 epochs it did not break" in verdict.sentence


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        ((100, 100), "holds"),
        ((100, 149.5), "holds in part"),
        ((149.5, 149.5), "undecided"),
        ((100, 200), "does not hold"),
    ],
)
def test_lambda_must_beat_both_ends(ends: tuple[float, float], outcome: str) -> None:
    levels = {0: seeds(ends[0], 4), 0.5: seeds(120, 4), 0.9: seeds(150, 4), 1: seeds(ends[1], 4)}
    verdict = check("gae_lambda", returns_of("gae_lambda", levels))
    assert verdict.outcome == outcome
    assert "lambda in between, 0.9," in verdict.sentence


@pytest.mark.parametrize(
    ("without", "outcome"),
    [
        ((0.1, 50), "holds"),
        ((0.1, 100.5), "holds in part"),
        ((0.1, 150), "does not hold"),
        ((0.52, 100.5), "undecided"),
        ((0.9, 50), "does not hold"),
    ],
)
def test_the_entropy_bonus_must_matter_for_entropy_and_return(without: tuple[float, float], outcome: str) -> None:
    ends = {0: without, 0.01: (0.5, 100), 0.1: (0.6, 80)}
    runs = [
        run({"entropy_coef": weight}, {entropy.ENTROPY: [nats + 0.02 * wobble] * 2, RETURN: [10, level + wobble]})
        for weight, (nats, level) in ends.items()
        for wobble in seeds(0, 4)
    ]
    verdict = check("entropy", runs)
    assert verdict.outcome == outcome
    assert "against that with 0.01" in verdict.sentence  # not 0.1, whose return is lower


def collapse_runs(finals: Mapping[str, Mapping[float, float]]) -> list[Run]:
    return [
        run({"algo": {"name": algo}, "learning_rate": rate}, {RETURN: [300, final + wobble], "losses/kl": [0.1, 0.2]})
        for algo, rates in finals.items()
        for rate, final in rates.items()
        for wobble in seeds(0, 20)
    ]


@pytest.mark.parametrize(
    ("vpg", "ppo", "outcome"),
    [
        ((300, 300, 20), (300, 300, 290), "holds"),
        ((300, 20, 20), (300, 290, 20), "holds in part"),
        ((300, 300, 290), (300, 300, 290), "does not hold"),
        ((300, 300, 20), (300, 20, 20), "does not hold"),
        ((300, 300, 20), (300, 300, 151), "undecided"),
        ((300, 300, 151), (300, 300, 290), "undecided"),
    ],
)
def test_collapse_compares_where_each_algorithm_is_lost(
    vpg: Sequence[float], ppo: Sequence[float], outcome: str
) -> None:
    rates = (0.001, 0.01, 0.1)
    levels = {"vpg": vpg, "trpo": (300, 300, 300), "ppo": ppo}
    verdict = check(
        "policy_collapse", collapse_runs({name: dict(zip(rates, each, strict=True)) for name, each in levels.items()})
    )
    assert verdict.outcome == outcome


def test_a_learning_rate_below_the_best_is_no_collapse() -> None:
    assert policy_collapse.lost_from({0.001: seeds(20), 0.01: seeds(300), 0.1: seeds(290)}) == np.inf


def region_runs(seen: Sequence[float], unseen: Sequence[float], count: int = 40) -> list[Run]:
    """Runs with max_kl 0.01; KLs in units of it, over and over."""
    curves = {trust_region.SEEN: seen, trust_region.UNSEEN: unseen}
    repeated = {tag: [0.01 * each for each in values] * (count // len(values)) for tag, values in curves.items()}
    return [run({"max_kl": 0.01}, repeated | {"trpo/accepted": [1.0] * count}) for _ in range(SEEDS)]


@pytest.mark.parametrize(
    ("seen", "unseen", "count", "outcome"),
    [
        ((0.9, 1.0), (0.9, 1.0), 40, "holds"),
        ((0.9, 1.0), (0.9, 1.3), 40, "holds in part"),
        ((0.9, 1.1), (0.9, 1.0), 40, "does not hold"),
        ((0.9, 1.0), (0.9, 1.0), 10, "undecided"),
    ],
)
def test_the_trust_region_is_judged_on_its_own_batch_and_on_fresh_states(
    seen: Sequence[float], unseen: Sequence[float], count: int, outcome: str
) -> None:
    assert check("trust_region", region_runs(seen, unseen, count)).outcome == outcome


def test_rejected_updates_are_not_counted() -> None:
    rejected = run(
        {"max_kl": 0.01}, {trust_region.SEEN: [0.005, 9.0], trust_region.UNSEEN: [0.005, 9.0], "trpo/accepted": [1, 0]}
    )
    assert trust_region.measure([rejected]).seen[0].tolist() == [0.5]


def test_the_bound_of_a_share_that_was_never_seen_is_the_rule_of_three() -> None:
    sentence = trust_region.judge(trust_region.measure(region_runs((1.0,), (1.0,), 200))).sentence
    assert "Of 1,000 accepted updates none" in sentence
    assert "at most 0.3 %" in sentence


def cost_runs(seconds: Mapping[str, float], sizes: Sequence[int] = (1000, 10_000)) -> list[Run]:
    """The first update is slow, and must not count."""
    passes = {"vpg": (2, 1), "a2c": (2, 1), "ppo": (4, 4), "trpo": (6, 12)}
    return [
        run(
            {"measured": kind},
            {
                "cost/seconds": [900.0, wobble * time * size, wobble * time * size],
                "cost/megabytes": [size / 100] * 3,
                "cost/forward_passes": [passes[kind][0]] * 3,
                "cost/backward_passes": [passes[kind][1]] * 3,
                "cost/parameters": [float(size)] * 3,
            },
        )
        for kind, time in seconds.items()
        for size in sizes
        for wobble in seeds(1, 0.1)
    ]


@pytest.mark.parametrize(
    ("trpo", "ppo", "outcome"),
    [(12, 4, "holds"), (2, 4, "does not hold"), (12, 8, "does not hold"), (3, 4, "undecided")],
)
def test_cost_compares_updates_of_trpo_and_passes_of_ppo_with_a_gradient_step(
    trpo: float, ppo: float, outcome: str
) -> None:
    verdict = check("trpo_cost", cost_runs({"vpg": 1, "a2c": 1, "ppo": ppo, "trpo": trpo}))
    assert verdict.outcome == outcome
    assert "With 10,000 parameters" in verdict.sentence
    assert "would be 400 MB" in verdict.sentence


def test_the_first_update_does_not_count() -> None:
    measured = trpo_cost.measure(cost_runs({"vpg": 1, "a2c": 1, "ppo": 1, "trpo": 1}, sizes=(10,)))
    assert measured.costs["vpg"][10]["seconds"].max() == pytest.approx(11)


def clip_runs(counts: Mapping[str, float], shares: Mapping[str, float], samples: float = 4000) -> list[Run]:
    curves = {"samples": samples, "pushed_further": 0, "silenced_elsewhere": 0} | counts
    values = {f"clip/{name}": [value, value] for name, value in (curves | shares).items()}
    return [run({"clip": 0.2}, values) for _ in range(SEEDS)]


SHARES = {"good_above": 0.1, "good_below": 0.01, "bad_above": 0.02, "bad_below": 0.1}


@pytest.mark.parametrize(
    ("counts", "shares", "samples", "outcome"),
    [
        ({}, SHARES, 4000, "holds"),
        ({"pushed_further": 1}, SHARES, 4000, "does not hold"),
        ({"silenced_elsewhere": 1}, SHARES, 4000, "does not hold"),
        ({}, SHARES, 50, "undecided"),
        ({}, SHARES | {"bad_below": 0}, 4000, "undecided"),
    ],
)
def test_one_sample_at_odds_is_enough_against_clipping(
    counts: Mapping[str, float], shares: Mapping[str, float], samples: float, outcome: str
) -> None:
    verdict = check("clip", clip_runs(counts, shares, samples))
    assert verdict.outcome == outcome
    assert f"Of {int(samples) * 10:,} samples {len(counts) * 10:,} were at odds" in verdict.sentence


def test_wilsons_interval() -> None:
    scipy = pytest.importorskip("scipy.stats")
    exact = scipy.binomtest(7, 50).proportion_ci(0.95, "wilson")
    assert clip.wilson_interval(7, 50) == f"{exact.low:.2g} to {exact.high:.2g}"
    assert clip.wilson_interval(0, 50).startswith("0 to ")


def test_the_gradient_of_the_shipped_objective_is_zero_on_the_favoured_side_only() -> None:
    for advantage, silent in ((1.0, lambda r: r > 1.2), (-1.0, lambda r: r < 0.8)):
        ratio, _, gradient = clip.objective_and_gradient(advantage, 0.2)
        away = [(r, g) for r, g in zip(ratio, gradient, strict=True) if min(abs(r - 0.8), abs(r - 1.2)) > 1e-3]
        assert all(g == (0 if silent(r) else advantage) for r, g in away)


def noise_runs(variances: Mapping[str, float]) -> list[Run]:
    curves = {
        f"noise/{name}/{kind}": [value if kind.endswith("variance") else 0.5] * 3
        for name, value in variances.items()
        for kind in advantage_variance.KINDS
    }
    return [
        run({"seed": seed}, {tag: [each * scale for each in values] for tag, values in curves.items()})
        for seed, scale in enumerate(seeds(1, 0.1))
    ]


@pytest.mark.parametrize(
    ("returns", "outcome"), [(6, "holds"), (3, "holds in part"), (0.5, "does not hold"), (1, "undecided")]
)
def test_variance_is_compared_at_every_lambda(returns: float, outcome: str) -> None:
    verdict = check(
        "advantage_variance", noise_runs({"returns": returns, "lambda_0": 1, "lambda_0.9": 2, "lambda_1": 4})
    )
    assert verdict.outcome == outcome


def diverse_runs(share: Mapping[str, float]) -> list[Run]:
    """Runs that came this part of the way to the yardstick, 2 % more or less."""
    runs = []
    for env, part in share.items():
        yardstick = diverse.YARDSTICKS[env]
        way = yardstick.reference - yardstick.zero
        values = [yardstick.zero + way * each for each in seeds(part, 0.02)]
        runs += [run({"env": {"name": env}}, {RETURN: [value] * 2, yardstick.tag: [value] * 2}) for value in values]
    return runs


@pytest.mark.parametrize(("acrobot", "outcome"), [(0.95, "holds"), (0.5, "does not hold"), (0.8, "undecided")])
def test_one_poor_environment_is_enough_against_consistency(acrobot: float, outcome: str) -> None:
    others = dict.fromkeys(["cartpole", "pendulum", "frozen_lake", "minesweeper_3x3"], 1.0)
    verdict = check("diverse", diverse_runs(others | {"acrobot": acrobot}))
    assert verdict.outcome == outcome
    assert ("acrobot" in verdict.sentence) == (outcome != "holds")


def test_four_environments_are_not_diverse() -> None:
    runs = diverse_runs(dict.fromkeys(["cartpole", "pendulum", "frozen_lake", "acrobot"], 1.0))
    assert diverse.judge(diverse.measure(runs)).outcome == "undecided"


@pytest.mark.parametrize("name", NAMES)
def test_without_runs_there_is_no_verdict_and_it_says_why(name: Any) -> None:
    claim, rules = claim_named(name)
    verdict, measured = claim.check([run({"seed": 1}, {RETURN: [1.0]}, status="failed")])
    assert (verdict.outcome, measured) == ("undecided", None)
    assert "There are no finished runs with" in verdict.sentence
    assert "- holds" in rules


def test_runs_that_did_not_finish_are_not_counted() -> None:
    runs = returns_of("num_epochs", {1: seeds(100), 4: seeds(200)})
    cut_off = run({"num_epochs": 4}, {RETURN: [0.0]}, status="killed")
    assert sample_reuse.measure([*runs, cut_off]) == sample_reuse.measure(runs)


def test_the_end_of_a_run_is_its_last_tenth() -> None:
    assert base.final(run({}, {RETURN: list(range(20))})) == 18.5
    assert base.final(run({}, {RETURN: [7.0]})) == 7.0
    assert np.isnan(base.final(run({}, {"losses/kl": [7.0]})))
