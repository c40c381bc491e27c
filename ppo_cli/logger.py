"""What a run shows while it goes on and leaves behind: the one object that the trainer tells its numbers to.

``metrics.jsonl`` is the source of truth for reports, TensorBoard is the picture, ``summary.json`` is the verdict. The
x-axis is environment steps everywhere. Tags follow CleanRL (https://github.com/vwxyzjn/cleanrl), so that dashboards
and scripts written for it work.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from ppo_cli.closing_words import closing_words
from ppo_cli.event_writer import EventWriter, code_block
from ppo_cli.progress import Display, DisplayMode, Snapshot, Throughput, make_display, table
from ppo_cli.run_files import (
    CONFIG_FILE,
    METRICS_FILE,
    OVERRIDES_FILE,
    RESUMES_FILE,
    SUMMARY_FILE,
    AppendFile,
    Summary,
    command_line,
    git_revision,
    json_value,
    shown_path,
    trim_metrics,
    versions,
    write_atomically,
    write_json,
)
from ppo_cli.run_reader import MetricsTail, overrides_of
from ppo_cli.trials import HParamsTable, flattened, hparams_table, trial_id

Status = Literal["completed", "interrupted", "failed"]

EXIT_CODES: dict[Status, int] = {"completed": 0, "interrupted": 130, "failed": 1}

NO_FIGURES = ("env_steps", "update", "wall_time")
"""What a line of ``metrics.jsonl`` says of when it was written."""

ENCODER = json.JSONEncoder(allow_nan=False)

LAYOUT = {
    "trust region": {
        "KL divergence": ["losses/kl", "losses/kl_last_epoch"],
        "clip fraction": ["losses/clipfrac", "losses/clipfrac_last_epoch"],
    },
    "critic": {"explained variance": ["losses/explained_variance"]},
}
"""Curves that are read together, as TensorBoard's custom scalars."""


