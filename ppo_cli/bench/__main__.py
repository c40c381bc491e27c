"""Speed, end to end and part by part, with Stable-Baselines3 beside it on the same work in the same run.

Steps/s are environment steps over the wall time of whole iterations (rollout, update and logging), the first two
iterations left out. Every measurement is a process of its own; contestants take turns, and medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

from ppo_cli.bench.contestants import CONTESTANTS
from ppo_cli.bench.env_speed import print_env_speed
from ppo_cli.bench.works import WORKS

RESULT = "@@RESULT "


def main(words: list[str] | None = None) -> int:
    """Run what was asked for and print the tables."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("work", nargs="*", default=[*WORKS, "env"], help="W1, W2, W3 or env; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each contestant (default 3)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each measurement (default 15)")
    parser.add_argument("--measure", nargs=2, metavar=("CONTESTANT", "WORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.measure:
        contestant, work = arguments.measure
        print(RESULT + json.dumps(CONTESTANTS[contestant](WORKS[work], arguments.seconds)))
        return 0
    unknown = [name for name in arguments.work if name not in (*WORKS, "env")]
    if unknown:
        parser.error(f"unknown work {unknown[0]}: choose from {', '.join((*WORKS, 'env'))}")
    for name in arguments.work:
        if name == "env":
            print_env_speed(arguments.rounds)
        else:
            compare(name, arguments.rounds, arguments.seconds)
    return 0


def compare(name: str, rounds: int, seconds: float) -> None:
    """Measure every contestant ``rounds`` times in turn and print medians."""
    results: dict[str, list[dict[str, Any]]] = {contestant: [] for contestant in CONTESTANTS}
    for _ in range(rounds):
        for contestant, collected in results.items():
            collected.append(measure_apart(contestant, name, seconds))
    print(f"\n{name}: {WORKS[name].meaning}")
    header = ("", "steps/s", "min", "max", "x SB3", "env", "inference", "update", "return")
    print("{:<18} {:>9} {:>9} {:>9} {:>6}  {:>5} {:>9} {:>7} {:>8}".format(*header))
    baseline = statistics.median(result["steps_per_second"] for result in results["stable-baselines3"])
    for contestant, collected in results.items():
        rates = [result["steps_per_second"] for result in collected]
        rate = statistics.median(rates)
        shares = [statistics.median(result[part] for result in collected) for part in ("env", "inference", "update")]
        episode_return = statistics.median(result["return"] for result in collected)
        print(
            f"{contestant:<18} {rate:>9,.0f} {min(rates):>9,.0f} {max(rates):>9,.0f} {rate / baseline:>6.2f}  "
            + "{:>5.0%} {:>9.0%} {:>7.0%} ".format(*shares)
            + f"{episode_return:>8.2f}",
            flush=True,
        )


def measure_apart(contestant: str, work: str, seconds: float) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "ppo_cli.bench", "--measure", contestant, work, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        raise SystemExit(f"{contestant} on {work} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix(RESULT))
    return result


if __name__ == "__main__":
    sys.exit(main())
