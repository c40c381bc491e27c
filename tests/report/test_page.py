from __future__ import annotations

import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ppo_cli.report.analysis import Report
from ppo_cli.report.charts import (
    PALETTE,
    Scale,
    colours_of,
    linear_scale,
    log_scale,
    performance_charts,
    spread,
)
from ppo_cli.report.markup import Markup, element
from ppo_cli.report.page import html
from ppo_cli.report.runs import RETURN, find_runs
from ppo_cli.report.terminal import text
from tests.report.helpers import write_run

EVIL = "<script>alert('&\"')</script>"


class Reader(HTMLParser):
    """Elements, texts and attributes of a page; every element has to be closed in order."""

    VOID = ("meta", "br", "img")

    def __init__(self, page):
        super().__init__()
        self.open, self.names, self.texts, self.attributes = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def report(folder, metric=RETURN):
    return Report(find_runs([folder]), metric)


def read(folder, metric=RETURN):
    return Reader(html(report(folder, metric)))


def write_sweep(folder, clips=(0.1, 0.2), seeds=(1, 2, 3)):
    for clip in clips:
        for seed in seeds:
            values = [clip * 100 + seed + step for step in range(12)]
            write_run(folder / f"clip={clip},seed={seed}", values, clip=clip, seed=seed, overrides=[f"clip={clip}"])


def test_the_page_needs_nothing_from_anywhere(tmp_path):
    write_sweep(tmp_path)
    page = read(tmp_path)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form", "a"} & set(page.names)
    assert not {"src", "href", "srcset", "onload", "onclick", "action"} & {name for name, _ in page.attributes}
    assert not re.search(r"https?:|url\(|@import|//\w", html(report(tmp_path)))


def test_the_page_names_every_configuration_its_figures_and_their_intervals(tmp_path):
    write_sweep(tmp_path)
    page = read(tmp_path)
    found = report(tmp_path)
    said = " ".join(page.texts)
    for result in found.results:
        assert page.texts.count(result.group.label) >= 5
        assert f"{result.final.value:.1f}" in page.texts
        assert f"{result.final.low:.1f} to {result.final.high:.1f}" in page.texts
    assert "clip=0.2 is highest: 33.0 (32.0 to 34.0) after 120 steps. It is 10.0 (" in said
    assert "of the variance between runs" in said
    assert "svg" in page.names


@pytest.mark.parametrize("place", ["folder", "setting", "error", "tag", "override", "seed", "command", "status"])
def test_nothing_that_a_run_says_becomes_markup(tmp_path, place):
    folder = tmp_path / (EVIL.replace("/", "") if place == "folder" else "run")
    write_run(
        folder,
        {RETURN: [1.0, 2.0], EVIL: [0.0, 1.0]},
        clip=EVIL if place == "setting" else 0.3,
        seed=EVIL if place == "seed" else 1,
        overrides=[f"clip={EVIL}"] if place == "override" else [],
        status=EVIL if place == "status" else "failed",
        summary={"error": EVIL if place == "error" else None, "command": EVIL if place == "command" else ""},
    )
    write_run(tmp_path / "other")
    metric = EVIL if place == "tag" else RETURN
    page = read(tmp_path, metric)
    assert "script" not in page.names
    assert "<script" not in html(report(tmp_path, metric))
    if place not in ("command", "status"):
        assert any("alert('" in each for each in page.texts)


def test_a_tail_of_a_log_cannot_drive_the_terminal(tmp_path):
    write_run(tmp_path / "run", status="failed", summary={"error": "\x1b[2Jgone\x07\nand more"})
    said = text(report(tmp_path))
    assert "\x1b" not in said
    assert "?[2Jgone?" in said


@pytest.mark.parametrize("form", [html, text])
@pytest.mark.parametrize(
    ("count", "status", "said"),
    [(1, "completed", "n=1: no interval"), (1, "running", "1 running at 40"), (2, "killed", "2 killed at 40")],
)
def test_runs_in_every_state_are_told_of(tmp_path, form, count, status, said):
    for seed in range(count):
        write_run(tmp_path / str(seed), seed=seed, status="completed" if status == "completed" else "running")
    if status == "killed":
        for path in tmp_path.glob("*/*"):
            os.utime(path, (1.0, 1.0))
    assert said in form(report(tmp_path))


@pytest.mark.parametrize("form", [html, text])
def test_a_failure_shows_its_last_lines_and_how_to_go_on(tmp_path, form):
    folder = write_run(tmp_path / "a b", status="failed")
    (folder / "error.txt").write_text("\n".join(f"line {n}" for n in range(50)))
    said = form(report(tmp_path)).replace("&#x27;", "'")
    assert "line 49" in said
    assert "line 30" not in said
    assert f"ppo-train 'resume={folder}'" in said


