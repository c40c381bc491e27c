"""`python -m ppo_cli train ...`, `python -m ppo_cli eval ...` and so on: the console commands without their scripts."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = ("train", "eval", "play", "report", "search", "export")


def main() -> int:
    """Run the command that the first argument names. Returns the exit code."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"error: python -m ppo_cli expects a command: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    code: int = import_module(f"ppo_cli.cli.{sys.argv[1]}").main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
