"""Checks, goals, comparison and the three files of the report, with invented figures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import command
from benchmarks.report import as_markdown, as_page, write_report
from benchmarks.report.checks import run_checks
from benchmarks.report.compare import compare
from benchmarks.report.goals import judged
from benchmarks.report.saved import load_report
from nerd_export.reporting.html import inline
from nerd_export.reporting.svg import Chart, Point, linear_axis, logarithmic_axis
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
    assert check.detail == "300 texts, changed: shuffled: 1"


@pytest.mark.parametrize(("ratio", "passed"), [(1.99, False), (2.0, True), (9.0, True)])
def test_gross_fall_in_speed_is_refused(ratio: float, *, passed: bool) -> None:
    found = {"median": ratio, "min": 1.0, "max": 9.0, "rounds": 2}
    report = {"shapes": {"small": {"ratios": {"short": {"transformers_pipeline": found}}}}}
    (check,) = run_checks(report)
    assert check.passed == passed
    assert check.detail == f"{ratio:.2f} times (2 rounds; fewer than 3 rounds), same run (minimum 2)"


def test_failed_steps_are_refused() -> None:
    assert failed({"failed_steps": {"growth.rows": "OSError: disk full"}}) == ["step growth.rows"]


def test_ratio_far_below_that_of_another_report_is_refused() -> None:
    old, new = full_report(), full_report()
    assert failed(new, old) == []
    old["shapes"]["small"]["ratios"]["short"]["transformers_pipeline"]["median"] = 10.1  # now 6.0
    assert len(failed(new, old)) == 1


# --- goals and comparison --------------------------------------------------------------------------------------------


def test_goals_stand_beside_what_was_measured() -> None:
    goals = {goal["name"]: goal for goal in judged(full_report())}
    pipeline = goals["small, short: file to file against the transformers pipeline"]

    assert pipeline == {**pipeline, "goal": "at least 8.00x", "measured": "6.00x (3 rounds)", "met": False}
    assert goals["small, short: share of the int8 peak, network alone"]["measured"] == "80% (3 rounds)"
    assert goals["small, short: share of the int8 peak, network alone"]["met"]
    assert goals["small, short: share of processor time outside the model"]["measured"] == "10.0%"
    assert goals["first entity, warm start"]["met"] is False
    assert goals["small: memory for the largest file against 10,000 rows"]["met"]
    assert not any(name.startswith("base") for name in goals)


MEMORY = "small: peak memory"
FLATNESS = "small: memory for the largest file against 10,000 rows"


def test_a_goal_without_its_figure_is_left_out() -> None:
    report = full_report()
    small = report["shapes"]["small"]
    small |= {"stages": {"short": None}, "alone": {"short": None}, "ratios": {}, "speed": {}}
    report |= {"start": None, "growth": {"rows": None}}

    assert judged(report) == []
    assert judged({}) == []


def test_peak_memory_needs_the_subject_on_every_workload() -> None:
    report = full_report()
    assert MEMORY in {goal["name"] for goal in judged(report)}

    report["shapes"]["small"]["speed"]["long"] = {}  # nerd-tag failed there, and may have needed more memory
    assert MEMORY not in {goal["name"] for goal in judged(report)}


@pytest.mark.parametrize("rows", [[], [1_000, 10_000], [1_000, 100_000]])
def test_growth_of_memory_needs_10_000_rows_and_a_larger_file(rows: list[int]) -> None:
    report = full_report()
    assert FLATNESS in {goal["name"] for goal in judged(report)}

    report["growth"]["rows"] = [point for point in report["growth"]["rows"] if point["rows"] in rows]
    assert FLATNESS not in {goal["name"] for goal in judged(report)}


def test_comparison_lists_what_both_have() -> None:
    old, new = full_report(), full_report()
    old["shapes"]["small"]["ratios"]["short"]["transformers_pipeline"] |= {"median": 3.0, "rounds": 2}
    del old["start"]
    found = compare(new, old, "old.json")
    rows = {row["what"]: row for row in found["rows"]}
    ratio = rows["small, short: times faster than transformers_pipeline"]

    assert (ratio["before"], ratio["now"], ratio["quotient"], ratio["rounds"]) == (3.0, 6.0, 2.0, 2)
    assert rows["small, short: tokens/s"]["rounds"] is None
    assert found["same_machine"]
    assert "first entity, s" not in rows

    text = as_markdown(new | {"compared": found})
    what = "small, short: times faster than transformers_pipeline (2 rounds; fewer than 3 rounds)"

    assert f"| {what} | 3 | 6 | 2.00 |" in text
    assert "| small, short: tokens/s | 1,500 | 1,500 | 1.00 |" in text


def test_goals_against_openvino_pair_the_rounds() -> None:
    report = full_report()
    alone = report["shapes"]["small"]["alone"]["short"]
    alone["ratios"]["openvino_int8"] = {"median": 0.9, "min": 0.8, "max": 1.1, "rounds": 2}
    goals = {goal["name"]: goal for goal in judged(report)}
    found = goals["small, short: network alone against OpenVINO int8"]
    assert (found["measured"], found["met"]) == ("0.90x (2 rounds; fewer than 3 rounds)", False)


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


def as_format_2(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report in format 2: its ratios divide medians, and the networks alone have no rounds."""
    small = report["shapes"]["small"]

    for found in small["ratios"]["short"].values():
        for key in list(found):
            found[f"tagging_{key}"] = found.pop(key)
        found["tagging"] = found.pop("tagging_median") + 1
        del found["tagging_rounds"]
    for peer in small["alone"]["short"]["peers"].values():
        del peer["runs"], peer["peak_share"]
    del small["alone"]["short"]["ratios"]
    check = {"name": "small: speed on short rows against the transformers pipeline", "passed": True, "detail": "7.00"}
    return report | {"format_version": 2, "checks": [check], "compared": {"rows": []}}


