from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ppo_cli import checkpoint
from ppo_cli.checkpoint import CheckpointError

CONTENT = {"weights": torch.arange(1000.0), "env_steps": 7, "nested": {"name": "x", "flags": torch.ones(3).bool()}}


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, CONTENT, keep=3)
    content = checkpoint.load(path)
    assert torch.equal(content["weights"], CONTENT["weights"])  # type: ignore[arg-type]
    assert content["env_steps"] == 7
    assert content["nested"]["name"] == "x"


def test_the_newest_are_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    for env_steps in (10, 2000, 300, 40_000):
        checkpoint.save(tmp_path, env_steps, CONTENT, keep=2)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == [
        "step_000000002000.pt",
        "step_000000040000.pt",
    ]
    assert len(list(tmp_path.iterdir())) == 4


def names(folder: Path) -> list[int]:
    return [checkpoint.env_steps_of(path) for path in checkpoint.list_checkpoints(folder)]


def test_the_best_and_the_first_after_each_multiple_are_kept_too(tmp_path: Path) -> None:
    for env_steps in range(40, 401, 40):
        checkpoint.save(tmp_path, env_steps, CONTENT, keep=1, keep_every=100, best=80 if env_steps >= 80 else None)
    assert names(tmp_path) == [80, 120, 200, 320, 400]
    checkpoint.save(tmp_path, 440, CONTENT, keep=1, keep_every=100, best=440)
    assert names(tmp_path) == [120, 200, 320, 400, 440]


def test_an_older_checkpoint_goes_only_after_the_new_one_was_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 1, CONTENT, keep=1)
    write = checkpoint.write_atomically

    def bad_disk(path: Path, content: bytes) -> None:
        write(path, content[:-1] + b"x" if path.suffix == ".pt" else content)

    monkeypatch.setattr(checkpoint, "write_atomically", bad_disk)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.save(tmp_path, 2, CONTENT | {"env_steps": 8}, keep=1)
    assert checkpoint.load_newest(tmp_path)[0]["env_steps"] == 7
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".step_000000000001.pt.99.tmp").write_bytes(b"half")
    (tmp_path / "step_000000000001.sha256").write_bytes(b"of nothing")
    checkpoint.save(tmp_path, 2, CONTENT, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000000002.pt", "step_000000000002.sha256"]


def test_truncation_anywhere_and_a_flipped_bit_in_every_4_kb_are_noticed(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, CONTENT | {"more": torch.arange(20_000.0)}, keep=1)
    whole = path.read_bytes()
    damaged = [whole[: n * len(whole) // 16] for n in range(16)]
    for position in range(17, len(whole), 4096):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        damaged.append(bytes(flipped))
    assert len(damaged) > 30
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load(path)


@pytest.mark.parametrize("position", [0.0, 0.25, 0.5, 0.9])
def test_one_flipped_bit_is_noticed_and_the_older_checkpoint_is_taken(tmp_path: Path, position: float) -> None:
    checkpoint.save(tmp_path, 1, CONTENT, keep=3)
    newest = checkpoint.save(tmp_path, 2, CONTENT | {"env_steps": 8}, keep=3)
    data = bytearray(newest.read_bytes())
    data[int(position * len(data))] ^= 1
    newest.write_bytes(data)
    content, problems = checkpoint.load_newest(tmp_path)
    assert content["env_steps"] == 7
    assert len(problems) == 1
    assert "damaged" in problems[0]


@pytest.mark.parametrize("damage", [b"", b"\xcf\x01\xff" * 20, b"0" * 64], ids=["empty", "no text", "another"])
def test_a_damaged_digest_is_noticed_and_the_older_checkpoint_is_taken(tmp_path: Path, damage: bytes) -> None:
    checkpoint.save(tmp_path, 1, CONTENT, keep=3)
    newest = checkpoint.save(tmp_path, 2, CONTENT | {"env_steps": 8}, keep=3)
    checkpoint.digest_path(newest).write_bytes(damage)
    content, problems = checkpoint.load_newest(tmp_path)
    assert content["env_steps"] == 7
    assert len(problems) == 1
    assert "damaged" in problems[0]


def test_when_nothing_verifies_there_is_an_error_and_no_fresh_start(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, CONTENT, keep=3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_newest(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load_newest(tmp_path / "elsewhere")


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint.save(tmp_path, 1, CONTENT | {"trap": Malicious()}, keep=3)  # a valid digest over evil bytes
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "pwned").exists()


def test_a_newer_format_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    path = checkpoint.save(tmp_path, 1, CONTENT, keep=3)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.load(path)


def test_a_checkpoint_of_a_newer_program_is_not_passed_over_for_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 1, CONTENT, keep=3)
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    path = checkpoint.save(tmp_path, 2, CONTENT, keep=3)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=f"{path} was written by a newer ppo-cli"):
        checkpoint.load_newest(tmp_path)


def test_a_pipe_in_the_place_of_a_checkpoint_is_not_waited_for(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, CONTENT, keep=3)
    for name in (path, path.with_suffix(".sha256")):
        name.unlink()
        os.mkfifo(name)
        with pytest.raises(CheckpointError, match=f"{name} is not a file"):
            checkpoint.load(path)
        name.unlink()
        checkpoint.save(tmp_path, 1, CONTENT, keep=3)


def test_a_failed_save_leaves_the_older_checkpoints_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, CONTENT, keep=1)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 2, CONTENT, keep=1)
    assert checkpoint.load_newest(tmp_path)[0]["env_steps"] == 7
