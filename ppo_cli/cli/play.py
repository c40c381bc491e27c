"""`ppo-play`: watch runs' policies at play, in the terminal or as GIF, MP4 and PNG. torch is imported last."""

from __future__ import annotations

import sys
from pathlib import Path

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.commands import run_command, run_config, runs_and_settings, trust_named
from ppo_cli.cli.program import importing
from ppo_cli.cli.run_folder import find_run
from ppo_cli.cli.schema import MOST_PLAYED
from ppo_cli.cli.validate import PLAY_SETTINGS, Settings, validated
from ppo_cli.cli.values import plain

SUFFIXES = (".gif", ".mp4", ".png")

UNSEEN = ("env.name", "env.reward", "env.shaping", "env.backend", "env.vectorization", "env.autoreset")
"""Settings in which environments may differ and still play the same episodes."""


def main(words: list[str] | None = None) -> int:
    """The console command. Returns the exit code."""
    return run_command("ppo-play", command, words)


def command(words: list[str]) -> int:
    """Do what the words ask for."""
    names, settings = runs_and_settings(words, "ppo-play", PLAY_SETTINGS, MOST_PLAYED)
    if problem := output_problem(settings["output"]):
        raise UserError(problem)
    trust_named(settings)
    folders = [find_run(name) for name in names]
    configs = [validated(run_config(folder)) for folder in folders]
    for name, config in zip(names[1:], configs[1:], strict=True):
        if problem := difference(names[0], configs[0], name, config):
            raise UserError(problem)

    with importing():
        from ppo_cli.cli.watch import watch

    return watch(names, folders, configs, settings)


def output_problem(output: str | None) -> str | None:
    """Why no picture can be written to ``output``, or None."""
    if output is None:
        return None
    path = Path(output)
    if path.suffix not in SUFFIXES:
        return f"output={output}: expected a name that ends in .gif, .mp4 or .png"
    if not path.parent.is_dir():
        return f"output={output}: there is no folder {path.parent}"
    return f"output={output}: is a folder" if path.is_dir() else None


def difference(name: str, config: Settings, other_name: str, other: Settings) -> str | None:
    """Why two runs cannot be compared, or None: both must know the same environment."""
    ours, theirs = ({f"env.{key}": value for key, value in each["env"].items()} for each in (config, other))
    for key in dict.fromkeys([*ours, *theirs]):
        if key not in UNSEEN and ours.get(key) != theirs.get(key):
            values = f"{key}={plain(ours.get(key))} and {key}={plain(theirs.get(key))}"
            return f"{name} {other_name}: only runs on the same environment can be compared, these have {values}"
    return None


if __name__ == "__main__":
    sys.exit(main())
