from __future__ import annotations

import numpy as np
from PIL import Image

from ppo_cli.report.analysis import Report
from ppo_cli.report.figures import file_name, save_figures
from ppo_cli.report.runs import RETURN, find_runs
from tests.report.helpers import write_run


def test_figures_are_pictures_of_curves_results_and_updates(tmp_path):
    for seed in (1, 2):
        curves = {RETURN: [1.0, 2.0, 4.0], "x/win_rate": [0.1, 0.2, 0.3], "losses/kl": [0.01, 0.02, 0.9]}
        write_run(tmp_path / "runs" / f"$x^{{{seed}}}$", curves, seed=seed, overrides=["clip=$\\frac$"])
    paths = save_figures(Report(find_runs([tmp_path / "runs"]), RETURN), tmp_path / "out")
    assert [path.name for path in paths] == [
        "charts_episodic_return.png",
        "x_win_rate.png",
        "results.png",
        "updates.png",
    ]
    for path in paths:
        picture = np.asarray(Image.open(path).convert("RGB"))
        assert picture.shape[1] > 400
        assert (picture == [0, 114, 178]).all(-1).sum() > 20  # the first colour of the palette: the curve is there


def test_runs_without_a_point_have_no_figures(tmp_path):
    write_run(tmp_path / "a", [])
    assert save_figures(Report(find_runs([tmp_path / "a"]), RETURN), tmp_path / "out") == []


def test_a_tag_names_a_file_and_never_a_path():
    assert file_name("charts/episodic_return") == "charts_episodic_return"
    assert "/" not in file_name("../../etc/passwd")
    assert file_name("..") == file_name("") == "figure"
