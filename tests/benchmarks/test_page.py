"""The page in a real browser: no word on the console, every plot to be seen, nothing wider than a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import as_page
from tests.benchmarks.helpers import full_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>
console.error("the console is heard");
window.addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("svg")].map(svg => {
    const box = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter(text => {
      const inner = text.getBoundingClientRect();
      return inner.left < box.left - 1 || inner.right > box.right + 1;
    });
    const ink = getComputedStyle(svg.querySelector("text")).fill;
    return {width: box.width, height: box.height, cut: texts.map(text => text.textContent), ink: ink};
  });
  const facts = {boxes: boxes, width: document.documentElement.scrollWidth, paper: getComputedStyle(document.body).backgroundColor};
  document.body.setAttribute("data-found", JSON.stringify(facts));
});
</script></body>"""  # noqa: E501


def look(text: str, folder: Path, width: int, *options: str) -> tuple[dict[str, Any], list[str]]:
    """Open a page in a frame of some width. :return: what it measured, and what the console said"""
    (folder / "page.html").write_text(text.replace("</body>", PROBE), "utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [
            *command, *options, f"--window-size={width},900", f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=2000", (folder / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [500, 1200])
@pytest.mark.parametrize("options", [(), ("--force-dark-mode",)])
def test_page_in_a_browser(width: int, options: tuple[str, ...], tmp_path: Path) -> None:
    facts, console = look(as_page(full_report()), tmp_path, width, *options)
    assert len(console) == 1, console
    assert "the console is heard" in console[0]
    assert len(facts["boxes"]) == 6
    assert facts["width"] <= width
    for box in facts["boxes"]:
        assert box["width"] > 300
        assert box["height"] > 30
        assert box["cut"] == []
        assert box["ink"] != facts["paper"]
