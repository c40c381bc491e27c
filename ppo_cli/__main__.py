"""`python -m ppo_cli train ...`, and `eval` and `play`: the console commands without their scripts."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = ("train", "eval", "play")


def main() -> int:
    """Run the command that the first argument names. Returns the exit code."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(
            f"error: python -m ppo_cli expects a command: {', '.join(COMMANDS[:-1])} or {COMMANDS[-1]}", file=sys.stderr
        )
        return 2
    code: int = import_module(f"ppo_cli.cli.{sys.argv[1]}").main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
