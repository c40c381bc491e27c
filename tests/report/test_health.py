from __future__ import annotations

import numpy as np
import pytest

from ppo_cli.report.groups import group_runs
from ppo_cli.report.health import CHECKS, findings_of
from ppo_cli.report.runs import RETURN, find_runs
from tests.report.helpers import write_run

UPDATES = 40
RAMP = np.arange(UPDATES) / UPDATES

HEALTHY = {
    RETURN: 10 + 90 * RAMP,
    "losses/kl": 0.008 + 0.004 * np.cos(9 * RAMP),
    "losses/clipfrac": 0.1 + 0.05 * np.sin(9 * RAMP),
    "losses/explained_variance": 0.9 * RAMP + 0.05,
    "losses/entropy": 0.7 - 0.4 * RAMP,
    "losses/value_loss": 30 - 20 * RAMP,
    "losses/grad_norm": 0.3 + 0.1 * RAMP,
    "charts/truncated_share": 0.2 * RAMP,
    "charts/episodic_length": 10 + 90 * RAMP,
}


def but(**changes):
    return HEALTHY | {tag.replace("__", "/"): values for tag, values in changes.items()}


def spiked(values, height, *places):
    values = np.array(values, float)
    values[list(places)] = height
    return values


LUCK = 10 + np.cos(np.arange(UPDATES))
LUCK[0], LUCK[20] = 8.0, 11.5
"""Returns that get nowhere."""

SICK = {
    "KL spikes": but(losses__kl=spiked(HEALTHY["losses/kl"], 0.4, 10, 20)),
    "Clip fraction above 0.3": but(losses__clipfrac=spiked(HEALTHY["losses/clipfrac"], 0.45, *range(10, 20))),
    "Clip fraction always 0": but(losses__clipfrac=np.zeros(UPDATES)),
    "Explained variance at or below 0": but(losses__explained_variance=np.full(UPDATES, -0.1)),
    "Entropy collapse": but(losses__entropy=spiked(HEALTHY["losses/entropy"], 0.01, *range(15, UPDATES))),
    "Value loss blow-up": but(
        losses__value_loss=spiked(HEALTHY["losses/value_loss"], 2e4, 30),
        losses__explained_variance=spiked(HEALTHY["losses/explained_variance"], -3, 30),
    ),
    "Return fell back": but(charts__episodic_return=spiked(HEALTHY[RETURN], 12.0, *range(30, UPDATES))),
    "Mostly truncated episodes": but(charts__truncated_share=np.full(UPDATES, 0.9), charts__episodic_return=LUCK),
    "Gradient always clipped": but(losses__grad_norm=np.full(UPDATES, 7.0), charts__episodic_return=LUCK),
}

HARMLESS = {
    "one KL spike": but(losses__kl=spiked(HEALTHY["losses/kl"], 0.06, 10)),
    "a critic with nothing left to explain": but(
        losses__explained_variance=-4 * RAMP, losses__value_loss=30 * 0.6 ** np.arange(UPDATES)
    ),
    "a critic of returns that have become equal": but(
        losses__explained_variance=spiked(HEALTHY["losses/explained_variance"], -0.1, *range(24, 40, 2)),
    ),
    "a deterministic policy at the end": but(losses__entropy=0.7 * (1 - RAMP) ** 3),
    "returns that grow, and the value loss with them": but(losses__value_loss=10 ** (4 * RAMP)),
    "a clip fraction that is high once in a while": but(
        losses__clipfrac=spiked(HEALTHY["losses/clipfrac"], 0.4, 20),
    ),
    "a time limit that ends every episode of a policy that learns": but(charts__truncated_share=np.ones(UPDATES)),
    "gradients that are cut while the return grows": but(losses__grad_norm=np.full(UPDATES, 7.0)),
    "differential entropy below 0": but(losses__entropy=1.4 - 3 * RAMP),
    "no clipping at all in an algorithm without clip": {
        tag: values for tag, values in HEALTHY.items() if tag != "losses/clipfrac"
    },
}


def findings(folder, curves, **settings):
    write_run(folder / "run", {tag: list(map(float, values)) for tag, values in curves.items()}, **settings)
    return findings_of(group_runs(find_runs([folder])))


def test_every_check_has_a_case():
    assert [check.title for check in CHECKS] == list(SICK)


@pytest.mark.parametrize("title", SICK)
def test_what_is_sick_is_found_and_nothing_else(tmp_path, title):
    found = findings(tmp_path, SICK[title], total_env_steps=10 * UPDATES)
    assert [each.check.title for each in found] == [title]
    assert found[0].check.cause
    assert found[0].check.remedy


@pytest.mark.parametrize("curves", [HEALTHY, *HARMLESS.values()], ids=["healthy", *HARMLESS])
def test_what_is_healthy_is_left_alone(tmp_path, curves):
    assert findings(tmp_path, curves, total_env_steps=10 * UPDATES) == []


def test_a_finding_tells_how_often_how_much_and_where(tmp_path):
    (found,) = findings(tmp_path, SICK["KL spikes"], total_env_steps=10 * UPDATES)
    (text,) = found.seen.values()
    assert text == "above 0.05 in 5 % of the updates, 0.4 at 110 steps"


def test_a_gradient_of_which_nothing_is_left_is_found_even_where_the_return_grows(tmp_path):
    (found,) = findings(tmp_path, but(losses__grad_norm=np.full(UPDATES, 70.0)), total_env_steps=10 * UPDATES)
    assert list(found.seen.values()) == ["median norm 70, max_grad_norm 0.5"]


def test_an_algorithm_that_asks_for_a_larger_kl_may_have_it(tmp_path):
    curves = but(losses__kl=np.full(UPDATES, 0.08))
    assert findings(tmp_path / "a", curves, total_env_steps=10 * UPDATES)
    assert not findings(tmp_path / "b", curves, total_env_steps=10 * UPDATES, max_kl=0.1)


def test_of_a_few_updates_nothing_is_said(tmp_path):
    assert findings(tmp_path, {tag: values[:9] for tag, values in SICK["KL spikes"].items()}) == []


def test_runs_without_any_figure_and_with_odd_settings_are_passed(tmp_path):
    assert findings(tmp_path, {}, max_grad_norm="a lot") == []
