from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PPO_CLI_TRUST", raising=False)
    return Shell(tmp_path, capsys)
