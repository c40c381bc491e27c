from __future__ import annotations

import json
import re
import urllib.request

import numpy as np
import pytest
import yaml

from ppo_cli.logger import RunLogger
from tests.browser.browser import CHROMEDRIVER, CHROMIUM, Browser, tensorboard

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver on the PATH"),
]

TAGS = (
    *("charts/episodic_return", "charts/episodic_length", "charts/SPS"),
    *("losses/kl", "losses/kl_last_epoch", "losses/clipfrac", "losses/clipfrac_last_epoch"),
)
CONFIG = {"clip": 0.2, "seed": 1, "env": {"name": "<b>minesweeper</b>", "mines": 10}}
SIZE, GREY = (16, 16), (128, 128, 128)

RETURNS = {(0.2, 1): 0.25, (0.2, 2): 0.75, (0.1, 1): 0.1, (0.1, 2): 0.3}
"""By clip and seed."""

RUNS = sorted(f"clip={clip},seed={seed}" for clip, seed in RETURNS)

ELEMENTS = """
function all(node, found = []) {
  for (const child of [...(node.shadowRoot ? node.shadowRoot.children : []), ...node.children]) {
    found.push(child);
    all(child, found);
  }
  return found;
}
const named = name => all(document.body).filter(each => each.nodeName === name);
"""
"""Finding what is on the page, in shadow roots, too; each script below gives null until that is there."""

CURVES = f"""{ELEMENTS}
const curves = named('SCALAR-CARD').map(card => [
  card.querySelector('.tag').textContent, card.textContent.match(/clip=[0-9.]+,seed=[0-9]+/g)]);
return curves.length && curves.every(([tag, runs]) => runs) ? Object.fromEntries(curves) : null;
"""

PICTURES = f"""{ELEMENTS}
const pictures = named('IMG').filter(each => each.complete && each.getClientRects().length);
if (pictures.length < {len(RETURNS)}) return null;
return pictures.map(each => {{
  const canvas = document.createElement('canvas').getContext('2d');
  canvas.drawImage(each, 0, 0);
  return [each.naturalWidth, each.naturalHeight, ...canvas.getImageData(0, 0, 1, 1).data];
}});
"""

CONFIGURATIONS = f"""{ELEMENTS}
const texts = named('PRE').map(each => each.textContent).filter(each => each.startsWith('clip'));
return texts.length < {len(RETURNS)} ? null : [texts, named('B').length];
"""

SHARED_CHARTS = f"""{ELEMENTS}
const charts = named('TF-CUSTOM-SCALAR-MULTI-LINE-CHART-CARD').map(card => [
  all(card).find(each => each.nodeName === 'TF-CARD-HEADING').displayName,
  all(card).filter(each => each.className === 'match-list-entry').map(each => each.textContent.match(/[a-z].*/)[0])]);
return charts.filter(([title, curves]) => curves.length).length < 2 ? null : Object.fromEntries(charts);
"""

AXES_AND_LINES = f"""{ELEMENTS}
const charts = all(document.body).filter(each => each.nodeName === 'svg' && each.querySelector('.axis'));
const chart = charts.find(each => each.getClientRects().length);
if (!chart) return null;
const titles = [...chart.querySelectorAll('text')].map(each => each.textContent);
return [titles.filter(each => /^[a-z].*[._/]|^clip$/.test(each)), chart.querySelectorAll('.foreground path').length];
"""


def write_run(run_dir, clip, seed, episode_return):
    config = {**CONFIG, "clip": clip, "seed": seed}
    logger = RunLogger(run_dir, total_env_steps=80, config=config, overrides=[f"clip={clip}"], display="silent")
    for update in range(1, 9):
        logger.log(10 * update, update, {tag: episode_return for tag in TAGS if tag != "charts/SPS"})
    logger.image("minesweeper/boards", 80, np.full((*SIZE, 3), GREY, np.uint8))
    logger.finish("completed")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    for (clip, seed), episode_return in RETURNS.items():
        write_run(root / f"clip={clip},seed={seed}", clip, seed, episode_return)
    with tensorboard(root) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


def test_the_curves_have_their_runs_and_tags(address, browser):
    browser.open(f"{address}?tagFilter=charts|losses#timeseries")  # a filter opens every group
    browser.wait_for(*RUNS, *TAGS)
    curves = browser.wait_for_value(CURVES)
    assert {tag: sorted(runs) for tag, runs in curves.items()} == dict.fromkeys(TAGS, RUNS)


def test_the_pictures_of_boards_are_shown(address, browser):
    browser.open(f"{address}#images")
    browser.wait_for("minesweeper/boards", *RUNS)
    assert browser.wait_for_value(PICTURES) == [[*SIZE, *GREY, 255]] * len(RUNS)


def test_the_configuration_is_shown_as_it_was_written(address, browser):
    browser.open(f"{address}#text")
    browser.wait_for("run/config", "run/command", "run/versions")
    texts, num_bold = browser.wait_for_value(CONFIGURATIONS)
    written = [{**CONFIG, "clip": clip, "seed": seed} for clip, seed in RETURNS]
    assert sorted(texts) == sorted(yaml.safe_dump(config, sort_keys=False) for config in written)
    assert num_bold == 0, "what a config says is text, not markup"


def test_each_configuration_is_one_row_of_the_hparams_table_with_the_mean_of_its_seeds(address, browser):
    browser.open(f"{address}#hparams")
    text = browser.wait_for("Trial ID", "Number of matching session groups: 2", "0.50000", "0.20000")
    table = text.partition("Trial ID")[2].partition(" Color by")[0]
    assert table.startswith(" Show Metrics clip env.mines env.name charts/episodic_return ")
    rows = re.findall(r"[0-9a-f]{16} (.*?)(?= [0-9a-f]{16}|$)", table)
    assert sorted(rows) == [
        "0.10000 10.000 <b>minesweeper</b> 0.20000",
        "0.20000 10.000 <b>minesweeper</b> 0.50000",
    ]


def test_the_hparams_table_makes_no_run_of_its_own(address):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}data/runs") as answer:
        assert sorted(json.load(answer)) == RUNS


def test_the_parallel_coordinates_show_a_line_for_each_configuration(address, browser):
    browser.open(f"{address}#hparams")
    browser.wait_for("Number of matching session groups: 2")
    browser.click("Parallel coordinates view")
    browser.wait_for("Color by")
    axes, lines = browser.wait_for_value(AXES_AND_LINES)
    assert axes == ["clip", "env.mines", "env.name", "charts/episodic_return"]
    assert lines == 2


def test_curves_that_belong_together_share_a_chart(address, browser):
    browser.open(f"{address}#custom_scalars")
    browser.wait_for("trust region", "KL divergence", "clip fraction", "explained variance")
    charts = browser.wait_for_value(SHARED_CHARTS)
    assert {title: sorted(curves) for title, curves in charts.items()} == {
        "KL divergence": [f"{tag} ({run})" for tag in ("losses/kl", "losses/kl_last_epoch") for run in RUNS],
        "clip fraction": [
            f"{tag} ({run})" for tag in ("losses/clipfrac", "losses/clipfrac_last_epoch") for run in RUNS
        ],
        "explained variance": [],
    }
