from __future__ import annotations

import re
import signal
import threading
import time

import numpy as np
import pytest

from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.play import colour, plain
from ppo_cli.play.agent import Moment
from ppo_cli.play.heat import heat
from ppo_cli.play.terminal import (
    ENTER,
    LEAVE,
    Player,
    footer,
    full_screen,
    has_colour,
    is_interactive,
    make_console,
    print_games,
)
from tests.play.helpers import Preference, Terminal, agent, minesweeper_agent, terminal


def moment(choice: int = 1) -> Moment:
    board = np.array([[-1, -1, 2], [0, -1, 8]], np.int8)
    probs = np.array([0.0, 1.0, 0.0, 0.0, 0.25, 0.0])
    return Moment(3, 0.5, 0.2, probs, np.array(choice), done=False, success=None, board=board, win=0.75)


def play(shown: Terminal, keys: str, seeds: range, fps: float = 100.0) -> Player:
    """The episodes of ``seeds`` with one key pressed after the other, each once the screen stands still."""
    player = Player([minesweeper_agent()], fps)

    def press() -> None:
        for key in keys:
            before = -1
            while len(shown.screen) != before:
                before = len(shown.screen)
                time.sleep(0.1)
            shown.press(key)

    hands = threading.Thread(target=press)
    hands.start()
    player.play(seeds)
    hands.join()
    return player


def test_a_terminal_gets_its_screen_back_after_every_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        before = shown.modes
        for error in (RuntimeError, KeyboardInterrupt, SystemExit):
            with pytest.raises(error), full_screen(lambda: None):
                assert shown.modes != before
                raise error
            assert shown.modes == before
        time.sleep(0.1)
        assert shown.screen == (ENTER + LEAVE) * 3


def test_an_agent_that_raises_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        before = shown.modes
        broken = agent(MinesweeperVecEnv(1, height=3, width=3, mines=1, backend="reference"), None)
        with pytest.raises(TypeError):
            Player([broken], 10).play([1])
        assert shown.modes == before
        time.sleep(0.1)
        assert shown.screen.endswith(LEAVE)


def test_a_suspended_program_gives_the_terminal_back_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        before, modes, returns = shown.modes, [], []
        found = signal.getsignal(signal.SIGTSTP)
        monkeypatch.setattr("os.kill", lambda _pid, _number: modes.append(shown.modes))  # in place of standing still
        with full_screen(lambda: returns.append(True)):
            inside = shown.modes
            signal.raise_signal(signal.SIGTSTP)
            assert (modes, returns, shown.modes) == ([before], [True], inside)
        assert signal.getsignal(signal.SIGTSTP) == found


def test_it_runs_by_itself_and_counts_the_games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppo_cli.play.terminal.END_PAUSE", 0.0)
    with terminal(monkeypatch, COLORTERM="truecolor") as shown:
        player = play(shown, "", range(1, 4))
    assert player.scores[0].episodes == 3
    assert "seed 3" in shown.screen and "\033[" in shown.screen


def test_space_steps_and_q_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, NO_COLOR="1") as shown:
        player = play(shown, "  q", range(1, 100), fps=0.2)
    assert player.scores[0].episodes == 0 and not player.is_running
    assert "click 3:" in shown.screen and "click 4:" not in shown.screen


def test_n_goes_to_the_next_game_and_plus_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, NO_COLOR="1") as shown:
        player = play(shown, "nn++-q", range(7, 100), fps=0.2)
    assert "seed 9" in shown.screen and "seed 10" not in shown.screen
    assert player.fps == pytest.approx(0.3)


def test_r_pauses_and_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown:
        assert not play(shown, "rq", range(1, 100), fps=0.2).is_running
    with terminal(monkeypatch) as shown:
        assert play(shown, "rrq", range(1, 100), fps=0.2).is_running


def test_a_keyboard_that_is_gone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch):
        monkeypatch.setattr("os.read", lambda *_: b"")
        monkeypatch.setattr("select.select", lambda *_: ([0], [], []))
        assert Player([minesweeper_agent()], 1).play(range(1, 100))[0].episodes == 0


@pytest.mark.parametrize(
    ("environment", "system"),
    [
        ({"COLORTERM": "truecolor"}, "truecolor"),
        ({"COLORTERM": "24bit"}, "truecolor"),
        ({}, "256"),
        ({"NO_COLOR": "1"}, None),
    ],
)
def test_the_terminal_says_how_many_colours_it_has(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], system: str | None
) -> None:
    with terminal(monkeypatch, **environment):
        assert make_console().color_system == system
        assert (has_colour(), is_interactive()) == (system is not None, True)


