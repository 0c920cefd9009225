"""The page of nerd-view in a real browser: filters, search, keyboard, and no word on the console."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nerd_onnx.formats.tagged_file import TaggedEntity, TaggedRow
from nerd_onnx.view.page import view_page
from tests.support.browser import CHROMIUM, look, probed

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

PROBE = """
window.addEventListener("load", () => {
  const at = (id) => document.getElementById(id);
  const fire = (node, kind) => node.dispatchEvent(new Event(kind, {bubbles: true}));
  const state = () => ({count: at("count").textContent, rows: at("rows").children.length,
    marks: document.querySelectorAll("#rows mark").length, top: at("top").children.length});
  const found = {all: state(), hacked: String(window.hacked)};
  document.querySelectorAll("#labels input")[0].click();
  found.less = state();
  at("all").click();
  at("score").value = "0.9"; fire(at("score"), "input");
  found.sure = state();
  at("score").value = "0"; fire(at("score"), "input");
  at("only").click();
  found.only = state();
  at("only").click();
  at("search").value = "HOSTILE"; fire(at("search"), "input");
  setTimeout(() => {
    found.search = state();
    found.hits = [...document.querySelectorAll("#rows .hit")].map(node => node.textContent);
    const edges = [...document.querySelectorAll("#labels .track")].map(node => node.getBoundingClientRect().left);
    found.edges = new Set(edges).size;
    found.open = at("fold").open;
    document.querySelector("#top button").click();
    found.clicked = at("search").value;
    const controls = [...document.querySelectorAll("input, button")];
    found.named = controls.every(node => node.labels?.length || node.textContent);
    found.wide = document.documentElement.scrollWidth;
    document.body.setAttribute("data-found", JSON.stringify(found));
  }, 400);
});
"""


def rows() -> list[TaggedRow]:
    made = []
    for i in range(3000):
        person = TaggedEntity(0, 4, "person", "person-artist/author", 0.95 if i % 2 else 0.5)
        place = TaggedEntity(14, 18, "location", None, None)
        made.append(TaggedRow(i, "Anna lives in Rome.", [person, place] if i % 3 else []))
    hostile = 'hostile </script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    return [*made, TaggedRow(3000, hostile, [TaggedEntity(0, 7, "<i>art</i>", None, 1.0)])]


def test_the_script_runs_under_its_own_policy_and_says_nothing(tmp_path: Path) -> None:
    dom, console = look(view_page(rows(), "tagged.parquet", "about"), tmp_path, 1200)
    assert console == []
    assert "3,001 of 3,001 rows, 4,001 entities" in dom
    assert "<img" not in dom


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1200])
def test_filters_search_and_hostile_text(tmp_path: Path, width: int) -> None:
    page = view_page(rows(), "tagged.parquet", "about")
    page = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)  # lets the probe in
    found, console = probed(page, PROBE, tmp_path, width)
    assert console == []
    assert found["hacked"] == "undefined"
    assert found["all"]["count"] == "3,001 of 3,001 rows, 4,001 entities"
    assert 60 <= found["all"]["rows"] < 1000  # drawn as one scrolls
    assert found["less"]["count"] == "3,001 of 3,001 rows, 4,000 entities"  # without the label <i>art</i>
    assert found["sure"]["count"] == "3,001 of 3,001 rows, 3,001 entities"  # those without a score stay
    assert found["only"]["count"] == "2,001 of 3,001 rows, 4,001 entities"
    assert found["search"] == {"count": "1 of 3,001 rows, 1 entity", "rows": 1, "marks": 1, "top": 1}
    assert found["hits"] == ["hostile"]
    assert found["clicked"] == "hostile"
    assert found["edges"] == 1
    assert found["open"] == (width > 720)
    assert found["named"]
    assert found["wide"] <= width


def test_bad_scores_are_shown_whatever_the_minimum_is(tmp_path: Path) -> None:
    scores = [float("nan"), float("inf"), -3.0, 0.25]
    entities = [TaggedEntity(5 * i, 5 * i + 4, "person", None, score) for i, score in enumerate(scores)]
    page = view_page([TaggedRow(0, "Anna Anna Anna Anna", entities)], "t", "a")
    dom, console = look(page, tmp_path, 1200)
    assert console == []
    for shown in ("person bad score nan", "person bad score inf", "person bad score -3", "person 0.25"):
        assert f"<small>{shown}</small>" in dom
    assert "1 of 1 row, 4 entities" in dom
