from __future__ import annotations

import io
import math

import pytest

from ppo_cli.progress import (
    PlainDisplay,
    Snapshot,
    Throughput,
    compact,
    duration,
    make_display,
    percent_done,
    plain_line,
    table,
)

SCALARS = {
    "charts/episodic_return": 0.421,
    "minesweeper/win_rate": 0.4213,
    "eval/win_rate": 0.9,
    "losses/kl": 0.00812,
    "losses/clipfrac": 0.112,
}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_plain_line_has_steps_rate_figures_and_time_left():
    snapshot = Snapshot(131_072, 1_000_000, rate=4210.4, scalars=SCALARS)
    assert plain_line(snapshot) == (
        "    131,072 / 1,000,000 steps  4,210 steps/s  return 0.42  win 42.1 %  kl 0.0081  clip 0.11  3:26 left"
    )


def test_figures_that_do_not_exist_yet_are_not_shown():
    snapshot = Snapshot(64, 128, rate=math.nan, scalars={"losses/kl": math.nan, "losses/clipfrac": 0.5})
    assert plain_line(snapshot) == "   64 / 128 steps  - steps/s  clip 0.50  -:-- left"


def test_plain_lines_come_at_once_then_every_ten_seconds_and_at_the_end():
    clock, stream = Clock(), io.StringIO()
    display = PlainDisplay(stream, clock)
    display.update(Snapshot(0, 30, math.nan))
    for second in range(15):
        clock.now = 1000.0 + second
        display.update(Snapshot(second + 1, 30, 1.0, {"losses/kl": 0.0}))
    display.close()
    steps = [int(printed.split("/")[0]) for printed in stream.getvalue().splitlines()]
    assert steps == [1, 11, 15]


def test_a_closed_pipe_does_not_end_the_run():
    class ClosedPipe(io.StringIO):
        attempts = 0

        def write(self, text):
            self.attempts += 1
            raise BrokenPipeError(32, "Broken pipe")

    pipe = ClosedPipe()
    display = PlainDisplay(pipe)
    display.update(Snapshot(1, 2, 1.0, {"losses/kl": 0.0}))
    display.note("still here")
    display.close()
    assert pipe.attempts == 1, "it tried, and then let it be"


def test_a_pipe_gets_plain_lines(capsys):
    display = make_display("auto")
    display.note("hello")
    assert isinstance(display, PlainDisplay)
    assert capsys.readouterr().out == "hello\n"


def test_silence_is_broken_by_warnings_alone(capsys):
    display = make_display("silent")
    display.note("a table")
    display.update(Snapshot(1, 2, 1.0, SCALARS))
    display.note("the disk is full", warning=True)
    display.close()
    assert capsys.readouterr() == ("", "warning: the disk is full\n")


def test_the_rate_of_the_run_leaves_out_the_first_update():
    clock = Clock()
    throughput = Throughput(0, clock)
    for now, env_steps in ((1060.0, 100), (1061.0, 200), (1062.0, 400)):
        clock.now = now
        throughput.mark(env_steps)
    assert throughput.total == 150.0
    assert throughput.interval == 200.0


def test_a_run_of_one_update_still_has_a_rate():
    clock = Clock()
    throughput = Throughput(500, clock)
    assert math.isnan(throughput.recent)
    clock.now += 2
    throughput.mark(600)
    assert throughput.total == throughput.interval == throughput.recent == 50.0


def test_the_shown_rate_forgets_what_is_older_than_half_a_minute():
    clock = Clock()
    throughput = Throughput(0, clock)
    env_steps = 0
    for second in range(1, 81):
        clock.now = 1000.0 + second
        env_steps += 10 if second <= 40 else 30
        throughput.mark(env_steps)
    assert throughput.recent == 30.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7, "0:07"),
        (-3, "0:00"),
        (200.4, "3:20"),
        (59.6, "1:00"),
        (3723, "1:02:03"),
        (math.nan, "-:--"),
        (math.inf, "-:--"),
    ],
)
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-1234.5, "-1,234"), (475.32, "475.3"), (0.421, "0.42"), (-9.876, "-9.88"), (0.0, "0.00")]
)
def test_numbers_keep_the_digits_that_matter(value, text):
    assert compact(value) == text


def test_nothing_is_complete_before_it_is():
    assert percent_done(Snapshot(999_999, 1_000_000, 1.0)) == 99
    assert percent_done(Snapshot(1_000_448, 1_000_000, 1.0)) == 100


def test_table_values_are_aligned():
    assert table({"batch": "4,096", "minibatch": "1,024"}) == "  batch       4,096\n  minibatch   1,024"