class RunLogger:
    """Writes a run's folder and shows its progress. A disk that fails later than here costs log lines, not the run.

    Args:
        run_dir: The run's folder; made where it does not exist.
        total_env_steps: Where the run ends.
        start_env_steps: Where it starts; above 0 on resume. Points that the folder holds beyond it are dropped.
        config: The resolved configuration as plain dicts, lists and scalars.
        overrides: What the user typed, one item for each argument.
        resumed: On resume, what is new: settings that changed, why it is not exact. Added to the list of resumes.
        display: ``auto`` is a bar on a terminal and plain lines elsewhere; or a display that exists already.
        headline_tags: Scalars that become columns of TensorBoard's HParams table.
        table: The rest of that table, where other runs stand in it that may have other hyperparameters.

    Raises:
        OSError: The folder cannot be made or written at the start.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        total_env_steps: int,
        config: Mapping[str, Any],
        start_env_steps: int = 0,
        overrides: Sequence[str] = (),
        resumed: Mapping[str, Any] | None = None,
        display: DisplayMode | Display = "auto",
        headline_tags: Sequence[str] = ("charts/episodic_return",),
        table: HParamsTable | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.display = make_display(display) if isinstance(display, str) else display
        self._started_at = time.monotonic()
        self._throughput = Throughput(start_env_steps)
        self._latest: dict[str, float] = {}
        self._summary = Summary(
            status="running",
            exit_code=None,
            error=None,
            env_steps=start_env_steps,
            start_env_steps=start_env_steps,
            total_env_steps=total_env_steps,
            updates=0,
            steps_per_second=None,
            wall_seconds=0.0,
            started=iso_time(time.time()),
            ended=None,
            final={},
            checkpoint=None,
            best_checkpoint=None,
            dropped_records=0,
            faults={},
            trial_id=trial_id(config),
            command=command_line(),
            git=git_revision(),
            versions=versions(),
        )
        run_dir.mkdir(parents=True, exist_ok=True)
        trim_metrics(run_dir / METRICS_FILE, start_env_steps if start_env_steps else -1)
        self._take_up_figures()
        self._metrics_file = AppendFile(run_dir / METRICS_FILE, self.warn)
        self._events = EventWriter(run_dir, start_env_steps, self.warn)
        self._note_command(list(overrides), resumed)
        self._describe(config, headline_tags, table)

    def _take_up_figures(self) -> None:
        """The latest figures so far: a run that goes on may have few updates left, or none."""
        for row in MetricsTail(self.run_dir / METRICS_FILE).read():
            figures = {tag: math.nan if value is None else value for tag, value in row.items() if tag not in NO_FIGURES}
            self._latest |= {tag: value for tag, value in figures.items() if isinstance(value, int | float)}
            self._summary.updates = row.get("update", 0)

    def _note_command(self, overrides: list[str], resumed: Mapping[str, Any] | None) -> None:
        """Write down what the user typed: at the start of the run, and each time that it goes on."""
        if resumed is None:
            write_atomically(self.run_dir / OVERRIDES_FILE, to_yaml(overrides).encode())
            return
        path = self.run_dir / RESUMES_FILE
        earlier = path.read_bytes() if path.exists() else b""
        entry = {"time": iso_time(time.time()), "env_steps": self._summary.env_steps, "overrides": overrides, **resumed}
        write_atomically(path, earlier + to_yaml([entry]).encode())

    def _describe(self, config: Mapping[str, Any], headline_tags: Sequence[str], table: HParamsTable | None) -> None:
        """Write down what is run, so that a run killed in its first second is still known."""
        config_yaml = to_yaml(config)
        write_atomically(self.run_dir / CONFIG_FILE, config_yaml.encode())
        write_json(self.run_dir / SUMMARY_FILE, asdict(self._summary))
        step = self._summary.env_steps
        table = table or hparams_table([config], overrides_of(self.run_dir))  # of its beginning, also on resume
        trial = self._summary.trial_id
        self._events.session_start(step, flattened(config), trial, headline_tags, table.shown, table.columns)
        self._events.layout(step, LAYOUT)
        source = {"git": self._summary.git, "versions": self._summary.versions}
        self._events.text(step, "run/config", code_block(config_yaml))
        self._events.text(step, "run/command", code_block(self._summary.command))
        self._events.text(step, "run/versions", code_block(to_yaml(source)))

    def start(self, facts: Mapping[str, str]) -> None:
        """Print the numbers that follow from the configuration, such as the batch size; label to text."""
        self.display.note("\n" + table({**facts, "run folder": shown_path(self.run_dir)}) + "\n")
        self.display.update(self._snapshot())

    def log(self, env_steps: int, update: int, metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Record one update everywhere.

        Reads the tensors, all of a device at once: the only place where training waits for its numbers.

        Args:
            env_steps: Environment steps taken so far.
            update: Updates made so far.
            metrics: Values by tag, 0-d tensors or numbers. NaN says "no value this time".

        Returns:
            The values as numbers, with ``charts/SPS`` and ``time/SPS_total``.
        """
        self._throughput.mark(env_steps)
        scalars = read_scalars(metrics)
        scalars |= {"charts/SPS": self._throughput.interval, "time/SPS_total": self._throughput.total}
        self._latest |= scalars
        self._summary.env_steps, self._summary.updates = env_steps, update
        self._events.scalars(env_steps, {tag: value for tag, value in scalars.items() if not math.isnan(value)})
        line: dict[str, float | None] = {
            "env_steps": env_steps,
            "update": update,
            "wall_time": round(self._events.clock(), 3),
        }
        line |= {tag: json_value(value) for tag, value in scalars.items()}
        self._metrics_file.write((ENCODER.encode(line) + "\n").encode())
        self.display.update(self._snapshot())
        return scalars

    def image(self, tag: str, env_steps: int, rgb: NDArray[np.uint8]) -> None:
        """Show a picture in TensorBoard, uint8 [H, W, 3]."""
        self._events.image(env_steps, tag, rgb)

    def text(self, tag: str, env_steps: int, markdown: str) -> None:
        """Show a note in TensorBoard."""
        self._events.text(env_steps, tag, markdown)

    def finish(
        self,
        status: Status,
        *,
        final: Mapping[str, float] | None = None,
        error: str | None = None,
        exit_code: int | None = None,
        checkpoint: Path | None = None,
        best_checkpoint: Path | None = None,
        faults: Mapping[str, int] | None = None,
    ) -> None:
        """Write the verdict, close the files and tell where to look. Safe to call after any failure; once.

        Args:
            status: How the run ended.
            final: Figures that count beside the latest of each tag, such as those of a last evaluation.
            error: What went wrong, one line.
            exit_code: Of the process, where it is not the usual one of this status.
            checkpoint: The newest one.
            best_checkpoint: The best one, where that is known.
            faults: What was passed over, by tag.
        """
        self.display.close()
        self._latest |= final or {}
        if status != "interrupted":  # an interrupted run may be resumed; TensorBoard believes the first end it reads
            self._events.session_end(self._summary.env_steps, succeeded=status == "completed")
        self._events.close()
        self._metrics_file.close()
        self._summary.status = status
        self._summary.exit_code = EXIT_CODES[status] if exit_code is None else exit_code
        self._summary.error = error
        self._summary.checkpoint = str(checkpoint.relative_to(self.run_dir)) if checkpoint else None
        self._summary.best_checkpoint = str(best_checkpoint.relative_to(self.run_dir)) if best_checkpoint else None
        self._summary.steps_per_second = json_value(self._throughput.total)
        self._summary.wall_seconds = round(time.monotonic() - self._started_at, 3)
        self._summary.ended = iso_time(self._events.clock())
        self._summary.final = {tag: json_value(value) for tag, value in self._latest.items()}
        self._summary.faults = dict(faults or {})
        self._summary.dropped_records = self._metrics_file.dropped + self._events.dropped
        try:
            write_json(self.run_dir / SUMMARY_FILE, asdict(self._summary))
        except OSError as failure:
            self.warn(f"cannot write {self.run_dir / SUMMARY_FILE}: {failure.strerror}")
        self.display.note(closing_words(self._summary, self._latest, self.run_dir, self._throughput.total))

    def _snapshot(self) -> Snapshot:
        """What the display needs to know now."""
        rate = self._throughput.recent
        return Snapshot(self._summary.env_steps, self._summary.total_env_steps, rate, dict(self._latest))

    def warn(self, text: str) -> None:
        """Say a sentence that must not be missed."""
        self.display.note(text, warning=True)


def read_scalars(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The values as Python numbers, in the order given: one transfer for all tensors that lie on a device."""
    tensors = {tag: value.detach() for tag, value in metrics.items() if isinstance(value, Tensor)}
    away = {tag: value for tag, value in tensors.items() if not value.is_cpu}
    arrived = torch.stack([value.float() for value in away.values()]).tolist() if away else []
    return {tag: float(v) for tag, v in {**metrics, **tensors, **dict(zip(away, arrived, strict=True))}.items()}


def to_yaml(value: object) -> str:
    """Block-style YAML in the order given."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False))


def iso_time(seconds: float) -> str:
    """A moment, in seconds since 1970, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
