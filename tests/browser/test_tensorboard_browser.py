from __future__ import annotations

import numpy as np
import pytest

from ppo_cli.logger import RunLogger
from tests.browser.browser import CHROMEDRIVER, CHROMIUM, Browser, tensorboard

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver on the PATH"),
]

TAGS = ("charts/episodic_return", "charts/episodic_length", "charts/SPS", "losses/kl", "losses/clipfrac")
CONFIG = {"clip": 0.2, "seed": 1, "env": {"name": "<b>minesweeper</b>", "mines": 10}}


def write_run(run_dir, seed, episode_return):
    config = {**CONFIG, "seed": seed}
    logger = RunLogger(run_dir, total_env_steps=80, config=config, overrides=["clip=0.2"], display="silent")
    for update in range(1, 9):
        logger.log(10 * update, update, {tag: episode_return for tag in TAGS if tag != "charts/SPS"})
    logger.image("minesweeper/boards", 80, np.full((16, 16, 3), 128, np.uint8))
    logger.finish("completed")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    write_run(root / "minesweeper_seed=1", 1, 0.25)
    write_run(root / "minesweeper_seed=2", 2, 0.75)
    with tensorboard(root) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


def test_the_curves_have_their_runs_and_tags(address, browser):
    browser.open(f"{address}?tagFilter=charts|losses#timeseries")  # a filter opens every group
    browser.wait_for("minesweeper_seed=1", "minesweeper_seed=2", *TAGS)


def test_the_pictures_of_boards_are_shown(address, browser):
    browser.open(f"{address}#images")
    browser.wait_for("minesweeper/boards", "minesweeper_seed=1")


def test_the_configuration_is_shown_as_it_was_written(address, browser):
    browser.open(f"{address}#text")
    browser.wait_for("run/config", "name: <b>minesweeper</b> mines: 10", "run/command", "run/versions")


def test_the_two_seeds_are_one_row_of_the_hparams_table_with_their_mean(address, browser):
    browser.open(f"{address}#hparams")
    text = browser.wait_for("clip", "env.mines", "charts/episodic_return", "0.50000")
    assert "0.75000" not in text
    assert "0.25000" not in text


def test_curves_that_belong_together_share_a_chart(address, browser):
    browser.open(f"{address}#custom_scalars")
    browser.wait_for("trust region", "KL divergence", "clip fraction", "explained variance")
