"""Watching in a terminal: the whole screen, and keys to step, run, speed up and leave."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ppo_cli.play import colour, plain
from ppo_cli.play.agent import Agent, Moment, Score, side_by_side

Decision = Literal["step", "skip", "quit"]

ENTER, LEAVE = "\033[?1049h\033[?25l", "\033[0m\033[?25h\033[?1049l"
"""To a screen of our own without a cursor, and back."""

KEYS = (
    "[space] step   [r] run or pause   [+ -] speed {fps:.3g} a second   [n] next   [q] quit",
    "[space] step  [r]un  [+ -] {fps:.3g}/s  [n]ext  [q]uit",
    "space r + - n q",
)
"""The longest that fits is shown."""
FASTER = 1.5
SPEEDS = 0.2, 100.0  # steps per second
END_PAUSE = 1.5  # seconds that the end of an episode stays while running
SHOWN_AT_LEAST = 0.1  # seconds between two screens where drawing is slower than the steps
LOOK_INTERVAL = 0.5  # seconds after which a change of the window's size is noticed
GAP = 4  # columns between two agents
FURNITURE = 10  # rows above and below what an agent sees
MIN_BAR = 28  # columns


def is_interactive() -> bool:
    """Whether there are a screen to draw on and keys to read."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colour() -> bool:
    """Whether standard output shows colours and nobody asked for none (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def make_console() -> Console:
    """In 24-bit colour where the terminal says that it has it, in 256 colours otherwise, or in none."""
    many = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    system: Literal["truecolor", "256"] = "truecolor" if many else "256"
    return Console(color_system=system if has_colour() else None, highlight=False, emoji=False, markup=False)


def print_games(agents: Sequence[Agent], seeds: Iterable[int]) -> list[Score]:
    """Print each moment of the episodes, one under the other, without waiting for anything. Returns the scores."""
    scores = [Score() for _ in agents]
    console = make_console()
    for seed in seeds:
        for index, agent in enumerate(agents):
            for moment in agent.episode(seed):
                if moment.done:
                    scores[index].add(moment)
                if has_colour() and moment.board is not None:
                    console.print(
                        View(console, agents[index : index + 1]).panel(agent, moment, scores[index], seed), ""
                    )
                else:
                    for line in plain.moment_lines(agent.name, seed, moment):
                        print(line)
    return scores


class View:
    """What stands on the screen: the agents from left to right."""

    def __init__(self, console: Console, agents: Sequence[Agent]) -> None:
        self.console = console
        self.agents = agents

    def screen(self, moments: Sequence[Moment], scores: Sequence[Score], seed: int, footer: str) -> Padding:
        """Every agent's panel, and the keys below."""
        grid = Table.grid(padding=(0, GAP, 0, 0))
        for _ in self.agents:
            grid.add_column(no_wrap=True, overflow="crop")
        rows = zip(self.agents, moments, scores, strict=True)
        grid.add_row(*(self.panel(agent, moment, score, seed) for agent, moment, score in rows))
        page = Table.grid()
        for row in (grid, "", Text(footer, "dim", no_wrap=True, overflow="crop")):
            page.add_row(row)
        return Padding(page, (1, 0, 0, 2))

    def panel(self, agent: Agent, moment: Moment, score: Score, seed: int) -> Table:
        """One agent: its name, what it sees, what it thinks of it, and how it has done."""
        panel = Table.grid()
        panel.add_row(Text.assemble((agent.name, "bold"), f"   seed {seed}", no_wrap=True, overflow="ellipsis"))
        panel.add_row("")
        if moment.board is not None:
            self._add_board(panel, moment)
        elif moment.frame is not None and self.console.color_system:
            columns = self.console.width // len(self.agents) - GAP
            panel.add_row(colour.half_blocks(moment.frame, columns, self.console.height - FURNITURE))
        panel.add_row("")
        ended = (colour.WON if moment.success else colour.LOST) if moment.success is not None else ""
        panel.add_row(Text(plain.status(moment), ended, no_wrap=True, overflow="crop"))
        panel.add_row(Text(score.text() or " ", no_wrap=True))
        return panel

    def _add_board(self, panel: Table, moment: Moment) -> None:
        assert moment.board is not None and moment.win is not None
        if not self.console.color_system:
            panel.add_row(Text("\n".join(plain.board_lines(moment)), no_wrap=True, overflow="crop"))
            panel.add_row("")
            panel.add_row(Text(plain.win_text(moment)))
            return
        room = self.console.width // len(self.agents) - GAP
        size = colour.cell_size(moment.board.shape, room, self.console.height - FURNITURE)
        panel.add_row(colour.board_text(moment, size, in_256=self.console.color_system != "truecolor"))
        panel.add_row("")
        panel.add_row(colour.win_bar(moment.win, max(MIN_BAR, size[0] * moment.board.shape[1])))


