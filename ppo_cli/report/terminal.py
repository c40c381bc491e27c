"""The report as text, for a terminal or a log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ppo_cli.report.analysis import (
    Report,
    correlation_text,
    counts_text,
    importance_method,
    last_lines,
    share_text,
    statement,
)
from ppo_cli.report.charts import title_of
from ppo_cli.report.commands import go_on, repeat_all
from ppo_cli.report.groups import Group, shown
from ppo_cli.report.importance import Importance
from ppo_cli.report.numbers import estimate_text, number, percent, steps_text, time_text
from ppo_cli.report.results import Result, median, ranked, seconds, speed
from ppo_cli.report.statistics import Band, band

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 24


def text(report: Report) -> str:
    """Everything, in sections; no colours, no line that a wide terminal breaks but commands and what runs said."""
    parts = [
        [report.title, report.subtitle],
        report.verdict,
        _headed("what differed", _differences(report.groups)),
        _headed(f"results: {title_of(report.metric)}", _results(report)),
        _headed("which setting mattered", _importance(report.importance)),
        _headed("health", _health(report) or ["nothing to complain about"]),
        _headed("failures", _failures(report)),
        _headed("speed", _speed(report.results)),
        _headed("commands", [line for group in report.groups for line in repeat_all(group)]),
    ]
    return printable("\n\n".join("\n".join(f"  {line}".rstrip() for line in part) for part in parts if part))


def printable(text: str) -> str:
    """Without the control characters that could drive a terminal."""
    return "".join(letter if letter == "\n" or letter.isprintable() else "?" for letter in text)


def _headed(heading: str, lines: Sequence[str]) -> list[str]:
    return [heading.upper(), *lines] if lines else []


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows whose cells stand under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _differences(groups: Sequence[Group]) -> list[str]:
    names = dict.fromkeys(name for group in groups for name in (*group.factors, *group.settings))
    values: dict[str, Iterable[str]] = {
        name: dict.fromkeys(shown(group.settings[name]) if name in group.settings else "-" for group in groups)
        for name in names
    }
    return columns([[name, ", ".join(found)] for name, found in values.items()]) if values else []


def _results(report: Report) -> list[str]:
    rows = [["", "seeds", "final (95 %)", "whole training (95 %)", "curve"]]
    for result in ranked(report.results):
        curves = [curve for run in result.group.runs if len((curve := run.curve(report.metric)).value)]
        figures = [counts_text(result), estimate_text(result.final), estimate_text(result.area)]
        rows.append([result.group.label, *figures, sparkline(band(curves, WIDTH))])
    return columns(rows)


def sparkline(found: Band) -> str:
    """A curve in one line, from its lowest to its highest."""
    values = found.value[math.ceil(len(found.value) / WIDTH) - 1 :: math.ceil(len(found.value) / WIDTH) or 1]
    if len(values) == 0:
        return ""
    low, high = values.min(), values.max()
    places = (values - low) / (high - low or 1) * (len(BLOCKS) - 1)
    return "".join(BLOCKS[round(float(place))] for place in places)


def _importance(found: Importance | None) -> list[str]:
    if found is None or not found.figures:
        return []
    rows = []
    for name, figure in sorted(found.figures.items(), key=lambda item: -abs(item[1].value)):
        chance = f"by chance {percent(found.chance[name])}" if name in found.chance else ""
        shared = f"with {', '.join(found.aliases[name])}" if found.aliases.get(name) else ""
        rows.append([name, share_text(figure) if found.is_grid else correlation_text(figure), chance, shared])
    return [*columns(rows), importance_method(found)]


def _health(report: Report) -> list[str]:
    lines = []
    for check, findings in report.findings.items():
        lines += [f"{check.title}: {check.cause}", f"  try: {check.remedy}"]
        lines += [f"  {line}" for line in columns([[each.group.label, statement(each)] for each in findings])]
    return lines


def _failures(report: Report) -> list[str]:
    lines = []
    for group, run in report.failures:
        reached = f"at {steps_text(run.env_steps)} of {steps_text(run.total_env_steps)} steps"
        lines += [f"{group.label}, seed {shown(run.seed)}: {run.status} {reached}"]
        lines += [*(f"  {line}" for line in last_lines(run).splitlines()), f"  {go_on(run)}"]
    return lines


def _speed(results: Sequence[Result]) -> list[str]:
    rows = []
    for result in results:
        runs = result.group.runs
        rate = number(median([speed(run) for run in runs]), 0)
        rows.append(
            [result.group.label, f"{rate} steps/s", f"{time_text(median([seconds(run) for run in runs]))} a run"]
        )
    return columns(rows)
