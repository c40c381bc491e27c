from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from ppo_cli.report.groups import group_runs
from ppo_cli.report.importance import INTERACTION, SEED, importance_of, ranks, shares_of_variance
from ppo_cli.report.results import results_of
from ppo_cli.report.runs import RETURN, find_runs
from tests.report.helpers import write_run


def importance(folder):
    return importance_of(results_of(group_runs(find_runs([folder])), RETURN), RETURN)


def write_grid(folder, value, seeds=(1, 2), clips=(0.1, 0.2), rates=(0.001, 0.01)):
    for clip, rate, seed in product(clips, rates, seeds):
        typed = [f"clip={clip}", f"learning_rate={rate}", f"seed={seed}"]
        curve = [float(value(clip, rate, seed))]
        write_run(folder / f"{clip},{rate},{seed}", curve, overrides=typed, clip=clip, learning_rate=rate, seed=seed)


def test_shares_by_hand():
    """Means 0, 2, 4, 10: variance 14; of the first setting 9, of the second 4, of both together 1; seeds add 1."""
    cells = [np.array([mean - 1, mean + 1]) for mean in (0.0, 2.0, 4.0, 10.0)]
    assert_allclose(shares_of_variance(cells, (2, 2)), np.array([9, 4, 1, 1]) / 15)


def test_shares_are_those_of_the_analysis_of_variance():
    cells = list(np.random.default_rng(1).normal(size=(6, 5)))
    shares = shares_of_variance(cells, (6,))
    f_value = stats.f_oneway(*cells).statistic
    assert_allclose(shares[0], 5 * f_value / (5 * f_value + 24))
    assert_allclose(shares.sum(), 1)


def test_nothing_varies_nothing_has_a_share():
    assert_allclose(shares_of_variance([np.ones(3), np.ones(3)], (2,)), [0, 0])


def test_in_a_full_grid_the_setting_that_decides_takes_the_variance(tmp_path):
    write_grid(tmp_path, lambda clip, rate, seed: 100 * clip + 0.1 * seed)
    found = importance(tmp_path)
    assert found.is_grid
    assert list(found.figures) == ["clip", "learning_rate", INTERACTION, SEED]
    assert found.figures["clip"].value > 0.99
    assert found.figures["learning_rate"].value < 0.01
    assert found.figures["clip"].low <= found.figures["clip"].value <= found.figures["clip"].high
    assert found.chance["clip"] == 1 / 7
    assert found.n == 8


def test_settings_that_work_only_together_are_told_apart_from_each_alone(tmp_path):
    write_grid(tmp_path, lambda clip, rate, seed: 10 * ((clip > 0.15) ^ (rate > 0.005)) + 0.1 * seed)
    figures = importance(tmp_path).figures
    assert figures[INTERACTION].value > 0.99
    assert figures["clip"].value == figures["learning_rate"].value == 0


def test_settings_without_any_effect_take_the_share_that_chance_gives_them(tmp_path):
    generator = np.random.default_rng(2)
    cells = [generator.normal(size=(2000, 5)) for _ in range(3)]
    assert np.mean(shares_of_variance(cells, (3,))[0]) == pytest.approx(2 / 14, abs=0.01)


def test_where_combinations_are_missing_it_is_spearmans_correlation(tmp_path):
    generator = np.random.default_rng(3)
    pairs = [(float(clip), clip + generator.normal(0, 0.2)) for clip in generator.uniform(size=12)]
    for number, (clip, value) in enumerate(pairs):
        typed = [f"clip={clip}", f"optimizer={number % 2}", f"network.activation={number % 3}"]
        optimizer, activation = "ab"[number % 2], {"activation": "xyz"[number % 3]}
        write_run(tmp_path / str(number), [value], overrides=typed, clip=clip, optimizer=optimizer, network=activation)
    found = importance(tmp_path)
    assert not found.is_grid
    assert found.figures["clip"].value == pytest.approx(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    assert 0 < found.figures["clip"].low < found.figures["clip"].high <= 1
    assert abs(found.figures["optimizer"].value) < 0.9
    assert "network.activation" not in found.figures  # three names have no order


def test_runs_that_have_little_in_common_are_no_grid_that_would_fill_the_memory(tmp_path):
    for place, drawn in enumerate(np.random.default_rng(1).integers(4, size=(24, 20)).tolist()):
        write_run(tmp_path / f"run{place}", [drawn[0]] * 4, **{f"s{n}": value for n, value in enumerate(drawn)})
    groups = group_runs(find_runs([tmp_path]))
    found = importance_of(results_of(groups, RETURN), RETURN)
    assert found is not None
    assert not found.is_grid


def test_ranks_are_scipys_with_ties():
    values = [3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    assert_allclose(ranks(values), stats.rankdata(values))


def test_settings_that_always_changed_together_are_named_together(tmp_path):
    write_grid(tmp_path, lambda clip, rate, seed: clip, clips=(0.1,), rates=(0.1, 0.2))
    for path in tmp_path.glob("*/config.yaml"):
        text = path.read_text()
        path.write_text(text.replace("clip: 0.1", "clip: 0.3") if "learning_rate: 0.2" in text else text)
    found = importance(tmp_path)
    assert list(found.figures) == ["clip", SEED]
    assert found.aliases["clip"] == ("learning_rate",)


@pytest.mark.parametrize(("seeds", "clips"), [((1, 2, 3), (0.1,)), ((1,), (0.1, 0.2))])
def test_one_configuration_or_two_runs_say_nothing(tmp_path, seeds, clips):
    write_grid(tmp_path, lambda clip, rate, seed: clip, seeds=seeds, clips=clips, rates=(0.001,))
    assert importance(tmp_path) is None
