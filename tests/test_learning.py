"""The shipped defaults learn what they are shipped for, from the command a user types. Minutes each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def command(folder: Path, verb: str, *words: str) -> str:
    """What ``ppo-train`` or ``ppo-eval`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ppo_cli", verb, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def train(folder: Path, *words: str) -> dict[str, Any]:
    """Run ``ppo-train`` into ``folder/run``; its summary."""
    command(folder, "train", *words, "hydra.run.dir=run")
    summary: dict[str, Any] = json.loads((folder / "run" / "summary.json").read_text())
    return summary


def greedy(folder: Path, episodes: int) -> dict[str, float]:
    """Figures of ``ppo-eval`` in greedy mode."""
    command(folder, "eval", "run", f"episodes={episodes}", "mode=greedy")
    figures: dict[str, dict[str, float]] = json.loads((folder / "run" / "evaluation.json").read_text())
    return figures["greedy"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cartpole_is_solved_within_500_000_steps_of_4_environments(tmp_path: Path, seed: int) -> None:
    summary = train(tmp_path, "env=cartpole", "num_envs=4", f"seed={seed}")
    assert summary["total_env_steps"] <= 500_000
    assert summary["final"]["charts/episodic_return"] >= 475


@pytest.mark.parametrize(
    ("algo", "total_env_steps", "threshold"),
    [("vpg", 300_000, 400), ("a2c", 250_000, 400), ("trpo", 250_000, 475), ("ppo_kl", 200_000, 475)],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_rung_of_the_ladder_learns_cartpole(
    tmp_path: Path, algo: str, total_env_steps: int, threshold: float, seed: int
) -> None:
    summary = train(tmp_path, "env=cartpole", f"algo={algo}", f"seed={seed}")
    assert summary["final"]["charts/episodic_return"] >= threshold
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-2]["env_steps"] < total_env_steps
    if algo == "trpo":
        assert max(row["losses/kl"] for row in rows) <= 0.01, "max_kl"


@pytest.mark.parametrize("algo", ["vpg", "a2c", "trpo", "ppo_kl"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_rung_of_the_ladder_learns_pendulum(tmp_path: Path, algo: str, seed: int) -> None:
    summary = train(tmp_path, "env=pendulum", f"algo={algo}", f"seed={seed}", "num_threads=1")
    episode_return = summary["final"]["charts/episodic_return"]
    assert episode_return >= -250, "an untrained policy gets -1200, one that only swings -1000"


@pytest.mark.parametrize(
    ("algo", "total_env_steps", "threshold"),
    [("vpg", 250_000, 0.7), ("a2c", 250_000, 0.7), ("trpo", 100_000, 0.7), ("ppo_kl", 250_000, 0.8)],
)
def test_every_rung_of_the_ladder_learns_5x5_minesweeper(
    tmp_path: Path, algo: str, total_env_steps: int, threshold: float
) -> None:
    train(tmp_path, "experiment=minesweeper_5x5", f"algo={algo}", f"total_env_steps={total_env_steps}")
    win_rate = greedy(tmp_path, 5_000)["minesweeper/win_rate"]
    assert win_rate >= threshold, "clicks at random win 0.08 of the games, the best policy 0.888"


@pytest.mark.parametrize(("env", "threshold"), [("acrobot", -100), ("pendulum", -250)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_classic_control_reaches_its_mark(tmp_path: Path, env: str, threshold: float, seed: int) -> None:
    summary = train(tmp_path, f"env={env}", f"seed={seed}")
    assert summary["final"]["charts/episodic_return"] >= threshold


def test_5x5_minesweeper_comes_within_4_points_of_the_exact_optimum_and_does_not_beat_it(tmp_path: Path) -> None:
    train(tmp_path, "experiment=minesweeper_5x5")
    win_rate = greedy(tmp_path, 20_000)["minesweeper/win_rate"]
    optimum = 1798 / 2024
    assert optimum - 0.04 <= win_rate <= optimum + 3.5 * (optimum * (1 - optimum) / 20_000) ** 0.5


def test_beginner_minesweeper_is_won_in_at_least_70_percent_of_fresh_games(tmp_path: Path) -> None:
    train(tmp_path, "env=minesweeper", "clip=0.2")
    assert greedy(tmp_path, 10_000)["minesweeper/win_rate"] >= 0.70
