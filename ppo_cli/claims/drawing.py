"""How the claims' figures are drawn, in the look of the report: names beside the lines, intervals as shades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_cli.report.charts import PALETTE, spread
from ppo_cli.report.figures import quiet
from ppo_cli.report.numbers import number, steps_text
from ppo_cli.report.runs import Curve
from ppo_cli.report.statistics import Estimate, band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADE = 0.17
LABEL_HEIGHT = 13.0  # points
Ends = Mapping[str, tuple[float, float]]
"""Where each line ends, in data: x, y."""


def shaded_line(axes: Axes, x: Sequence[float], figures: Sequence[Estimate], colour: str) -> None:
    """Figures along x as a line with dots, their intervals as a shade."""
    low, high = ([getattr(figure, bound) for figure in figures] for bound in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=SHADE, linewidth=0)
    axes.plot(x, [figure.value for figure in figures], color=colour, marker="o", markersize=4)


def learning_curves(axes: Axes, curves: Mapping[str, Sequence[Curve]], colours: Mapping[str, str]) -> None:
    """The interquartile mean over seeds of each configuration, its interval as a shade, its name at its end."""
    ends = {}
    for name, seeds in curves.items():
        drawn = band(seeds)
        axes.fill_between(drawn.env_steps, drawn.low, drawn.high, color=colours[name], alpha=SHADE, linewidth=0)
        axes.plot(drawn.env_steps, drawn.value, color=colours[name])
        ends[name] = (float(drawn.env_steps[-1]), float(drawn.value[-1]))
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(lambda value, _: steps_text(value))
    name_lines(axes, ends, colours)


def name_lines(axes: Axes, ends: Ends, colours: Mapping[str, str]) -> None:
    """Write each line's name to the right of its end, moved apart where names would overlap."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(np.clip(np.nan_to_num(to_axes.transform(end)[1]), 0, 1)) for end in ends.values()]
    gap = LABEL_HEIGHT / 72 * figure.dpi / axes.get_window_extent().height
    for name, place in zip(ends, spread(heights, gap, 0.0, 1.0), strict=True):
        style: Any = {"va": "center", "color": colours[name], "fontweight": "bold", "fontsize": 9}
        axes.annotate(name, (1.0, place), (5, 0), xycoords="axes fraction", textcoords="offset points", **style)


def note(
    axes: Axes, text: str, place: tuple[float, float], colour: str, shift: tuple[float, float], align: str = "left"
) -> None:
    """Words beside a point of the data, ``shift`` points away, their ``align`` end there."""
    style: Any = {"color": colour, "fontweight": "bold", "fontsize": 9, "annotation_clip": False}
    axes.annotate(text, place, shift, textcoords="offset points", ha=align, va="center", **style)


def finish(axes: Axes, title: str, *, rules: str = "y") -> None:
    """Heading, light rules along one axis, and plain numbers on logarithmic ones."""
    axes.set_title(title, loc="left", fontweight="bold", fontsize=9.5)
    quiet(axes)
    if rules != "y":
        axes.grid(visible=False)
        axes.grid(axis="x", color="#E2E5E9", linewidth=0.8)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(lambda value, _: number(value))
            axis.set_minor_formatter(lambda *_: "")


def colours_for(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in order; they come again where there are more names than colours."""
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}
