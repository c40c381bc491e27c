"""The page of a checked claim: one HTML file that needs nothing else, and its figure as a PNG beside it."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_cli.claims import ClaimName
from ppo_cli.claims.base import Claim, Verdict, claim_named
from ppo_cli.report.figures import LOOK, new_figure
from ppo_cli.report.markup import Child, Markup, element
from ppo_cli.report.numbers import plural
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import RESAMPLES
from ppo_cli.report.style import style_sheet
from ppo_cli.run_files import write_atomically

DPI = 130


def write_page(name: ClaimName, runs: Sequence[Run], file: Path) -> tuple[Verdict, list[Path]]:
    """Check a claim with these runs and write ``file``, and the figure beside it where there is one to draw.

    Returns:
        The verdict, and what was written.

    Raises:
        OSError: the folder cannot be written.
    """
    claim, rules = claim_named(name)
    verdict, measured = claim.check(runs)
    picture = figure_png(claim, measured) if measured is not None else None
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, html(name, claim, rules, verdict, picture, runs).encode("utf-8", "replace"))
    if picture is None:
        return verdict, [file]
    image = file.with_suffix(".png")
    write_atomically(image, picture)
    return verdict, [file, image]


def figure_png(claim: Claim[Any], measured: Any) -> bytes:  # noqa: ANN401 - what this claim measures
    """The claim's figure."""
    import matplotlib

    with matplotlib.rc_context(LOOK):
        figure = new_figure(*claim.size)
        claim.draw(measured, figure)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI, pil_kwargs={"optimize": True})
    return content.getvalue()


def html(
    name: ClaimName, claim: Claim[Any], rules: str, verdict: Verdict, picture: bytes | None, runs: Sequence[Run]
) -> str:
    """The whole file."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        element("title", claim.statement),
        element("style", Markup(style_sheet() + "figure{margin-top:1.6rem}img{width:100%;background:#fff}")),
    ]
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}" if picture else ""
    body: list[Child] = [
        element("h1", claim.statement),
        element(
            "div", element("p", element("b", f"{verdict.outcome.capitalize()}. "), verdict.sentence), class_="verdict"
        ),
        element("figure", element("img", src=source, alt=verdict.sentence)) if picture else "",
        element("h2", "How it is judged"),
        element("pre", rules),
        element("h2", "Runs"),
        element("p", runs_text(runs)),
        element("code", f"ppo-train -m experiment={name}"),
        element("p", f"Intervals: 95 %, percentiles of {RESAMPLES:,} bootstrap resamples of the seeds.", class_="soft"),
    ]
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def runs_text(runs: Sequence[Run]) -> str:
    """How many there were, and what became of those that are not counted."""
    others = Counter(run.status for run in runs if not run.is_finished)
    left_out = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
    finished = sum(run.is_finished for run in runs)
    return f"{plural(finished, 'finished run')}." + (f" Not counted: {left_out}." if left_out else "")
