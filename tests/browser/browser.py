"""TensorBoard in headless Chromium, driven over the WebDriver protocol: https://www.w3.org/TR/webdriver2."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
CHROMEDRIVER = shutil.which("chromedriver")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]

# TensorBoard keeps most of its page in shadow roots, which neither innerText nor a dump of the document reaches. It
# splits tags over several elements, so texts are joined without a space between them.
PAGE_TEXT = """
function read(node) {
  if (node.nodeType === Node.TEXT_NODE) return [node.data];
  if (node.nodeName === 'STYLE' || node.nodeName === 'SCRIPT') return [];
  return [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].flatMap(read);
}
return read(document.body).join('').replace(/\\s+/g, ' ');
"""


CLICK = """
function find(node) {
  const inner = [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes];
  for (const child of inner) {
    if (child.nodeType === Node.TEXT_NODE && child.data.trim().toLowerCase() === TEXT && node.getClientRects().length)
      return node;
    const found = child.nodeType === Node.TEXT_NODE ? null : find(child);
    if (found) return found;
  }
  return null;
}
const found = find(document.body);
if (found) found.click();
return found !== null;
"""


class Browser:
    """One window of a fresh, temporary profile. Tall, because TensorBoard draws only the cards that are in view."""

    def __init__(self, width: int = 1440, height: int = 2400) -> None:
        self._driver = subprocess.Popen([str(CHROMEDRIVER), "--port=0"], stdout=subprocess.PIPE, text=True)
        port = _wait_for_line(self._driver.stdout, r"successfully on port (\d+)")
        self._url = f"http://127.0.0.1:{port}/session"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--window-size={width},{height}"]}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        try:
            session = self._call("POST", "", {"capabilities": capabilities})
        except BaseException:
            self._driver.kill()
            raise
        self._url += f"/{session['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(timeout=10)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Go to a page, and start it anew where only the part behind # differs."""
        self._call("POST", "/url", {"url": "about:blank"})
        self._call("POST", "/url", {"url": url})

    def emulate(self, width: int, height: int, theme: str) -> None:
        """Show pages on a screen of this size to somebody who prefers a ``light`` or a ``dark`` theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        for command, parameters in (("setDeviceMetricsOverride", size), ("setEmulatedMedia", media)):
            self._call("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": parameters})

    def run(self, script: str) -> Any:
        """The value that a script returns in the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, text: str, seconds: float = 45) -> None:
        """Click what shows exactly this text, in whatever case, once it is there."""
        deadline = time.monotonic() + seconds
        while not self.run(f"const TEXT = {json.dumps(text.lower())};{CLICK}"):
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing on the page shows {text!r} after {seconds} s")
            time.sleep(0.2)

    def text(self) -> str:
        """Every text of the page, visible or not, white space collapsed."""
        return str(self.run(PAGE_TEXT))

    def wait_for(self, *expected: str, seconds: float = 45) -> str:
        """The page's text, once it holds all that is expected."""
        deadline = time.monotonic() + seconds
        while missing := [each for each in expected if each not in (text := self.text())]:
            if time.monotonic() > deadline:
                raise AssertionError(f"the page lacks {missing} after {seconds} s; it says: {text}")
            time.sleep(0.2)
        return text

    def wait_for_value(self, script: str, seconds: float = 45) -> Any:
        """What a script returns, once that is not null."""
        deadline = time.monotonic() + seconds
        while (value := self.run(script)) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still nothing after {seconds} s from: {script}")
            time.sleep(0.2)
        return value

    def screenshot(self, path: Path) -> None:
        """Save what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """Serve a folder on a free local port; yields the address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0", "--host", "127.0.0.1"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield _wait_for_line(server.stderr, r" at (http://\S+)")
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for_line(stream: IO[str] | None, pattern: str) -> str:
    """The first group of the first line that matches."""
    assert stream is not None
    said = ""
    for line in stream:
        if match := re.search(pattern, line):
            return match[1]
        said += line
    raise AssertionError(f"the process ended without saying {pattern!r}; it said: {said}")
