"""The charts as PNG files, by matplotlib, which is imported when the first one is drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_cli.report.charts import PALETTE, Chart, colours_of, diagnostic_charts, performance_charts, spread, title_of
from ppo_cli.report.numbers import number, steps_text
from ppo_cli.report.results import Result, ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ppo_cli.report.analysis import Report

REST = "#C3C8CF"
INK = "#1C1E21"
SOFT = "#5F6670"
RULE = "#E2E5E9"
DPI = 160
LOOK: Any = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "text.parse_math": False,  # a run may be called $x$
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


def save_figures(report: Report, folder: Path) -> list[Path]:
    """Draw the learning curves, the results and the course of the updates.

    Returns:
        The files, ``return.png``-like, in a folder that is made.

    Raises:
        OSError: the folder cannot be written.
    """
    import matplotlib

    with matplotlib.rc_context(LOOK):
        figures = {
            file_name(chart.tag): curves_figure(chart) for chart in performance_charts(report.results, report.metric)
        }
        if any(result.final.n for result in report.results):
            figures["results"] = results_figure(report.results, report.metric)
        if charts := diagnostic_charts(report.results):
            figures["updates"] = updates_figure(charts)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.png" for name in figures]
        for path, figure in zip(paths, figures.values(), strict=True):
            figure.savefig(path, dpi=DPI)
    return paths


def file_name(tag: str) -> str:
    """``charts/episodic_return`` as ``charts_episodic_return``; never a path."""
    return re.sub(r"[^\w.-]+", "_", tag, flags=re.ASCII).strip(".")[:80] or "figure"


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure in inches, drawn without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colour(place: int | None) -> str:
    """Of a configuration; grey in the background."""
    return REST if place is None else PALETTE[place]


def curves_figure(chart: Chart) -> Figure:
    """A large chart with the names of the curves at their ends."""
    figure = new_figure(8, 4.2)
    axes = figure.add_subplot()
    plot(axes, chart)
    figure.suptitle(chart.title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    axes.set_xlabel("environment steps")
    figure.supxlabel(chart.note, x=0.01, ha="left", color=SOFT, fontsize=8)
    labelled = [series for series in chart.series if series.colour is not None]
    ends = [float(chart.y(series.band.value[-1:])[0]) for series in labelled]
    for series, place in zip(labelled, spread(ends, 0.052, 0.0, 1.0), strict=True):
        axes.annotate(
            series.label,
            (1.0, place),
            (6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            color=colour(series.colour),
            fontweight="bold",
            fontsize=9,
        )
    return figure


def plot(axes: Axes, chart: Chart) -> None:
    """Bands, curves and light rules on the chart's own scales."""
    for series in sorted(chart.series, key=lambda series: series.colour is not None):
        found, own = series.band, colour(series.colour)
        if series.colour is not None and chart.with_bands:
            axes.fill_between(found.env_steps, found.low, found.high, color=own, alpha=0.17, linewidth=0)
        whole = found.n == found.n.max()
        width = 0.8 if series.colour is None else 1.7
        alone = "." if len(found.value) == 1 else None
        axes.plot(found.env_steps, np.where(whole, found.value, np.nan), color=own, linewidth=width, marker=alone)
        axes.plot(found.env_steps, np.where(whole, np.nan, found.value), color=own, linewidth=width, linestyle=":")
    if chart.y.is_log:
        axes.set_yscale("log")
    axes.set_xlim(chart.x.low, chart.x.high)
    axes.set_ylim(chart.y.low, chart.y.high)
    axes.set_xticks(chart.x.ticks(), [steps_text(tick) for tick in chart.x.ticks()])
    axes.set_yticks(chart.y.ticks(), [number(tick) for tick in chart.y.ticks()])
    axes.minorticks_off()
    if chart.reference is not None and chart.y.low < chart.reference < chart.y.high:
        axes.axhline(chart.reference, color=SOFT, linestyle=(0, (1, 3)), linewidth=1.2)
    quiet(axes)


def quiet(axes: Axes) -> None:
    """Rules across, and nothing else around the data."""
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def updates_figure(charts: Sequence[Chart]) -> Figure:
    """Small charts, four in a row, with one legend."""
    columns = min(4, len(charts))
    rows = -(-len(charts) // columns)
    figure = new_figure(2.9 * columns, 2.2 * rows + 0.5)
    for place, chart in enumerate(charts):
        axes = figure.add_subplot(rows, columns, place + 1)
        plot(axes, chart)
        axes.set_xticks(chart.x.ticks(3), [steps_text(tick) for tick in chart.x.ticks(3)])
        axes.set_title(chart.title, loc="left", fontweight="bold", fontsize=9.5)
        axes.set_xlabel("environment steps" if place >= len(charts) - columns else "")
    from matplotlib.lines import Line2D

    named = {series.label: series.colour for chart in charts for series in chart.series if series.colour is not None}
    handles = [Line2D([], [], color=colour(place), linewidth=2) for place in named.values()]
    figure.legend(handles, list(named), loc="outside lower left", ncols=min(3, len(named)), frameon=False)
    return figure


def results_figure(results: Sequence[Result], metric: str) -> Figure:
    """Final figures with their intervals, the highest on top."""
    shown = [result for result in ranked(results) if result.final.n]
    colours = colours_of(results)
    figure = new_figure(7, 0.9 + 0.3 * len(shown))
    axes = figure.add_subplot()
    for place, result in enumerate(shown):
        own = colour(colours[result.group.label])
        axes.plot([result.final.low, result.final.high], [place, place], color=own, linewidth=3, alpha=0.5)
        axes.plot([result.final.value], [place], "o", color=own)
    axes.set_yticks(range(len(shown)), [f"{result.group.label}, n={result.final.n}" for result in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    title = f"{title_of(metric)}: final, with 95 % intervals"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    quiet(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    return figure
