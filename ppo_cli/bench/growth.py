"""How the cost of a step grows: with the number of environments, the network's width, the size of the board."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ppo_cli.bench.works import BOARD, COMMON, MLP

CARTPOLE = ("env=cartpole", "rollout_length=128", *COMMON)
MINESWEEPER = ("env=minesweeper", "num_envs=64", "rollout_length=64", *COMMON, *BOARD)

SWEEPS: dict[str, dict[str, tuple[str, ...]]] = {
    "environments": {
        f"{n}": (*CARTPOLE, *MLP, f"num_envs={n}") for n in (1, 4, 16, 64, 256, 1024, 4096)
    },
    "width": {
        f"{w}-{w}": (*CARTPOLE, "num_envs=64", "network=mlp", f"network.hidden=[{w},{w}]")
        for w in (16, 32, 64, 128, 256, 512, 1024)
    },
    "board": {
        f"{height}x{width}/{mines}": (
            *MINESWEEPER, f"env.height={height}", f"env.width={width}", f"env.mines={mines}",
        )
        for height, width, mines in ((5, 5, 3), (9, 9, 10), (16, 16, 40), (16, 30, 99))
    },
}  # fmt: skip


def print_growth(measure: Callable[[Sequence[str]], dict[str, Any]], path: Path | None) -> None:
    """Measure every size once and print microseconds a step; all figures as JSON to ``path``."""
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for sweep, sizes in SWEEPS.items():
        print(f"\n{sweep:<14} {'us/step':>9} {'steps/s':>10} {'update':>7} {'peak MB':>8}")
        for size, settings in sizes.items():
            figures = results.setdefault(sweep, {})[size] = measure(settings)
            rate = figures["steps_per_second"]
            print(
                f"{size:<14} {1e6 / rate:>9.2f} {rate:>10,.0f} {figures['update']:>7.0%} {figures['peak_mb']:>8,.0f}",
                flush=True,
            )
    if path:
        path.write_text(json.dumps(results, indent=1))
