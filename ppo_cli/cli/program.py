"""How every console command ends, whatever happened."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from ppo_cli.cli.arguments import UserError
from ppo_cli.run_files import WriteError

USER_ERROR = 2
CRASH = 1  # a run that failed, too; 3 is a run whose last checkpoint could not be written (`ppo_cli.trainer.UNSAVED`)
INTERRUPTED = 130
UNWINDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """A signal ended the run, which has put its things in order."""

    def __init__(self, exit_code: int = INTERRUPTED) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class ReportedError(Exception):
    """A failure that the user has been told about."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def importing() -> Iterator[None]:
    """What is heavy, as torch is: 300,000 objects, none of which is garbage, so the collector never visits them."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def guarded(function: Callable[[], int]) -> int:
    """Run a command and return its exit code: 0 done, 2 the user's mistake, 1 ours, 128 + n ended by signal n."""
    atexit.register(gc.freeze)  # a process that ends need not look for what it could free: 0.7 s with torch
    try:
        with signals_unwind():
            return function()
    except UserError as error:
        print_problems(error.problems)
        return USER_ERROR
    except ReportedError as failure:
        return failure.exit_code
    except Stopped as stopped:
        return stopped.exit_code
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `ppo-train --help | head`; Python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except WriteError as error:
        print_problems([str(error)])
        return CRASH
    except Exception:  # the last resort of a program: say it once, and do not pretend that it worked
        traceback.print_exc()
        return CRASH


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Signals end the program like Ctrl-C, so that it tidies up; a run that has begun listens to all of them itself."""

    def stop(number: int, _frame: FrameType | None) -> None:
        print("\nstopped", file=sys.stderr)
        raise Stopped(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in UNWINDING if signal.getsignal(n) != signal.SIG_IGN]  # nohup's SIGHUP stays ignored
    previous = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def print_problems(problems: Iterable[str]) -> None:
    """Mistakes, one under the other, the given part in bold on a terminal."""
    say("error", "31", problems)


def print_warnings(warnings: Iterable[str]) -> None:
    """What the user may not have meant."""
    say("warning", "33", warnings)


def say(kind: str, colour: str, sentences: Iterable[str]) -> None:
    """Print sentences to stderr, each after its kind."""
    with_colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    for sentence in map(printable, sentences):
        given, colon, rest = sentence.partition(": ")
        if with_colour:
            print(f"\033[{colour};1m{kind}\033[0m \033[1m{given}\033[0m{colon}{rest}", file=sys.stderr)
        else:
            print(f"{kind}: {sentence}", file=sys.stderr)


def printable(text: str) -> str:
    """``text`` with what would steer a terminal spelled out: it may quote a stranger's file."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
