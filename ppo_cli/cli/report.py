"""`ppo-report`: what runs came to, as one HTML file with figures beside it, or as text. numpy is imported last."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.claim import check_claims
from ppo_cli.cli.commands import run_command, runs_and_settings
from ppo_cli.cli.mistakes import closest
from ppo_cli.cli.run_folder import RECORD
from ppo_cli.cli.validate import REPORT_SETTINGS
from ppo_cli.run_files import write_atomically
from ppo_cli.run_reader import recency

if TYPE_CHECKING:
    from ppo_cli.report.analysis import Report

FILE = "report.html"
SWEEP_RECORD = "multirun.yaml"


def main(words: list[str] | None = None) -> int:
    """The console command. Returns the exit code."""
    return run_command("ppo-report", command, words)


def command(words: list[str]) -> int:
    """Do what the words ask for."""
    names, settings = runs_and_settings(words, "ppo-report", REPORT_SETTINGS, most_runs=sys.maxsize)
    folders = [folder_of(name) for name in names]
    is_html = settings["format"] == "html"
    file = output_file(settings["output"], folders) if is_html else None
    report = report_on(folders, settings["metric"])
    if file is None:
        from ppo_cli.report.terminal import text

        print(f"\n{text(report)}\n")
        return 0
    write(report, file, with_figures=settings["figures"])
    check_claims(report.runs, file.parent)
    return 0


def folder_of(name: str) -> Path:
    """The folder that ``name`` means: itself, the run that a file lies in, or with ``latest`` the newest run's.

    The newest run's own is that of the sweep or the seeds that it belongs to.

    Raises:
        UserError: there is no such folder.
    """
    if name == "latest" and not Path(name).exists():
        return newest(Path("outputs"))
    path = Path(name)
    if not path.exists():
        near = sorted(path.parent.glob(f"{path.name}*")) if path.parent.is_dir() else []
        raise UserError(f"{name}: there is no such run folder" + (f"; did you mean {near[0]}?" if near else ""))
    if path.is_dir():
        return path
    folder = next((parent for parent in path.parents if (parent / RECORD).is_file()), None)
    if folder is None:
        raise UserError(f"{name}: expected a folder with runs in or below it; this is a file")
    return folder


def newest(root: Path) -> Path:
    """Where the run that wrote last lies, or the group of runs that it belongs to.

    Raises:
        UserError: there is none.
    """
    run = max((path.parent for path in root.glob(f"**/{RECORD}")), key=recency, default=None)
    if run is None:
        raise UserError(f"latest: there is no run in {root}/")
    group = run.parent if run.name.startswith("seed=") else run
    return group.parent if (group.parent / SWEEP_RECORD).is_file() else group


def output_file(output: str | None, folders: Sequence[Path]) -> Path:
    """Where the HTML file goes: as ``output=`` says, or beside the runs.

    Raises:
        UserError: nothing can be written there.
    """
    if output is None:
        common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
        file = (folders[0] if len(folders) == 1 else Path(os.path.relpath(common))) / FILE
    else:
        file = Path(output) if Path(output).suffix == ".html" else Path(output) / FILE
    parent = next(path for path in file.absolute().parents if path.exists())
    given = f"output={output}" if output else str(file)
    if file.is_dir() or not parent.is_dir():
        raise UserError(
            f"{given}: {file if file.is_dir() else parent} is in the way; choose another output=<file>.html"
        )
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".ppo-cli-"):
            return file
    except OSError as error:
        raise UserError(f"{given}: cannot write in {parent} ({error.strerror}); choose output=<folder>") from None


def report_on(folders: Sequence[Path], metric: str | None) -> Report:
    """Read the runs.

    Raises:
        UserError: there are none, or none has the metric.
    """
    from ppo_cli.report.analysis import Report
    from ppo_cli.report.runs import RETURN, find_runs

    runs = find_runs(folders)
    if not runs:
        raise UserError(f"{' '.join(map(str, folders))}: there is no run in or below it (no {RECORD})")
    tags = list(dict.fromkeys(tag for run in runs for tag in run.curves))
    if metric is not None and metric not in tags:
        last = {tag.rpartition("/")[2]: tag for tag in tags}
        near = last.get(metric) or closest(metric, tags) or closest(metric.rpartition("/")[2], tags)
        hint = f"did you mean metric={near}?" if near else f"they have: {', '.join(tags) or 'none yet'}"
        raise UserError(f"metric={metric}: no run has this figure; {hint}")
    return Report(runs, metric or RETURN)


def write(report: Report, file: Path, *, with_figures: bool) -> None:
    """Write the page, and the figures into a folder beside it; say where, and what came out."""
    from ppo_cli.report.page import html

    page = html(report)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, page.encode("utf-8", "replace"))
    print("\n" + "\n".join(f"  {sentence}" for sentence in report.verdict) + "\n")
    print(f"  report    {file}")
    if with_figures:
        from ppo_cli.report.figures import save_figures

        folder = file.with_name(f"{file.stem}_figures")
        paths = save_figures(report, folder)
        print(f"  figures   {folder}{os.sep}: {', '.join(path.name for path in paths)}")
    print()


if __name__ == "__main__":
    sys.exit(main())