@pytest.mark.parametrize("form", [html, text])
def test_a_job_that_died_before_its_run_began_is_a_failure_with_its_log(tmp_path, form):
    write_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "output.log").write_text("error: no such thing\n")
    os.utime(tmp_path / "bad" / "output.log", (1.0, 1.0))
    said = form(report(tmp_path))
    assert "error: no such thing" in said
    assert "killed" in said


@pytest.mark.parametrize("form", [html, text])
def test_folders_of_empty_files_make_a_report_all_the_same(tmp_path, form):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("")
    assert "No run has a value of charts/episodic_return yet." in form(report(tmp_path))


def test_win_rates_and_evaluations_have_curves_of_their_own(tmp_path):
    tags = [RETURN, "minesweeper/win_rate", "eval/episodic_return", "eval/minesweeper/win_rate"]
    write_run(tmp_path / "a", {tag: [0.1, 0.2] for tag in tags})
    said = " ".join(read(tmp_path).texts)
    for title in ("Return, mean of the last episodes", "Games won", "Return of greedy evaluations"):
        assert title in said


def test_returns_of_several_environments_are_not_ranked(tmp_path):
    for name, value in (("cartpole", 500.0), ("pendulum", -150.0)):
        for clip in (0.1, 0.2):
            env = {"name": name}
            write_run(tmp_path / f"{name}{clip}", [value + clip] * 4, clip=clip, env=env, overrides=[f"env={name}"])
    report = Report(find_runs([tmp_path]), RETURN)
    said = "2 environments, each with a scale of its own: compare within one, not between them."
    assert report.verdict == [said]
    assert report.importance is None


def test_another_metric_ranks_by_itself(tmp_path):
    write_run(tmp_path / "a", {RETURN: [9.0], "x/win_rate": [0.1]}, clip=0.1)
    write_run(tmp_path / "b", {RETURN: [1.0], "x/win_rate": [0.7]}, clip=0.2)
    assert report(tmp_path, "x/win_rate").verdict[0].startswith("clip=0.2 is highest: 0.7")


def test_of_sixty_configurations_the_best_have_colours_and_the_others_are_grey(tmp_path):
    for number in range(60):
        write_run(tmp_path / str(number), [float(number)] * 3, clip=number / 100, overrides=[f"clip={number / 100}"])
    found = report(tmp_path)
    named = {label: colour for label, colour in colours_of(found.results).items() if colour is not None}
    assert list(named) == [f"clip={number / 100:g}" for number in range(59, 53, -1)]
    assert len(named) == len(PALETTE) - 1
    (chart,) = performance_charts(found.results, RETURN)
    assert "grey: the 54 configurations behind the best 6" in chart.note
    assert "54 others" in html(found)


def test_repeated_seeds_are_told_and_not_counted(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    assert "1, 1 repeated" in html(report(tmp_path))


def test_texts_and_attributes_are_escaped_and_markup_is_not():
    assert (
        element("p", "<&>", element("br"), Markup("<hr>"), id='"<') == '<p id="&quot;&lt;">&lt;&amp;&gt;<br/><hr></p>'
    )
    assert (
        element("line", x1=1, stroke_width=2, class_="rule", y1=None) == '<line x1="1" stroke-width="2" class="rule"/>'
    )


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 500, [0, 100, 200, 300, 400, 500]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (0, 0.03, [0, 0.01, 0.02, 0.03])],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert Scale(low, high).ticks() == pytest.approx(ticks)


def test_scales_hold_their_values_between_round_ends():
    scale = linear_scale(np.array([21.0, 378.0]))
    assert (scale.low, scale.high) == (0, 400)
    assert linear_scale(np.array([500.0, 500.0])).low < 500 < linear_scale(np.array([500.0, 500.0])).high
    scale = log_scale(np.repeat([3e-4, 0.5], 10))
    assert (scale.low, scale.high, scale.ticks()) == (1e-4, 1, [1e-4, 1e-3, 1e-2, 0.1, 1])
    assert scale(np.array([1e-4, 1e-2, 1, 0, 7])) == pytest.approx([0, 0.5, 1, 0, 1])


def test_labels_move_apart_as_far_as_they_must_and_keep_their_order():
    assert spread([10.0, 50.0], 15, 0, 100) == [10, 50]
    moved = spread([50.0, 51.0, 49.0], 15, 0, 100)
    assert moved[2] < moved[0] < moved[1]
    assert min(moved[0] - moved[2], moved[1] - moved[0]) == pytest.approx(15, abs=0.1)
