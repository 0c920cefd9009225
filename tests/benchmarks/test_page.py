"""The page in a browser: no message on the console, every plot visible, and no wider than a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import as_page
from tests.benchmarks.helpers import full_report
from tests.support.browser import CHROMIUM, probed

PROBE = """
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
  const scrolled = [...document.querySelectorAll(".wide")].filter(box => box.scrollWidth > box.clientWidth + 1);
  const facts = {boxes: boxes, scrolled: scrolled.length, width: document.documentElement.scrollWidth, paper: getComputedStyle(document.body).backgroundColor};
  document.body.setAttribute("data-found", JSON.stringify(facts));
});
"""  # noqa: E501


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [500, 1200])
@pytest.mark.parametrize("options", [(), ("--force-dark-mode",)])
def test_page_in_a_browser(width: int, options: tuple[str, ...], tmp_path: Path) -> None:
    facts, console = probed(as_page(full_report()), PROBE, tmp_path, width, *options)

    assert len(console) == 1, console
    assert "the console is heard" in console[0]
    assert len(facts["boxes"]) == 6
    assert facts["width"] <= width
    assert facts["scrolled"] == 0

    for box in facts["boxes"]:
        assert box["width"] > 300
        assert box["height"] > 30
        assert box["cut"] == []
        assert box["ink"] != facts["paper"]
