"""`ppo-eval`: play a run's policy on a fixed list of seeds, one fresh episode each. torch is imported last."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.commands import run_command, run_config, runs_and_settings, trust_named
from ppo_cli.cli.program import importing
from ppo_cli.cli.run_folder import EXPORT_RECORD, find_run, is_export
from ppo_cli.cli.validate import EVAL_SETTINGS, Settings, validated
from ppo_cli.run_files import json_value, write_json

Figures = dict[str, float]

EVALUATION_FILE = "evaluation.json"
"""What the last evaluation found, in the run folder."""


def main(words: list[str] | None = None) -> int:
    """The console command. Returns the exit code."""
    return run_command("ppo-eval", command, words)


def command(words: list[str]) -> int:
    """Do what the words ask for."""
    (name,), settings = runs_and_settings(words, "ppo-eval", EVAL_SETTINGS)
    trust_named(settings)
    folder = Path(name) if is_export(Path(name)) else find_run(name)
    config = validated(export_config(folder) if is_export(folder) else run_config(folder))
    checkpoint = Path(name) if Path(name).suffix == ".pt" else None

    with importing():
        from ppo_cli.cli.saved import play

    results = play(config, settings, folder, checkpoint, on_progress=progress(settings))
    show(folder, settings, results)
    figures = {mode: {tag: json_value(value) for tag, value in found.items()} for mode, found in results.items()}
    record = {"seed": settings["seed"], "checkpoint": str(checkpoint) if checkpoint else "newest"} | figures
    with suppress(OSError):  # a folder of somebody else's can be evaluated all the same
        write_json(folder / EVALUATION_FILE, record)
    return 0


def export_config(folder: Path) -> dict[str, Any]:
    """The settings with which an exported policy can be played: its environment, and what else has defaults.

    Raises:
        UserError: its description cannot be read, or names no environment.
    """
    try:
        env = json.loads((folder / EXPORT_RECORD).read_bytes())["env"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{folder / EXPORT_RECORD}: is not the description of an exported policy") from None
    algo = {"_target_": "ppo_cli.algorithms.ppo.PPO"}  # any: it does not learn here
    return {"env": env, "algo": algo, "network": {"_target_": None}, "device": "auto"}


def progress(settings: Settings) -> Any:  # noqa: ANN401 - a function from a count of episodes to nothing
    """A counter on the terminal; silent elsewhere."""

    def tell(mode: str, finished: int) -> None:
        if sys.stderr.isatty():
            end = "\r" if finished < settings["episodes"] else "\r\033[K"
            print(f"  {mode}: {finished:,} of {settings['episodes']:,} episodes", end=end, file=sys.stderr, flush=True)

    return tell


def show(folder: Path, settings: Settings, results: dict[str, Figures]) -> None:
    """Print the figures, one column for each way to act."""
    print(f"\n  run        {folder}")
    print(f"  episodes   {settings['episodes']:,} fresh ones, from seed {settings['seed']}\n")
    rows = {mode: lines(figures) for mode, figures in results.items()}
    width = max(len(label) for labels in rows.values() for label in labels)
    print(f"  {'':{width}}" + "".join(f"   {mode:<24}" for mode in rows).rstrip())
    for label in next(iter(rows.values())):
        print(f"  {label:{width}}" + "".join(f"   {labels.get(label, ''):<24}" for labels in rows.values()).rstrip())
    print()


def lines(figures: Figures) -> dict[str, str]:
    """Label to text. A share of episodes comes in percent with its 95 % interval."""
    texts = {
        "return": f"{figures['episodic_return']:.4g} ± {figures['episodic_return_std']:.3g} std",
        "length": f"{figures['episodic_length']:.4g} steps",
    }
    for tag, value in figures.items():
        if tag.startswith("episod") or re.search("_(low|high)$", tag):
            continue
        label = tag.rpartition("/")[2].replace("_", " ")
        low, high = figures.get(f"{tag}_low"), figures.get(f"{tag}_high")
        if low is not None and high is not None:
            texts = {label: f"{100 * value:.2f} %  ({100 * low:.2f} to {100 * high:.2f})"} | texts
        else:
            texts[label] = f"{value:.4g}"
    return texts


if __name__ == "__main__":
    sys.exit(main())
