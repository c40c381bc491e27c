"""The report as one HTML file that needs nothing else: no network, no scripts, no pictures beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ppo_cli.report.analysis import (
    Report,
    correlation_text,
    counts_text,
    importance_method,
    last_lines,
    share_text,
    statement,
)
from ppo_cli.report.charts import Chart, colours_of, diagnostic_charts, performance_charts, title_of
from ppo_cli.report.commands import go_on, repeat, repeat_all
from ppo_cli.report.groups import Group, shown
from ppo_cli.report.importance import Importance
from ppo_cli.report.markup import Child, Markup, element
from ppo_cli.report.numbers import interval_text, number, percent, places_of, plural, steps_text, time_text
from ppo_cli.report.results import Result, final_value, median, ranked, seconds, speed
from ppo_cli.report.statistics import RESAMPLES, Estimate
from ppo_cli.report.style import style_sheet
from ppo_cli.report.svg import draw, whisker

MOST_COLUMNS = 5
"""Configurations that stand side by side; of more, each setting's values are listed."""

PARTS = ("rollout", "env", "inference", "update")
"""Of a run's time."""


def html(report: Report) -> str:
    """The whole file."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", report.title),
        element("style", Markup(style_sheet())),
    ]
    body = [
        element("h1", report.title),
        element("p", f"{report.subtitle} · {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", class_="soft"),
        element("div", [element("p", sentence) for sentence in report.verdict], class_="verdict"),
        _section("What differed", _differences(report.groups)),
        _section("Learning curves", _curves(report)),
        _section("Results", _results(report)),
        _section("Which setting mattered", _importance(report.importance)),
        _section("Health", _health(report)),
        _section("Failures", _failures(report)),
        _section("Speed", _speed(report.results)),
        _section("How the updates went", _diagnostics(report)),
        _section("Commands", _commands(report.groups)),
        _footnote(),
    ]
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _section(heading: str, content: Child) -> Child:
    return [element("h2", heading), content] if content else []


def _table(columns: Sequence[str], rows: Iterable[Sequence[Child]], numeric: Sequence[int] = ()) -> Markup:
    """A table that scrolls by itself where the page is narrow."""

    def cells(name: str, row: Sequence[Child]) -> list[Markup]:
        return [element(name, cell, class_="n" if place in numeric else None) for place, cell in enumerate(row)]

    head = element("thead", element("tr", cells("th", columns)))
    body = element("tbody", [element("tr", cells("td", row)) for row in rows])
    return element("div", element("table", head, body), class_="scroll")


def _name(label: str, colour: int | None) -> Markup:
    """A configuration's name with its colour."""
    style = "rest" if colour is None else f"c{colour}"
    return element("span", element("span", class_=f"chip {style}"), label)


def _legend(report: Report, class_: str = "legend") -> Markup:
    """The colours, and how many configurations have none."""
    colours = colours_of(report.results)
    named = [_name(label, colour) for label, colour in colours.items() if colour is not None]
    others = sum(colour is None for colour in colours.values())
    return element("div", named, _name(f"{others} others", None) if others else "", class_=class_)


def _curves(report: Report) -> list[Markup]:
    return [_figure(report, chart) for chart in performance_charts(report.results, report.metric)]


def _figure(report: Report, chart: Chart) -> Markup:
    """A large chart, drawn for a wide page and once more for a narrow one."""
    return element(
        "figure",
        element("h3", chart.title),
        _legend(report, "legend narrow"),
        element("div", draw(chart, 940, 380, with_labels=True), class_="wide"),
        element("div", draw(chart, 360, 270, with_labels=False), class_="narrow"),
        element("figcaption", chart.note),
    )


def _diagnostics(report: Report) -> Child:
    charts = diagnostic_charts(report.results)
    figures = [
        element("figure", element("h3", chart.title), draw(chart, 300, 190, with_labels=False)) for chart in charts
    ]
    limits = "Dotted: the limit of the health check. " if any(chart.reference is not None for chart in charts) else ""
    note = element("p", f"{limits}{charts[0].note}." if charts else "", class_="soft")
    return [_legend(report), element("div", figures, class_="small"), note] if charts else []


def _results(report: Report) -> Child:
    """Final figures and areas, the highest first."""
    results = ranked(report.results)
    colours = colours_of(report.results)
    bounds = [bound for result in results for bound in result.final[:3] if math.isfinite(bound)]
    low, high = min(bounds, default=0.0), max(bounds, default=1.0)
    rows = [
        [
            _name(result.group.label, colours[result.group.label]),
            counts_text(result),
            _value(result.final),
            _interval(result.final),
            whisker(result.final, low, high, colours[result.group.label]) if result.final.n else "",
            _value(result.area),
            _interval(result.area),
        ]
        for result in results
    ]
    columns = ["", "seeds", "final", "95 %", "", "whole training", "95 %"]
    meaning = (
        f"{title_of(report.metric)}. Final: at the last step. Whole training: mean height of the curve, the area under "
        "it over its length. Both are interquartile means over seeds."
    )
    return [_table(columns, rows, numeric=(2, 5)), element("p", meaning, class_="soft")]


