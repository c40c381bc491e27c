"""Charts as inline SVG: themed by the page's style sheet, readable at the width they are made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppo_cli.report.charts import Chart, Series, spread
from ppo_cli.report.markup import Markup, element
from ppo_cli.report.numbers import number, steps_text
from ppo_cli.report.statistics import Array, Band, Estimate

CHARACTER = 7.0
"""Width of a letter in the labels, about."""
LINE = 15.0
TOP = 10.0


@dataclass(frozen=True)
class Frame:
    """Where a chart's axes lie, in pixels."""

    left: float
    right: float
    bottom: float

    def x(self, place: Array) -> Array:
        """From 0 .. 1 to the right."""
        return self.left + place * (self.right - self.left)

    def y(self, place: Array) -> Array:
        """From 0 .. 1 upwards."""
        return self.bottom - place * (self.bottom - TOP)


def draw(chart: Chart, width: int, height: int, *, with_labels: bool) -> Markup:
    """A chart of this size; ``with_labels`` names the curves at their ends, to the right."""
    labelled = [series for series in chart.series if series.colour is not None] if with_labels else []
    room = max((CHARACTER * len(series.label) + 14 for series in labelled), default=10)
    texts = [number(tick) for tick in chart.y.ticks()]
    frame = Frame(12 + CHARACTER * max(map(len, texts)), width - room, height - 36)
    background = [_series(chart, frame, series) for series in chart.series if series.colour is None]
    foreground = [_series(chart, frame, series) for series in chart.series if series.colour is not None]
    return element(
        "svg",
        element("title", chart.title),
        _axes(chart, frame, width, height),
        background,
        foreground,
        _labels(chart, frame, labelled),
        viewBox=f"0 0 {width} {height}",
        role="img",
        class_="chart",
    )


def _axes(chart: Chart, frame: Frame, width: int, height: int) -> list[Markup]:
    """Light rules across, numbers beside them, the unit below."""
    parts = []
    for tick in chart.y.ticks():
        y = _px(frame.y(chart.y(np.array(tick))))
        parts.append(element("line", x1=_px(frame.left), x2=_px(frame.right), y1=y, y2=y, class_="rule"))
        parts.append(element("text", number(tick), x=_px(frame.left - 6), y=y, dy="0.32em", class_="tick end"))
    if chart.reference is not None and chart.y.low < chart.reference < chart.y.high:
        y = _px(frame.y(chart.y(np.array(chart.reference))))
        parts.append(element("line", x1=_px(frame.left), x2=_px(frame.right), y1=y, y2=y, class_="reference"))
    for tick in chart.x.ticks(6 if width > 500 else 4):
        x = _px(frame.x(chart.x(np.array(tick))))
        parts.append(element("text", steps_text(tick), x=x, y=_px(frame.bottom + 16), class_="tick middle"))
    middle = _px((frame.left + frame.right) / 2)
    return [*parts, element("text", "environment steps", x=middle, y=height - 4, class_="unit middle")]


def _series(chart: Chart, frame: Frame, series: Series) -> Markup:
    """Band, solid line, and a dashed one where runs have ended."""
    found = series.band
    style = "rest" if series.colour is None else f"c{series.colour}"
    x, whole = frame.x(chart.x(found.env_steps)), found.n == found.n.max()
    parts = [element("title", f"{series.label}, n={found.n.max()}")]
    if series.colour is not None and chart.with_bands and np.isfinite(found.low).any():
        parts.append(element("path", d=_area(chart, frame, found), class_="band"))
    y = frame.y(chart.y(found.value))
    ending = ~whole | np.roll(~whole, -1)
    for mask, kind in ((whole, "line"), (ending & (np.arange(len(whole)) >= whole.argmax()), "line dashed")):
        if path := _path(x, np.where(mask, y, np.nan)):
            parts.append(element("path", d=path, class_=kind))
    return element("g", parts, class_=style)


def _path(x: Array, y: Array) -> str:
    """Move and line commands through the points that are known; a point alone becomes a dot."""
    known = np.isfinite(y)
    words = []
    for index in np.flatnonzero(known):
        starts = index == 0 or not known[index - 1]
        words.append(f"{'M' if starts else 'L'}{_px(x[index])} {_px(y[index])}")
        if starts and (index + 1 == len(y) or not known[index + 1]):
            words.append("h0.1")
    return "".join(words) if known.sum() > 1 or len(y) == 1 else ""


def _area(chart: Chart, frame: Frame, found: Band) -> str:
    """Around the band, along its upper edge and back along the lower one."""
    known = np.isfinite(found.low)
    x = frame.x(chart.x(found.env_steps[known]))
    high, low = frame.y(chart.y(found.high[known])), frame.y(chart.y(found.low[known]))
    there = [f"{_px(a)} {_px(b)}" for a, b in zip(x, high, strict=True)]
    back = [f"{_px(a)} {_px(b)}" for a, b in zip(x[::-1], low[::-1], strict=True)]
    return f"M{'L'.join([*there, *back])}Z"


def _labels(chart: Chart, frame: Frame, series: list[Series]) -> list[Markup]:
    """Names beside the ends of the curves, moved apart where they would overlap."""
    ends = [float(frame.y(chart.y(each.band.value[-1:]))[0]) for each in series]
    places = spread(ends, LINE, TOP, frame.bottom)
    return [
        element("text", each.label, x=_px(frame.right + 8), y=_px(y), dy="0.32em", class_=f"name c{each.colour}")
        for each, y in zip(series, places, strict=True)
    ]


def whisker(found: Estimate, low: float, high: float, colour: int | None) -> Markup:
    """A value and its interval as a dot on a line, on a scale that the rows of a table share."""
    width, height = 150, 18

    def x(value: float) -> str:
        return _px(6 + (value - low) / ((high - low) or 1) * (width - 12))

    parts = [element("line", x1=6, x2=width - 6, y1=height / 2, y2=height / 2, class_="rule")]
    if found.has_interval:
        parts.append(element("line", x1=x(found.low), x2=x(found.high), y1=9, y2=9, class_="interval"))
    parts.append(element("circle", cx=x(found.value), cy=height / 2, r=4, class_="dot"))
    style = "rest" if colour is None else f"c{colour}"
    return element("svg", element("g", parts, class_=style), viewBox=f"0 0 {width} {height}", class_="whisker")


def _px(value: float | Array) -> str:
    """A tenth of a pixel is enough."""
    return f"{float(value):.1f}".removesuffix(".0")
