from __future__ import annotations

import math

import pytest

from ppo_cli.cli.report import main
from ppo_cli.report.statistics import estimate
from tests.browser.browser import CHROMEDRIVER, CHROMIUM, Browser
from tests.report.helpers import write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver on the PATH"),
]

CLIPS = (0.1, 0.2, 0.3)
SEEDS = (1, 2, 3, 4)
EVIL = "<img src=x onerror=document.title='broken'>"

VISIBLE = """
return [...document.querySelectorAll(arguments_)].filter(each => each.getClientRects().length).map(each =>
  each.textContent.trim());
"""


def write_sweep(folder):
    for clip in CLIPS:
        for seed in SEEDS:
            steps = range(30)
            curves = {
                "charts/episodic_return": [100 * clip + seed + 9 * math.log1p(step) for step in steps],
                "losses/kl": [0.2 if clip == 0.3 and step > 20 else 0.01 for step in steps],
            }
            typed = [f"clip={clip}", f"seed={seed}"]
            write_run(folder / f"clip={clip},seed={seed}", curves, clip=clip, seed=seed, overrides=typed)
    crashed = write_run(folder / EVIL.replace("/", ""), clip=0.9, overrides=["clip=0.9"], status="failed")
    (crashed / "error.txt").write_text(f"RuntimeError: the sky fell {EVIL}")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder)
    assert main([str(folder), "figures=false"]) == 0
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with Browser(1200, 1000) as browser:
        yield browser


def shown(browser, selector):
    """Texts of the elements that a reader can see."""
    return browser.run(VISIBLE.replace("arguments_", repr(selector)))


def section(browser, heading):
    """Rows of the table below a heading, each a list of cells."""
    return browser.run(f"""
        const heading = [...document.querySelectorAll('h2')].find(each => each.textContent === {heading!r});
        let table = heading.nextElementSibling;
        while (!table.querySelector('table')) table = table.nextElementSibling;
        return [...table.querySelectorAll('tbody tr')].map(row => [...row.cells].map(cell => cell.textContent.trim()));
    """)


def test_a_reader_sees_every_configuration_with_its_figure_and_interval(page, browser):
    browser.open(page)
    assert shown(browser, "h1") == ["cartpole, ppo: 13 runs"]
    rows = section(browser, "Results")
    assert [row[0] for row in rows] == ["clip=0.3", "clip=0.2", "clip=0.1", "clip=0.9"]
    final = estimate([30 + seed + 9 * math.log1p(29) for seed in SEEDS])
    assert rows[0][1:4] == ["4", f"{final.value:.1f}", f"{final.low:.1f} to {final.high:.1f}"]
    assert rows[3][1:4] == ["1 failed at 40", "4.00", "n=1: no interval"]
    assert section(browser, "What differed") == [["clip", "0.1, 0.2, 0.3, 0.9"]]
    assert ["clip=0.3", "4 of 4 runs; seed 1: above 0.05 in 30 % of the updates, 0.2 at 220 steps"] in section(
        browser, "Health"
    )
    assert any("the sky fell <img" in text for text in shown(browser, "pre"))
    assert "ppo-train -m clip=0.2 seed=1,2,3,4" in shown(browser, "code")


def test_the_curves_are_drawn_inside_the_picture_and_named_at_their_ends(page, browser):
    browser.open(page)
    assert sorted(shown(browser, "svg.chart .name")) == ["clip=0.1", "clip=0.2", "clip=0.3", "clip=0.9"]
    figure = "document.querySelector('svg.chart')"
    assert browser.run(f"return {figure}.querySelectorAll('path.band').length") == len(CLIPS)
    outside = browser.run(f"""
        const frame = {figure}.getBoundingClientRect();
        return [...{figure}.querySelectorAll('path, text')].filter(each => {{
          const box = each.getBoundingClientRect();
          return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
        }}).map(each => each.outerHTML.slice(0, 80));
    """)
    assert outside == []


def test_nothing_is_loaded_and_nothing_that_a_run_says_is_run(page, browser):
    browser.open(page)
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.title") == "cartpole, ppo: 13 runs"
    assert browser.run("return document.querySelectorAll('img, script').length") == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_a_phone_and_is_readable_in_both_themes(page, browser, theme, width):
    browser.emulate(width, 900, theme)
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    page_colour, ink = browser.run("""
        const style = getComputedStyle(document.body);
        return [style.backgroundColor, style.color].map(each => each.match(/\\d+/g).map(Number));
    """)
    assert (sum(page_colour) < 150) == (theme == "dark")
    assert abs(sum(page_colour) - sum(ink)) > 450
    assert (
        min(
            browser.run("""
        return [...document.querySelectorAll('svg.chart text')].filter(each => each.getClientRects().length)
          .map(each => each.getBoundingClientRect().height);
    """)
        )
        > 9
    )  # pixels
