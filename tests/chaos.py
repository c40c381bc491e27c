"""Runs that are killed again and again, and must not show it: ``scripts/chaos [KILLS]``.

Short runs save after every update and are killed (SIGKILL) at random instants, half of them as soon as the temporary
file of a checkpoint is seen. After each kill every checkpoint must verify and none that was seen may be lost; the run
is resumed until it ends, and then equals one that was left alone: last checkpoint, metrics, TensorBoard.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import ppo_cli.cli.run  # noqa: F401 (imported once, for all the processes that are forked)
from ppo_cli import checkpoint
from ppo_cli.cli import train
from tests.runs import assert_same, final_checkpoint, metrics, scalars

SHORT = [
    "num_envs=2", "rollout_length=16", "checkpoint_interval=32", "keep_checkpoints=2", "num_threads=1",
    "accelerate=eager", "quiet=true", "hydra.run.dir=run",
]  # fmt: skip
GAMES = {
    "minesweeper": ["env=minesweeper", "env.height=3", "env.width=3", "env.mines=2", "network=board",
                    "network.channels=8", "total_env_steps=960", "num_minibatches=2"],
    "cartpole": ["env=gymnasium", "env.id=CartPole-v1", "env.vectorization=sync", "network=mlp", "network.hidden=[8]",
                 "normalize_obs=true", "normalize_reward=true", "total_env_steps=1920"],
}  # fmt: skip
LONGEST = 0.6
"""Seconds after which a process is killed at the latest, counted from when it starts to save."""


def start(folder: Path, words: list[str]) -> int:
    """``ppo-train`` in a process of its own; its number."""
    if child := os.fork():
        return child
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(os.open("err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    code = 99
    try:
        code = train.main(words)
    finally:
        os._exit(code)


def kill(child: int, saves: Path, rng: random.Random) -> tuple[int | None, int]:
    """Kill the process at a random instant, or inside a save. Its exit code if it was faster, and what it had saved."""
    inside_a_save = rng.random() < 0.5
    begun, patience, seen = time.monotonic(), rng.uniform(0, LONGEST), 0
    skipped = rng.randrange(20)  # saves that are let through
    was_writing = False
    while True:
        names = os.listdir(saves) if saves.is_dir() else []
        steps = [checkpoint.env_steps_of(saves / name) for name in names if checkpoint.NAME.fullmatch(name)]
        seen = max([seen, *steps])
        if not names:
            begun = time.monotonic()
        is_writing = any(name.endswith(".tmp") for name in names)
        skipped -= is_writing and not was_writing
        was_writing = is_writing
        if (is_writing and skipped < 0) if inside_a_save else time.monotonic() > begun + patience:
            os.kill(child, signal.SIGKILL)
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            code = os.waitstatus_to_exitcode(status)
            return (None if code == -signal.SIGKILL else code), seen


def verify(saves: Path, seen: int) -> None:
    """Every checkpoint that is there can be read, and the newest is no older than what was seen before the kill."""
    paths = checkpoint.list_checkpoints(saves)
    for path in paths:
        checkpoint.load(path)
    newest = checkpoint.env_steps_of(paths[-1]) if paths else 0
    assert newest >= seen, f"the checkpoint after {seen} env steps is lost, the newest is {newest}"


def survive(folder: Path, words: list[str], rng: random.Random, counts: Counter[str], most: int) -> None:
    """One run, killed until it ends or ``most`` kills are counted, and then left to end."""
    run = folder / "run"
    while True:
        goes_on = bool(checkpoint.list_checkpoints(run / "checkpoints"))
        if not goes_on:
            shutil.rmtree(run, ignore_errors=True)
        child = start(folder, ["resume=run"] if goes_on else words)
        if counts["kills"] >= most:
            code, seen = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0
        else:
            code, seen = kill(child, run / "checkpoints", rng)
        verify(run / "checkpoints", seen)
        if code is not None:
            assert code == 0, (code, (folder / "err").read_text())
            return
        counts["kills"] += 1
        counts["inside a save"] += any((run / "checkpoints").glob(f".*.{child}.tmp"))
        counts["before the first checkpoint"] += not checkpoint.list_checkpoints(run / "checkpoints")


def main(kills: int = 200, seed: int = 1) -> int:
    """Print what was done. Returns the exit code."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each restart
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first optimizer imports half of torch
    rng, counts, runs = random.Random(seed), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        alone: dict[str, Path] = {}
        for game, words in GAMES.items():
            alone[game] = Path(name) / game / "run"
            alone[game].parent.mkdir()
            status = os.waitpid(start(alone[game].parent, [*words, *SHORT]), 0)[1]
            assert status == 0, (alone[game].parent / "err").read_text()
        while counts["kills"] < kills:
            game = list(GAMES)[runs.total() % len(GAMES)]
            folder = Path(name) / f"{game}-{runs.total()}"
            folder.mkdir()
            survive(folder, [*GAMES[game], *SHORT], rng, counts, kills)
            assert_same(final_checkpoint(folder / "run"), final_checkpoint(alone[game]))
            assert metrics(folder / "run") == metrics(alone[game])
            assert scalars(folder / "run") == scalars(alone[game])
            runs[game] += 1
            print(f"{dict(counts)} in {dict(runs)} runs, all equal to the one left alone", flush=True)
    if not counts["inside a save"]:
        print("no kill came inside a save: this run proves nothing about saving")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
