from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ppo_cli import run_files
from ppo_cli.run_files import AppendFile, command_line, git_revision, trim_metrics, versions, write_atomically


def line(env_steps):
    return json.dumps({"env_steps": env_steps}).encode() + b"\n"


def test_records_are_on_disk_as_soon_as_they_are_written(tmp_path):
    file = AppendFile(tmp_path / "log", warn=pytest.fail)
    file.write(b"one\n")
    assert (tmp_path / "log").read_bytes() == b"one\n"
    file.close()


def test_a_reopened_file_grows_at_its_end(tmp_path):
    for record in (b"one\n", b"two\n"):
        file = AppendFile(tmp_path / "log", warn=pytest.fail)
        file.write(record)
        file.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_record_cut_short_by_a_full_disk_leaves_no_trace_and_later_ones_are_whole(tmp_path, monkeypatch):
    room = 6
    real_pwrite = os.pwrite

    def pwrite_until_full(descriptor, data, position):
        if room - position <= 0:
            raise OSError(28, "No space left on device")
        return real_pwrite(descriptor, data[: room - position], position)

    warnings = []
    file = AppendFile(tmp_path / "log", warnings.append)
    monkeypatch.setattr(os, "pwrite", pwrite_until_full)
    for record in (b"one\n", b"two\n", b"six\n"):
        file.write(record)
    assert (tmp_path / "log").read_bytes() == b"one\n"
    assert file.dropped == 2
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]
    room = 100
    file.write(b"ten\n")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"one\nten\n"


def test_a_failed_replacement_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_atomically(path, b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("torn", [b'{"env_st', b'{"env_steps": 20}', b"\x00\x00\n", b"[]\n", b"null\n"])
def test_trimming_keeps_whole_lines_up_to_the_resumed_step(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(10) + line(20) + line(30) + torn)
    trim_metrics(path, 20)
    assert path.read_bytes() == line(10) + line(20)


def test_trimming_a_run_without_metrics_makes_no_file(tmp_path):
    trim_metrics(tmp_path / "metrics.jsonl", 20)
    assert not list(tmp_path.iterdir())


def test_versions_name_python_and_torch():
    found = versions()
    assert found["python"] == sys.version.split()[0]
    assert found["torch"].startswith("2.")


def test_the_command_can_be_pasted_into_a_shell(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/somewhere/bin/ppo-train", "run_name=two words", "clip=0.2"])
    assert command_line() == "ppo-train 'run_name=two words' clip=0.2"


def make_checkout(folder):
    (folder / "ppo_cli").mkdir(parents=True)
    module = folder / "ppo_cli" / "run_files.py"
    module.write_text("first\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", folder, *command], check=True)
    return module


def test_the_revision_tells_whether_tracked_files_were_edited(tmp_path, monkeypatch):
    module = make_checkout(tmp_path / "checkout")
    monkeypatch.setattr(run_files, "__file__", str(module))
    commit = subprocess.run(["git", "-C", module.parent, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    (module.parent / "untracked").touch()
    assert git_revision() == {"commit": commit.strip(), "dirty": False}
    module.write_text("second\n")
    assert git_revision() == {"commit": commit.strip(), "dirty": True}


def test_an_installed_package_has_no_revision_even_inside_somebody_elses_repository(tmp_path, monkeypatch):
    make_checkout(tmp_path / "project")
    monkeypatch.setattr(run_files, "__file__", str(tmp_path / "project/.venv/site-packages/ppo_cli/run_files.py"))
    assert git_revision() is None


def test_a_machine_without_git_has_no_revision(tmp_path, monkeypatch):
    module = make_checkout(tmp_path / "checkout")
    monkeypatch.setattr(run_files, "__file__", str(module))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision() is None