def test_ratios_of_format_2_are_computed_again_from_its_rounds(tmp_path: Path) -> None:
    file, today = tmp_path / "old.json", full_report()
    file.write_text(json.dumps(as_format_2(full_report())))
    found = load_report(file)

    assert found["format_version"] == 3
    assert found["shapes"]["small"]["ratios"] == today["shapes"]["small"]["ratios"]
    assert found["checks"] == today["checks"]
    assert "compared" not in found
    assert any("medians of paired rounds" in note for note in found["notes"])

    text = as_markdown(found)

    assert "**6.00x** (5.00 to 8.00, 3 rounds)" in text


def test_networks_alone_of_format_2_are_shown_as_divided_medians(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(as_format_2(full_report())))
    found = load_report(file)
    goals = {goal["name"]: goal["measured"] for goal in judged(found)}
    share = goals["small, short: share of the int8 peak, network alone"]

    assert share == "80% (medians divided: rounds not kept)"

    text = as_markdown(found)

    assert "| nerd-tag, int8 | 800 (800 to 800) | 80% |\n" in text
    assert "this report did not keep the rounds" in text
    assert "short: nerd-tag is faster" not in text


def test_a_report_is_rendered_again_beside_itself(tmp_path: Path) -> None:
    file = tmp_path / "2026-01-01-kept.json"
    file.write_text(json.dumps(as_format_2(full_report())))
    done = CliRunner().invoke(command, ["--render", str(file), "--check"])

    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"2026-01-01-kept.{end}" for end in ("html", "json", "md")
    ]

    text = file.with_suffix(".md").read_text("utf-8")

    assert text == as_markdown(load_report(file))
    assert "<strong>6.00x</strong>" in file.with_suffix(".html").read_text("utf-8")
    assert json.loads(file.read_text("utf-8"))["format_version"] == 3


def test_rendering_refuses_what_is_no_report(tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    file.write_text('{"lines": []}')
    done = CliRunner().invoke(command, ["--render", str(file)])
    assert done.exit_code == 1
    assert "scaling.json: format None" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["scaling.json"]


# --- the report ------------------------------------------------------------------------------------------------------


def test_markdown_holds_every_figure() -> None:
    text = as_markdown(full_report())
    for part in (
        "| nerd-tag, int8 | 1,500 (750 to 3,000) | 50.0 (25.0 to 100.0) |",
        "| **6.00x** (5.00 to 8.00, 3 rounds) |",
        "| 4.00x (3.00 to 5.00, 2 rounds; fewer than 3 rounds) |",
        "| PyTorch fp32 | 100 (100 to 100) | 10% (3 rounds) | **8.00x** (8.00 to 8.00, 3 rounds) |",
        "| given words, coarse | 0.7001 | 0.7000 | 0.7010 |",
        "| nerd-tag, int8 | 0.7000 (-0.40 to +0.20) |",
        "| 1.23% | 3 |",
        "| nerd-tag, int8 | 800 (800 to 800) | 80% (3 rounds) |  |",
        "| short | 1.0% | 4.0% | 90.0% | 3.0% | 1.0% | 1.0% | 91% |",
        "| shuffled | 0 |",
        "| results do not depend on other texts | passed |",
        "batch size 8",
        "- something to know.",
        "- small: openvino_int8 did not run: openvino not installed.",
        "- small, short: no figures for spacy_small: it failed.",
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
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Versions"]
    assert "<h2>Versions</h2>" in as_page(report)


def test_steps_that_failed_leave_holes_that_render() -> None:
    report = full_report()
    small = report["shapes"]["small"]
    small |= {"accuracy": None, "stages": {"short": None}, "alone": {"short": None}, "speed": {}, "ratios": {}}
    report |= {"growth": {"rows": None, "length": None, "threads": None}, "start": None, "neighbours": None}
    report |= {"accuracy": None}
    assert "The small model" in as_markdown(report)
    assert "The small model" in as_page(report)


class Balanced(HTMLParser):
    """Checks that every element is closed, and collects names and addresses."""

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
        """Record an empty element."""
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
    heights = sorted(y for _, y, _ in chart.label_places(points))
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
