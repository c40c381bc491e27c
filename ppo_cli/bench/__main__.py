"""Speed, end to end and part by part, with others beside it on the same work in the same run.

Steps/s are environment steps over the wall time of whole iterations (rollout, update and logging), the first two
iterations left out. Every measurement is a process of its own; contestants take turns, and medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_cli.bench import jax_peers
from ppo_cli.bench.contestants import CONTESTANTS, measure_ours, takes_part
from ppo_cli.bench.env_speed import print_env_speed
from ppo_cli.bench.growth import print_growth
from ppo_cli.bench.works import PARTS, WORKS

RESULT = "@@RESULT "
BASELINE = "stable-baselines3"
REJAX = "rejax (JAX)"


def main(words: list[str] | None = None) -> int:
    """Run what was asked for and print the tables."""
    names = ", ".join(WORKS)
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("work", nargs="*", default=[*WORKS, "env"], help=f"{names}, env or growth; all but the last")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each contestant (default 3)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each measurement (default 15)")
    parser.add_argument("--jax-python", metavar="PATH", help="an interpreter with rejax, which then takes part")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where growth leaves its figures")
    parser.add_argument("--measure", nargs=2, metavar=("CONTESTANT", "WORK"), help=argparse.SUPPRESS)
    parser.add_argument("--measure-settings", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.measure:
        contestant, work = arguments.measure
        print(RESULT + json.dumps(CONTESTANTS[contestant](WORKS[work], arguments.seconds, arguments.began)))
        return 0
    if arguments.measure_settings:
        figures = measure_ours(json.loads(arguments.measure_settings), arguments.seconds, arguments.began)
        print(RESULT + json.dumps(figures))
        return 0
    unknown = [name for name in arguments.work if name not in (*WORKS, "env", "growth")]
    if unknown:
        parser.error(f"unknown work {unknown[0]}: choose from {names}, env, growth")
    for name in arguments.work:
        if name == "env":
            print_env_speed(arguments.rounds)
        elif name == "growth":
            print_growth(lambda settings: measure_settings(settings, arguments.seconds), arguments.json)
        else:
            compare(name, arguments.rounds, arguments.seconds, arguments.jax_python)
    return 0


def compare(name: str, rounds: int, seconds: float, jax_python: str | None) -> None:
    """Measure every contestant ``rounds`` times in turn and print medians."""
    commands = {
        contestant: [sys.executable, "-m", "ppo_cli.bench", "--measure", contestant, name, "--seconds", str(seconds)]
        for contestant in CONTESTANTS
        if takes_part(contestant, WORKS[name])
    }
    if jax_python and WORKS[name].env == "cartpole":
        work = WORKS[name]
        shape = (work.num_envs, work.rollout_length, work.total_env_steps, seconds)
        commands[REJAX] = [jax_python, str(Path(jax_peers.__file__)), "rejax", *map(str, shape)]
    results: dict[str, list[dict[str, Any]]] = {contestant: [] for contestant in commands}
    for _ in range(rounds):
        for contestant, command in commands.items():
            results[contestant].append(measure_apart(contestant, command))
    print(f"\n{name}: {WORKS[name].meaning}; medians of {rounds}")
    header = ("", "steps/s", "min", "max", "x SB3", *PARTS, "warm-up s", "peak MB", "return")
    print("{:<26} {:>9} {:>9} {:>9} {:>6} {:>5} {:>9} {:>8} {:>7} {:>8} {:>9} {:>8} {:>7}".format(*header))
    baseline = statistics.median(result["steps_per_second"] for result in results[BASELINE])
    for contestant, collected in results.items():
        print(row(contestant, collected, baseline), flush=True)


def row(contestant: str, collected: list[dict[str, Any]], baseline: float) -> str:
    """One contestant's line of the table."""

    def median(figure: str) -> float:
        return statistics.median(float(result.get(figure, 0.0)) for result in collected)

    rates = [result["steps_per_second"] for result in collected]
    rate = statistics.median(rates)
    shares = [f"{median(part):.0%}" if median(part) else "" for part in PARTS]
    return (
        f"{contestant:<26} {rate:>9,.0f} {min(rates):>9,.0f} {max(rates):>9,.0f} {rate / baseline:>6.1f} "
        + "{:>5} {:>9} {:>8} {:>7} {:>8} ".format(*shares)
        + f"{median('warm_up'):>9.1f} {median('peak_mb'):>8,.0f} {median('return'):>7.2f}"
    )


def measure_settings(settings: Sequence[str], seconds: float) -> dict[str, Any]:
    """Ours with any settings, in a process of its own."""
    words = ["--measure-settings", json.dumps(list(settings)), "--seconds", str(seconds)]
    return measure_apart("ppo-cli", [sys.executable, "-m", "ppo_cli.bench", *words])


def measure_apart(contestant: str, command: list[str]) -> dict[str, Any]:
    """One measurement in a process of its own."""
    if "ppo_cli.bench" in command:
        command = [*command, "--began", str(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        raise SystemExit(f"{contestant} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix(RESULT))
    return result


if __name__ == "__main__":
    sys.exit(main())