def test_a_dumb_terminal_is_not_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch, TERM="dumb"):
        assert (has_colour(), is_interactive()) == (False, False)


def test_what_is_printed_has_no_codes_and_shows_probabilities_as_digits(capsys: pytest.CaptureFixture[str]) -> None:
    scores = print_games([minesweeper_agent(name="ours")], [1, 2])
    out = capsys.readouterr().out
    assert "\033" not in out
    assert out.startswith("ours   seed 1   click 1: row 1, column 1, 63.2 %   win 0.0 %\n  . . .    [63]  23    9\n")
    assert scores[0].episodes == 2 and out.count("after") == 2


def test_plain_text_puts_the_choice_in_brackets() -> None:
    assert plain.board_lines(moment()) == ["  . . 2      0 [100]   .", "    . 8      .   25    ."]


def test_a_hidden_cell_has_its_colour_and_the_chosen_one_brackets() -> None:
    text = colour.board_text(moment(), (3, 1))
    assert text.plain == "   [ ] 2 \n       8 "
    papers = [style.style.bgcolor.triplet for style in text.spans]  # type: ignore[union-attr]
    expected = [tuple(np.rint(0.82 * heat(prob)).astype(int).tolist()) for prob in (0.0, 1.0, 0.25)]
    assert [tuple(papers[cell]) for cell in (0, 1, 4)] == expected
    assert tuple(papers[2]) == tuple(papers[3]) == colour.SHOWN


def test_cells_are_as_large_as_the_room_allows() -> None:
    assert colour.cell_size((9, 9), 80, 40) == (7, 3)
    assert colour.cell_size((9, 9), 80, 20) == (3, 1)
    assert colour.cell_size((16, 30), 80, 20) == (2, 1)
    assert colour.cell_size((16, 30), 20, 20) == (2, 1)
    large = colour.board_text(moment(), (7, 3)).plain.split("\n")
    assert len(large) == 6 and {len(line) for line in large} == {21}
    assert large[1] == "       [     ]   2   "


@pytest.mark.parametrize(("win", "full"), [(0.0, 0), (0.5, 8), (1.0, 16)])
def test_the_bar_is_full_where_winning_is_certain(win: float, full: int) -> None:
    bar = colour.win_bar(win, 28)
    assert len(bar.plain) == 28 and bar.plain.endswith(f"win {100 * win:5.1f} %")
    filled = sum(span.end - span.start for span in bar.spans if span.style.bgcolor.triplet == colour.BAR_FULL)  # type: ignore[union-attr]
    assert filled == full


def test_half_blocks_are_two_pixels_each() -> None:
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[0, 0], frame[1, 0] = (255, 0, 0), (0, 255, 0)
    text = colour.half_blocks(frame, 80, 20)
    assert text.plain == "\n".join(["▀" * 6] * 2)
    first = text.spans[0].style
    assert (first.color.triplet, first.bgcolor.triplet) == ((255, 0, 0), (0, 255, 0))  # type: ignore[union-attr]
    assert max(map(len, colour.half_blocks(np.zeros((400, 600, 3), np.uint8), 40, 10).plain.split("\n"))) <= 40


@pytest.mark.parametrize("width", [100, 90, 80, 60, 40, 20])
def test_every_key_is_named_however_narrow_the_terminal(width: int) -> None:
    text = footer(100.0, width)
    assert len(text) + 2 <= width
    for key in ("space", "r", "+", "-", "n", "q"):
        assert re.search(rf"(^|[\[ ]){re.escape(key)}", text)


def test_the_status_says_what_comes_and_how_it_ended() -> None:
    assert plain.status(moment()) == "click 4: row 1, column 2, 100.0 %"
    *_, end = minesweeper_agent().episode(1)
    assert plain.status(end) == f"{'won' if end.success else 'lost'} after {end.step} click{'s' * (end.step > 1)}"
    carts = agent(__import__("ppo_cli.envs.cartpole", fromlist=["CartPole"]).CartPole(1), Preference([1, 0]))
    first, *_, last = carts.episode(1)
    assert plain.status(first) == "step 0, return 0, V 0, action 1, 73.1 %"
    assert plain.status(last) == f"ended at step {last.step}, return {last.step}"
