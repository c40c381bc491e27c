"""How the claims' figures look: colours that the colour-blind tell apart, names beside the lines, intervals shaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppo_cli.report.runs import Curve
from ppo_cli.report.statistics import Band, Estimate, band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#555555")
"""Okabe and Ito's, without black and yellow."""
GREY = "#888888"
STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def shaded_line(axes: Axes, x: Sequence[float], figures: Sequence[Estimate], colour: str, **style: Any) -> None:  # noqa: ANN401
    """Figures along x as a line, their intervals as a shade."""
    low, high = ([getattr(figure, bound) for figure in figures] for bound in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, [figure.value for figure in figures], color=colour, marker="o", markersize=4, **style)


def learning_curve(axes: Axes, curves: Sequence[Curve], colour: str) -> Band:
    """Interquartile mean over seeds, and its interval as a shade."""
    drawn = band(curves)
    axes.fill_between(drawn.env_steps, drawn.low, drawn.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(drawn.env_steps, drawn.value, color=colour, linewidth=1.6)
    return drawn


def name_lines(axes: Axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Write each line's name beside its end (x, y), moved apart where they would overlap. Call when limits are set."""
    if not ends:
        return
    axes.figure.draw_without_rendering()
    points = {name: axes.transData.transform(end) for name, end in ends.items() if np.isfinite(end).all()}
    height = 11 * axes.figure.dpi / 72
    previous = -np.inf
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        previous = max(y, previous + height)
        shift = (previous - y) * 72 / axes.figure.dpi
        axes.annotate(
            name,
            ends[name],
            xytext=(6, shift),
            textcoords="offset points",
            color=colours[name],
            va="center",
            annotation_clip=False,
        )


def thousands(axes: Axes, axis: str = "x") -> None:
    """60k rather than 60000."""
    from matplotlib.ticker import FuncFormatter

    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value else "0"))
