from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from ppo_cli import checkpoint
from ppo_cli.algorithms.ppo import PPO
from ppo_cli.envs.base import VecEnv
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.envs.probes import ActionProbe
from ppo_cli.episodes import EpisodeWindow
from ppo_cli.faults import NonFiniteError
from ppo_cli.logger import RunLogger
from ppo_cli.networks.board import Board
from ppo_cli.rollout import Collector
from ppo_cli.signals import STOP_SIGNALS
from ppo_cli.trainer import CHECKPOINT_FOLDER, Intervals, Trainer, restore
from tests.helpers import learner

TOTAL = 6 * 8 * 16
"""Six updates of 8 environments x 16 steps."""


def trainer(
    run_dir: Path, env: VecEnv | None = None, *, total: int = TOTAL, start: int = 0, **intervals: int
) -> Trainer:
    env = env or MinesweeperVecEnv(8, height=4, width=4, mines=3, backend="reference")
    is_board = isinstance(env, MinesweeperVecEnv)
    torch.manual_seed(1)
    network = Board(env.single_observation_space, env.single_action_space, channels=8) if is_board else None
    state = learner(env, total_env_steps=total, network=network)
    state.learning_rate_schedule = "linear"
    logger = RunLogger(run_dir, total_env_steps=total, config={"seed": 1}, start_env_steps=start, display="silent")
    collector = Collector(env, state, 16, EpisodeWindow())
    return Trainer(state, PPO(gamma=1.0, num_epochs=2), collector, logger, run_dir, Intervals(**intervals))


def go_on(made: Trainer) -> list[str]:
    """Put the newest checkpoint of its folder into a fresh trainer; why the continuation is not exact."""
    content, _ = checkpoint.load_newest(made.run_dir / CHECKPOINT_FOLDER)
    reasons = restore(content, made.state, made.collector, made.execution)
    made.take_up(content)
    return reasons


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says, without the clock."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [
        {tag: v for tag, v in row.items() if not tag.startswith(("time/", "wall_time", "charts/SPS"))} for row in rows
    ]


