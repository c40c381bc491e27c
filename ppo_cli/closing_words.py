"""What a run says at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from ppo_cli.progress import duration, performance, rate_text, table
from ppo_cli.run_files import Summary, shown_path


def closing_words(summary: Summary, figures: Mapping[str, float], run_dir: Path, steps_per_second: float) -> str:
    """How it ended, the figures, and what to type next.

    Args:
        summary: What is known of the run.
        figures: The latest value of each tag.
        run_dir: Its folder.
        steps_per_second: Environment steps, over the whole run; NaN where there were none.
    """
    rows = {
        summary.status: f"{summary.env_steps:,} steps in {duration(summary.wall_seconds)}, "
        f"{rate_text(steps_per_second)} steps/s"
    }
    if summary.error:
        rows["error"] = summary.error
    for label, evaluated in (("reached", False), ("evaluated", True)):
        if shown := performance(figures, evaluated=evaluated):
            rows[label] = "  ".join(f"{name} {value}" for name, value in shown)
    if summary.dropped_records:
        rows["lost"] = f"{summary.dropped_records:,} log records that the disk refused"
    if passed_over := {tag: count for tag, count in summary.faults.items() if count}:
        rows["passed over"] = ", ".join(f"{count:,} {words(tag)}" for tag, count in passed_over.items())
    folder = shlex.quote(shown_path(run_dir))
    rows |= {"run folder": shown_path(run_dir), "look at it": f"tensorboard --logdir {folder}"}
    if summary.checkpoint:
        rows["evaluate"] = f"ppo-eval {folder}"
    if summary.best_checkpoint:
        rows["best"] = f"ppo-eval {shlex.quote(shown_path(run_dir / summary.best_checkpoint))}"
    if summary.checkpoint and (summary.status != "completed" or summary.exit_code):
        rows["last saved"] = summary.checkpoint
        rows["go on"] = f"ppo-train resume={folder}"
    return "\n" + table(rows) + "\n"


def words(tag: str) -> str:
    """The last part of a tag, as one would say it."""
    return tag.rpartition("/")[2].replace("_", " ")
