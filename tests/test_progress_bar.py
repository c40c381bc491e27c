from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from ppo_cli.progress import Snapshot
from ppo_cli.progress_bar import SPARKLINE, BarDisplay, sparkline

SCALARS = {
    "charts/episodic_return": 0.421,
    "minesweeper/win_rate": 0.4213,
    "losses/kl": 0.00812,
    "losses/clipfrac": 0.112,
    "losses/entropy": 2.1,
    "losses/explained_variance": 0.52,
}


def frame(width, *snapshots, clock=lambda: 0.0):
    """The lines of one frame on a terminal this wide."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    display = BarDisplay(console, clock)
    for snapshot in snapshots:
        display.update(snapshot)
    display.close()
    with console.capture() as captured:
        console.print(display)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_wide_terminal_shows_everything():
    bar, below = frame(120, Snapshot(420_864, 1_000_000, 4210.0, SCALARS))
    assert bar.endswith(" 42 %   420,864 / 1,000,000   4,210 steps/s   2:18 left")
    assert below.startswith("  ▁ ")
    assert below.endswith("   return 0.42   win 42.1 %   kl 0.0081   clip 0.11   entropy 2.10   explained 0.52")


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 120, 200])
def test_a_frame_is_two_lines_that_fit_at_any_width(width):
    lines = frame(width, Snapshot(420_864, 1_000_000_000, 4210.0, SCALARS))
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert " 0 %" in lines[0]


def test_the_least_telling_figures_go_first_on_a_narrow_terminal():
    bar, below = frame(44, Snapshot(420_864, 1_000_000, 4210.0, SCALARS))
    assert bar.endswith("42 %   2:18 left")
    assert below == "  return 0.42   win 42.1 %   kl 0.0081"


def test_the_time_left_runs_down_between_updates():
    times = iter([0.0, 0.0])
    bar, _ = frame(120, Snapshot(500, 1000, 10.0, SCALARS), clock=lambda: next(times, 20.0))
    assert bar.endswith("0:30 left")


def test_before_the_first_update_the_bar_says_what_is_going_on():
    times = iter([0.0, 0.0])
    bar, below = frame(80, Snapshot(0, 1000, math.nan), clock=lambda: next(times, 20.0))
    assert bar.endswith("0 %   0 / 1,000   - steps/s   -:-- left")
    assert below == "  the first update is under way, start-up included   0:20"


def test_brackets_in_a_folder_name_are_not_markup():
    console = Console(file=io.StringIO(), width=20, force_terminal=True, color_system=None)
    BarDisplay(console).note("  run folder   outputs/[bold]run[/]/a-name-that-is-longer-than-the-terminal")
    assert console.file.getvalue() == "  run folder   outputs/[bold]run[/]/a-name-that-is-longer-than-the-terminal\n"


def test_the_small_curve_spans_its_own_range():
    assert sparkline([0.0, 7.0, 3.0], 16) == "▁█▄"
    assert sparkline([5.0, 5.0], 16) == "▁▁"
    assert sparkline([], 16) == ""


def test_a_long_history_is_averaged_into_the_small_curve():
    assert sparkline([0.0, 2.0, 6.0, 8.0], 2) == "▁█"
    assert len(sparkline([float(index) for index in range(1000)], SPARKLINE)) == SPARKLINE