class Player:
    """Shows one moment after the other and asks the keyboard when to go on."""

    def __init__(self, agents: Sequence[Agent], fps: float) -> None:
        self.agents = agents
        self.fps = fps
        self.console = make_console()
        self.view = View(self.console, agents)
        self.scores = [Score() for _ in agents]
        self.is_running = True
        self._due = self._drawn = time.monotonic()
        self._size = self.console.size
        self._is_stale = False

    def play(self, seeds: Iterable[int]) -> list[Score]:
        """Play the episodes of ``seeds`` until their end, or until the user leaves. Returns the scores."""
        with full_screen(self._mark_stale):
            for seed in seeds:
                self._due = time.monotonic()
                waiting = set(range(len(self.agents)))
                for moments in side_by_side(self.agents, seed):
                    for index in [index for index in waiting if moments[index].done]:
                        self.scores[index].add(moments[index])
                        waiting.remove(index)
                    decision = self._decide(moments, seed)
                    if decision == "quit":
                        return self.scores
                    if decision == "skip":
                        break
        return self.scores

    def _decide(self, moments: Sequence[Moment], seed: int) -> Decision:
        """Show the moments, and wait for the next step's time or for a key."""
        has_ended = all(moment.done for moment in moments)
        self._due = max(self._due + 1 / self.fps, time.monotonic() - 1) if self.is_running else self._due
        late = self.is_running and not has_ended and self._due < time.monotonic() < self._drawn + SHOWN_AT_LEAST
        if not late:
            self._draw(moments, seed)
        if has_ended:
            self._due = time.monotonic() + END_PAUSE
        while True:
            left = self._due - time.monotonic() if self.is_running else LOOK_INTERVAL
            for key in pressed(min(max(left, 0.0), LOOK_INTERVAL)):
                if decision := self._obey(key):
                    return decision
                self._is_stale = True
            if self.is_running and time.monotonic() >= self._due:
                return "step"
            if self._is_stale or self.console.size != self._size:
                self._draw(moments, seed)

    def _obey(self, key: str) -> Decision | None:
        """What a key decides at once."""
        match key:
            case " " | "\r" | "\n":
                self.is_running = False
                return "step"
            case "r":
                self.is_running = not self.is_running
                self._due = time.monotonic() + 1 / self.fps
            case "+" | "=":
                self.fps = min(self.fps * FASTER, SPEEDS[1])
            case "-" | "_":
                self.fps = max(self.fps / FASTER, SPEEDS[0])
            case "n":
                return "skip"
            case "q" | "\x04":
                return "quit"
        return None

    def _draw(self, moments: Sequence[Moment], seed: int) -> None:
        """The whole screen in one write, over the one before."""
        self._is_stale, self._drawn, self._size = False, time.monotonic(), self.console.size
        with self.console.capture() as capture:
            self.console.print(self.view.screen(moments, self.scores, seed, footer(self.fps, self._size.width)))
        lines = capture.get().rstrip("\n").split("\n")[: self._size.height]
        sys.stdout.write("\033[H" + "\033[K\n".join(lines) + "\033[0m\033[K\033[J")
        sys.stdout.flush()

    def _mark_stale(self) -> None:
        self._is_stale = True


def footer(fps: float, width: int) -> str:
    """The keys, in as many words as ``width`` columns have room for."""
    texts = [keys.format(fps=fps) for keys in KEYS]
    return next((text for text in texts if len(text) + 2 <= width), texts[-1])


def pressed(timeout: float) -> str:
    """Keys pressed within ``timeout`` seconds; ``q`` where the keyboard is gone; arrows and their like are nothing."""
    descriptor = sys.stdin.fileno()
    if not select.select([descriptor], [], [], timeout)[0]:
        return ""
    typed = os.read(descriptor, 64)
    if not typed:
        return "q"
    return "" if typed.startswith(b"\033") else typed.decode(errors="ignore")


@contextmanager
def full_screen(on_return: Callable[[], None]) -> Iterator[None]:
    """The terminal as a screen of ours with single keys; afterwards as it was, whatever happens, and so when suspended.

    ``on_return`` hears that the program goes on after it was suspended.
    """
    descriptor = sys.stdin.fileno()
    found = termios.tcgetattr(descriptor)

    def enter() -> None:
        tty.setcbreak(descriptor)
        print(ENTER, end="", flush=True)

    def leave() -> None:
        with suppress(OSError):  # the terminal is gone, and with it what there was to restore
            print(LEAVE, end="", flush=True)
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, found)

    def suspend(_number: int, _frame: FrameType | None) -> None:
        leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # stops here until the shell's fg
        signal.signal(signal.SIGTSTP, suspend)
        enter()
        on_return()

    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTSTP, suspend) if is_main else None
    try:
        enter()
        yield
    finally:
        leave()
        if is_main:
            signal.signal(signal.SIGTSTP, previous)