def _value(found: Estimate) -> str:
    return number(found.value, places_of(found)) if found.n else "-"


def _interval(found: Estimate) -> Child:
    return element("span", interval_text(found), class_="soft") if found.n else ""


def _differences(groups: Sequence[Group]) -> Child:
    """The settings that are not the same everywhere: chosen ones first, then those that follow from them."""
    if len(groups) == 1:
        return element("p", "Nothing but the seed." if len(groups[0].runs) > 1 else "One run: nothing to compare.")
    factors = list(dict.fromkeys(name for group in groups for name in group.factors))
    names = dict.fromkeys([*factors, *(name for group in groups for name in group.settings)])
    is_matrix = len(groups) <= MOST_COLUMNS and len(names) > len(factors)  # otherwise the labels say it all
    rows: list[list[Child]] = []
    for name in names:
        label = name if name in factors else element("span", name, class_="soft")
        values = [shown(group.settings[name]) if name in group.settings else "-" for group in groups]
        rows.append([label, *(values if is_matrix else [", ".join(dict.fromkeys(values))])])
    columns = [group.label for group in groups] if is_matrix else ["values"]
    return _table(["", *columns], rows)


def _importance(found: Importance | None) -> Child:
    """Shares of variance or rank correlations, the largest first."""
    if found is None or not found.figures:
        return []
    rows = []
    for name, figure in sorted(found.figures.items(), key=lambda item: -abs(item[1].value)):
        with_it = ", ".join(found.aliases.get(name, ()))
        label = [name, element("span", f" with {with_it}", class_="soft")] if with_it else name
        bar = element(
            "div", element("div", class_="bar", style=f"width:{100 * abs(figure.value):.1f}%"), class_="track"
        )
        text = share_text(figure) if found.is_grid else correlation_text(figure)
        rows.append([label, bar, text, percent(found.chance[name]) if name in found.chance else ""])
    columns = [
        "",
        "",
        "share of variance" if found.is_grid else "rank correlation",
        "by chance" if found.is_grid else "",
    ]
    return [_table(columns, rows), element("p", importance_method(found), class_="soft")]


def _health(report: Report) -> Child:
    """Each check that found something: cause, remedy, where."""
    blocks = [
        element(
            "div",
            element("h3", check.title),
            element("p", f"{check.cause[0].upper()}{check.cause[1:]}."),
            element("p", element("b", "Try: "), check.remedy, "."),
            _table(["", "seen in"], [[finding.group.label, statement(finding)] for finding in findings]),
            class_="check",
        )
        for check, findings in report.findings.items()
    ]
    return blocks or element("p", "Nothing to complain about.")


def _failures(report: Report) -> Child:
    return [
        element(
            "div",
            element("h3", f"{group.label}, seed {shown(run.seed)}: {run.status}"),
            element("p", f"At {steps_text(run.env_steps)} of {steps_text(run.total_env_steps)} steps.", class_="soft"),
            element("pre", last_lines(run)),
            element("code", go_on(run)),
            class_="check",
        )
        for group, run in report.failures
    ]


def _speed(results: Sequence[Result]) -> Child:
    """Steps a second, time a run, and where it goes."""
    rows = []
    for result in results:
        runs = result.group.runs
        rates = [rate for run in runs if math.isfinite(rate := speed(run))]
        shares = {part: median([final_value(run, f"time/{part}_share") for run in runs]) for part in PARTS}
        goes = ", ".join(f"{part} {percent(share)}" for part, share in shares.items() if math.isfinite(share))
        between = f"{number(min(rates), 0)} to {number(max(rates), 0)}" if len(rates) > 1 else ""
        duration = time_text(median([seconds(run) for run in runs]))
        rows.append([result.group.label, number(median(rates), 0), between, duration, goes])
    total = time_text(sum(value for result in results for run in result.group.runs if (value := seconds(run)) == value))
    columns = ["", "steps a second", "over seeds", "time a run", "where it goes"]
    return [_table(columns, rows, numeric=(1, 3)), element("p", f"All runs together: {total}.", class_="soft")]


def _commands(groups: Sequence[Group]) -> list[Markup]:
    """What repeats all seeds of a configuration, and folded below it each run."""
    blocks = []
    for group in groups:
        runs = [*group.runs, *group.repeated]
        alone = [[element("p", str(run.folder), class_="soft"), element("code", repeat(run))] for run in runs]
        several = [element("code", line) for line in repeat_all(group)] if len(group.runs) > 1 else alone
        folded = element("details", element("summary", plural(len(runs), "run")), alone) if len(runs) > 1 else ""
        blocks.append(element("div", element("h3", group.label), several, folded, class_="check"))
    return blocks


def _footnote() -> Markup:
    return element(
        "p",
        f"Intervals: percentiles of {RESAMPLES:,} bootstrap resamples of the seeds within each configuration, from a "
        "fixed generator. Of 3 seeds such an interval holds the true figure 75 times in 100, of 5 seeds 90 times, from "
        "8 on 94 times. The best of many configurations is partly luck: repeat it with fresh seeds before you believe "
        "its lead.",
        class_="soft footnote",
    )