def test_a_run_makes_every_update_logs_each_and_leaves_a_checkpoint_at_the_end(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    assert made.run() == ("completed", 0)
    assert [line["env_steps"] for line in lines(tmp_path)] == [128 * n for n in range(1, 7)]
    content, _ = checkpoint.load_newest(tmp_path / CHECKPOINT_FOLDER)
    assert content["state"]["env_steps"] == TOTAL
    assert content["state"]["updates"] == 6


def test_the_last_update_goes_beyond_a_total_that_no_number_of_rollouts_makes(tmp_path: Path) -> None:
    made = trainer(tmp_path, total=TOTAL - 1)
    made.run()
    assert made.state.env_steps == TOTAL


def test_the_learning_rate_is_that_of_the_schedule_at_the_start_of_each_update(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    rates = [line["charts/learning_rate"] for line in lines(tmp_path)]
    assert rates == pytest.approx([1e-3 * (1 - n / 6) for n in range(6)])


def test_checkpoints_come_at_their_interval_and_the_newest_are_kept(tmp_path: Path) -> None:
    trainer(tmp_path, checkpoint=256, keep_checkpoints=2).run()
    names = [path.name for path in checkpoint.list_checkpoints(tmp_path / CHECKPOINT_FOLDER)]
    assert names == ["step_000000000512.pt", "step_000000000768.pt"]


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_of_minesweeper_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    straight = trainer(tmp_path / "straight")
    straight.run()

    first = trainer(tmp_path / "resumed", checkpoint=1)
    first.state.total_env_steps = TOTAL
    for _ in range(stop_after):
        metrics = first.train_once()
        first.logger.log(first.state.env_steps, first.state.updates, metrics)
    first.save()
    second = trainer(tmp_path / "resumed", start=first.state.env_steps)
    assert go_on(second) == []
    second.run()

    for ours, theirs in zip(
        second.state.actor_critic.parameters(), straight.state.actor_critic.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert lines(tmp_path / "resumed") == lines(tmp_path / "straight")


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.train_once()
    assert made.save()
    good = made.newest_checkpoint
    made.train_once()
    parameter = next(made.state.actor_critic.parameters())
    with torch.no_grad():
        parameter.view(-1)[3] = torch.inf
    with pytest.raises(NonFiniteError, match="are not finite after update 2"):
        made.save()
    assert made.newest_checkpoint == good


def test_a_refused_checkpoint_keeps_the_old_one_and_is_tried_again_at_the_next_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(tmp_path, checkpoint=256, keep_checkpoints=1)
    write = checkpoint.write_atomically

    def full_at_512(path: Path, content: bytes) -> None:
        if made.state.env_steps == 512:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", full_at_512)
    warnings: list[str] = []
    monkeypatch.setattr(made.logger, "warn", warnings.append)
    newest = []
    log = made.logger.log
    monkeypatch.setattr(made.logger, "log", lambda *args: (newest.append(made.newest_checkpoint), log(*args)))
    assert made.run() == ("completed", 0)
    assert [path.name if path else None for path in newest] == [None, None, *["step_000000000256.pt"] * 4]
    assert made.newest_checkpoint and made.newest_checkpoint.name == "step_000000000768.pt"
    assert warnings == [
        "the checkpoint after 512 env steps was not written (No space left on device); "
        "step_000000000256.pt is still there"
    ]


def test_a_refused_last_checkpoint_is_an_exit_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    assert made.run() == ("completed", 3)


def test_the_best_checkpoint_is_that_of_the_best_evaluation_and_survives_a_restart(tmp_path: Path) -> None:
    made = trainer(tmp_path, checkpoint=128, evaluation=128, keep_checkpoints=1, keep_best=True)
    returns = dict(enumerate([0.0, 1.0, 3.0, 2.0, 3.0, 0.0, -1.0]))
    made.evaluate = lambda _: {"episodic_return": returns[made.state.updates]}
    made.run()
    assert made.best == (3.0, 256)
    steps = [checkpoint.env_steps_of(path) for path in checkpoint.list_checkpoints(tmp_path / CHECKPOINT_FOLDER)]
    assert steps == [256, 768]
    again = trainer(tmp_path, start=768)
    go_on(again)
    assert again.best == (3.0, 256)


def test_an_environment_that_cannot_be_continued_starts_fresh_episodes_and_says_so(tmp_path: Path) -> None:
    first = trainer(tmp_path, ActionProbe(8))
    first.train_once()
    first.save()
    second = trainer(tmp_path, ActionProbe(8), start=first.state.env_steps)
    assert go_on(second) == ["fresh episodes start: ActionProbe has no state_dict"]
    assert second.resumes == 1


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_finishes_the_update_saves_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    made = trainer(tmp_path)
    handlers = [signal.getsignal(each) for each in STOP_SIGNALS]
    update = made.train_once

    def update_and_signal() -> dict[str, torch.Tensor]:
        if made.state.updates == 2:
            os.kill(os.getpid(), number)
        return update()

    made.train_once = update_and_signal  # type: ignore[method-assign]
    assert made.run() == ("interrupted", 128 + number)
    assert made.state.updates == 3
    assert checkpoint.load_newest(tmp_path / CHECKPOINT_FOLDER)[0]["state"]["updates"] == 3
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == handlers


def test_an_evaluation_is_logged_with_the_update_that_it_followed_whatever_the_log_interval(tmp_path: Path) -> None:
    made = trainer(tmp_path, log=100, evaluation=256)
    made.evaluate = lambda _: {"episodic_return": float(made.state.updates)}
    made.run()
    assert [(line["update"], line["eval/episodic_return"]) for line in lines(tmp_path)] == [
        (2, 2.0),
        (4, 4.0),
        (6, 6.0),
    ]
