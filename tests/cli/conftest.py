from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import Shell


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs take plain torch, whatever this machine has compiled before or compiles meanwhile."""
    monkeypatch.setattr("ppo_cli.fused.domain.is_ready", lambda *_: False)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PPO_CLI_TRUST", raising=False)
    return Shell(tmp_path, capsys)
