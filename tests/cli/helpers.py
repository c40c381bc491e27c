"""Running the commands inside the test process, and short settings for real runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppo_cli.cli import eval as eval_command
from ppo_cli.cli import export as export_command
from ppo_cli.cli import play as play_command
from ppo_cli.cli import report as report_command
from ppo_cli.cli import train as train_command

SHORT_RUN = ["env=cartpole", "total_env_steps=64", "num_envs=2", "rollout_length=16", "num_threads=1"]
"""Under ``accelerate=auto`` plain torch computes it (see `conftest.uncompiled`)."""


class Shell:
    """An empty folder in which commands run; remembers the last one's exit code and output."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capture = capture
        self.out = self.err = ""

    def train(self, *words: str) -> int:
        return self._ran(train_command.main(list(words)))

    def eval(self, *words: str) -> int:
        return self._ran(eval_command.main(list(words)))

    def play(self, *words: str) -> int:
        return self._ran(play_command.main(list(words)))

    def report(self, *words: str) -> int:
        return self._ran(report_command.main(list(words)))

    def export(self, *words: str) -> int:
        return self._ran(export_command.main(list(words)))

    def _ran(self, code: int) -> int:
        self.out, self.err = self.capture.readouterr()
        return code

    @property
    def errors(self) -> list[str]:
        return [line.removeprefix("error: ") for line in self.err.splitlines()]

    @property
    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("**/config.yaml"))
