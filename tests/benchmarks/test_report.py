"""Checks, goals, comparison and the three forms of the report: pure parts, on planted numbers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.checks import run_checks
from benchmarks.compare import compare
from benchmarks.goals import judged
from benchmarks.report import as_markdown, as_page, write_report
from benchmarks.suite import load_report
from nerd_export.report.html import inline
from nerd_export.report.svg import Chart, Point, linear_axis, logarithmic_axis
from tests.benchmarks.helpers import LEVELS, accuracy, failed, full_report, scores

AS_RECORDED = "test: F1 as recorded in the bundle"
AGAINST_RECORD = "test: F1 against PyTorch as recorded"
SAME_RUN = "small: F1 against PyTorch, same run"

# --- checks ----------------------------------------------------------------------------------------------------------


def test_good_figures_pass() -> None:
    report = full_report()
    assert len(report["checks"]) == 5
    assert failed(report) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert run_checks({}) == []
    assert run_checks(accuracy(scores(0.7), recorded=None)) == []


@pytest.mark.parametrize("level", LEVELS)
def test_f1_other_than_recorded_is_refused_on_every_level(level: str) -> None:
    assert failed(accuracy(scores(0.7, **{level: 0.7031}))) == [AS_RECORDED]
    assert failed(accuracy(scores(0.7, **{level: 0.703}))) == []


def test_f1_that_is_no_number_is_refused() -> None:
    assert failed(accuracy(scores(float("nan"))))


def test_loss_against_the_recorded_original_is_refused() -> None:
    assert failed(accuracy(scores(0.7), original=0.7031)) == [AGAINST_RECORD]
    assert failed(accuracy(scores(0.7), original=0.703)) == []


@pytest.mark.parametrize(("difference", "refused"), [(-0.0031, True), (-0.003, False), (0.2, False)])
def test_loss_against_pytorch_of_the_same_run_is_refused(difference: float, *, refused: bool) -> None:
    report = full_report()
    report["shapes"]["small"]["accuracy"]["peers"]["nerd_tag"]["against_pytorch"]["raw"]["value"] = difference
    assert (failed(report) == [SAME_RUN]) == refused


def test_text_changed_by_its_neighbours_is_refused() -> None:
    neighbours = {"texts": 300, "changed": {"alone": 0, "shuffled": 1}}
    (check,) = run_checks({"neighbours": neighbours})
    assert not check.passed
    assert check.detail == "300 texts, changed shuffled: 1"


@pytest.mark.parametrize(("ratio", "passed"), [(1.99, False), (2.0, True), (9.0, True)])
def test_gross_fall_in_speed_is_refused(ratio: float, *, passed: bool) -> None:
    report = {"shapes": {"small": {"ratios": {"short": {"transformers_pipeline": {"tagging": ratio}}}}}}
    assert [check.passed for check in run_checks(report)] == [passed]


def test_failed_steps_are_refused() -> None:
    assert failed({"failed_steps": {"growth.rows": "OSError: disk full"}}) == ["step growth.rows"]


def test_ratio_far_below_that_of_another_report_is_refused() -> None:
    old, new = full_report(), full_report()
    assert failed(new, old) == []
    old["shapes"]["small"]["ratios"]["short"]["transformers_pipeline"]["tagging"] = 10.1  # now 6.0
    assert len(failed(new, old)) == 1


# --- goals and comparison --------------------------------------------------------------------------------------------


def test_goals_stand_beside_what_was_measured() -> None:
    goals = {goal["name"]: goal for goal in judged(full_report())}
    pipeline = goals["small, short: file to file against the transformers pipeline"]
    assert pipeline == {**pipeline, "goal": "at least 8.00x", "measured": "6.00x", "met": False}
    assert goals["small, short: share of the int8 peak, model alone"]["measured"] == "80%"
    assert goals["small, short: share of the int8 peak, model alone"]["met"]
    assert goals["small, short: all but the model, share of processor time"]["measured"] == "10.0%"
    assert goals["first entity, warm start"]["met"] is False
    assert goals["small: memory of most rows against that of 10,000"]["met"]
    assert not any(name.startswith("base") for name in goals)


def test_comparison_lists_what_both_have() -> None:
    old, new = full_report(), full_report()
    old["shapes"]["small"]["ratios"]["short"]["transformers_pipeline"]["tagging"] = 3.0
    del old["start"]
    found = compare(new, old, "old.json")
    rows = {row["what"]: row for row in found["rows"]}
    ratio = rows["small, short: times faster than transformers_pipeline"]
    assert (ratio["before"], ratio["now"], ratio["quotient"]) == (3.0, 6.0, 2.0)
    assert found["same_machine"]
    assert "first entity, s" not in rows
    text = as_markdown(new | {"compared": found})
    assert "| small, short: times faster than transformers_pipeline | 3 | 6 | 2.00 |" in text


def test_another_bundle_is_named_in_the_head() -> None:
    report = full_report()
    assert "other bundle" not in as_markdown(report)
    other = {"bundle": "old", "quantization": "per-token int8", "size_bytes": 24e6, "sha256": "0123456789abcdef"}
    report["shapes"]["small"]["model"]["other"] = other
    assert "- small, other bundle: `old`, per-token int8, 24.0 MB, SHA-256 0123456789ab." in as_markdown(report)


def test_reports_of_another_format_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text('{"format_version": 1}')
    with pytest.raises(ValueError, match=r"old.json: format 1"):
        load_report(file)


# --- the report ------------------------------------------------------------------------------------------------------


def test_markdown_holds_every_figure() -> None:
    text = as_markdown(full_report())
    for part in (
        "| nerd-tag, int8 | 2,250 (1,500 to 3,000) | 75.0 (50.0 to 100.0) |",
        "**6.00x** (5.00 to 8.00)",
        "| given words, coarse | 0.7001 | 0.7000 | 0.7010 |",
        "| nerd-tag, int8 | 0.7000 (-0.40 to +0.20) |",
        "| 1.23% | 3 |",
        "| nerd-tag, int8 | 800 (800 to 800) | 80% |",
        "| short | 1.0% | 4.0% | 90.0% | 3.0% | 1.0% | 1.0% | 91% |",
        "| shuffled | 0 |",
        "| one text, one answer | passed |",
        "batch size 8",
        "- something to know.",
        "- small: openvino_int8 did not run: openvino not installed.",
        "- small, short: no figures of spacy_small: it failed.",
        "| 100,000 | 2.00 s | 450 | 200 MB |",
        "python -m nerd_onnx.cli\n",
    ):
        assert part in text


def test_markdown_tables_are_even() -> None:
    for before, line in pairwise(as_markdown(full_report()).splitlines()):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|")


def test_failed_check_stands_out() -> None:
    report = full_report() | accuracy(scores(0.5))
    report["checks"] = [vars(check) for check in run_checks(report)]
    assert "| test: F1 as recorded in the bundle | **failed** | 0.5000, recorded 0.7000" in as_markdown(report)


def test_parts_not_measured_are_left_out() -> None:
    report = full_report() | {"shapes": {}, "checks": [], "notes": []}
    for part in ("neighbours", "accuracy", "growth", "start"):
        del report[part]
    text = as_markdown(report)
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Machine and versions"]
    assert "<h2>Machine and versions</h2>" in as_page(report)


def test_steps_that_failed_leave_holes_that_render() -> None:
    report = full_report()
    small = report["shapes"]["small"]
    small |= {"accuracy": None, "stages": {"short": None}, "alone": {"short": None}, "speed": {}, "ratios": {}}
    report |= {"growth": {"rows": None, "length": None, "threads": None}, "start": None, "neighbours": None}
    report |= {"accuracy": None}
    assert "The small model" in as_markdown(report)
    assert "The small model" in as_page(report)


class Balanced(HTMLParser):
    """Checks that every element is closed in its turn, and collects what stands in them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an empty element."""
        del attrs
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self.open.pop() == tag


def test_page_is_whole_and_fetches_nothing() -> None:
    text = as_page(full_report())
    found = Balanced()
    found.feed(text)
    assert found.open == []
    assert "script" not in found.seen
    assert found.addresses == ["data:,"]
    assert "url(" not in text
    assert text.count("<figure>") == text.count("<svg") == 6
    assert "transformers &lt;pipeline&gt;" in text
    assert "<pipeline>" not in text


def test_drawings_stay_in_their_frame() -> None:
    text = as_page(full_report())
    for part in text.split("<svg")[1:]:
        root = ET.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")  # noqa: S314 - made here
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for element in root.iter():
            for key in ("x", "x1", "x2", "cx"):
                assert 0 <= float(element.get(key, 0)) <= width
            for key in ("y", "y1", "y2", "cy"):
                assert 0 <= float(element.get(key, 0)) <= height


def test_labels_of_near_points_do_not_overlap() -> None:
    chart = Chart(linear_axis("x", 0, 10), linear_axis("y", 0, 10))
    points = [Point(5, 5, f"engine {i}", "other") for i in range(6)]
    heights = sorted(y for _, y, _ in chart._label_places(points))
    assert all(after - before >= 13 for before, after in pairwise(heights))


def test_axes_cover_their_values() -> None:
    axis = linear_axis("", 3, 97)
    assert axis.low <= 3
    assert axis.high >= 97
    assert axis.share(axis.low) == 0
    assert axis.share(axis.high) == 1
    log = logarithmic_axis("", 1_000, 100_000)
    assert log.ticks == [1e3, 1e4, 1e5]
    assert log.share(1e4) == pytest.approx(0.5)
    assert linear_axis("", 5, 5).share(5) >= 0


def test_inline_escapes_before_it_marks() -> None:
    assert inline("`a<b` **x** & y") == "<code>a&lt;b</code> <strong>x</strong> &amp; y"


def test_report_is_written_as_data_as_text_and_as_a_page(tmp_path: Path) -> None:
    report = full_report()
    text = write_report(report, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert json.loads((folder / "report.json").read_text("utf-8")) == report
    assert (folder / "report.md").read_text("utf-8") == text
    assert (folder / "report.html").read_text("utf-8").startswith("<!doctype html>")
