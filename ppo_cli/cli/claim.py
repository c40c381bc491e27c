"""The claims that runs were made to check: their pages, and the verdicts in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.progress import table
from ppo_cli.run_files import shown_path

if TYPE_CHECKING:
    from ppo_cli.report.runs import Run

FILE = "claim.html"
WIDTH = 100


def report_claims(folder: Path) -> None:
    """Write the page of every claim that runs in ``folder`` were made for, and say what they found."""
    from ppo_cli.report.runs import find_runs

    check_claims(find_runs([folder]), folder)


def check_claims(runs: Sequence[Run], folder: Path) -> None:
    """The same with runs that were read already; nothing where none was made for a claim."""
    from ppo_cli.claims.base import NAMES, claim_named
    from ppo_cli.claims.page import write_page

    marked = {name: found for name in NAMES if (found := [run for run in runs if run.config.get("claim") == name])}
    for name, found in marked.items():
        file = folder / (FILE if len(marked) == 1 else f"claim_{name}.html")
        verdict, files = write_page(name, found, file)
        indent = "\n" + " " * len("  verdict   ")
        rows = {
            "claim": claim_named(name)[0].statement,
            "verdict": indent.join(textwrap.wrap(f"{verdict.outcome.capitalize()}. {verdict.sentence}", WIDTH)),
            "page": ", ".join(map(shown_path, files)),
        }
        print("\n" + table(rows) + "\n")
