"""A picture of TensorBoard's curves: python -m tests.browser.screenshot outputs tensorboard.png 'return|win|kl'."""

from __future__ import annotations

import json
import sys
import time
import urllib.parse
from pathlib import Path

from tests.browser.browser import Browser, tensorboard

QUIET_PAGE = {"timeSeriesSettingsPaneOpened": False, "stepSelectorEnabled": False, "scalarSmoothing": 0.6}


def main(logdir: Path, png: Path, tag_filter: str, width: int = 1440, height: int = 985) -> None:
    """Show the tags that match, without the settings pane and the data tables."""
    with tensorboard(logdir) as url, Browser(width, height) as browser:
        browser.open(url)
        browser.run(f"localStorage.setItem('_tb_global_settings', {json.dumps(json.dumps(QUIET_PAGE))})")
        browser.open(f"{url}?tagFilter={urllib.parse.quote(tag_filter)}#timeseries")
        browser.wait_for("Tags matching filter")
        time.sleep(3)  # curves are drawn, and grow to their cards, after their titles
        browser.screenshot(png)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
