"""The committed reports: each is the rendering of its data, and each ratio agrees with its rounds."""

from __future__ import annotations

import json
import re
from itertools import permutations
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.measurements.ratios import MIN_ROUNDS, ratios
from benchmarks.paths import ROOT
from benchmarks.report import as_markdown
from benchmarks.report.saved import FORMAT_VERSION, load_report
from benchmarks.scripts.scaling import table

RESULTS = ROOT / "benchmarks" / "results"
DATA = {path: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}
REPORTS = [path for path, data in DATA.items() if "shapes" in data]
SCALING = [path for path, data in DATA.items() if "lines" in data]
INSTRUCTION_SETS = [path for path, data in DATA.items() if "by_tokens" in data]
WITH_RATIOS = {
    path.with_suffix(".md") for path in REPORTS if any(DATA[path]["shapes"][s]["speed"] for s in DATA[path]["shapes"])
}
# Of the pages without data beside them all have ratios.
PAGES = [path for path in sorted(RESULTS.glob("*.md")) if path in WITH_RATIOS or path.with_suffix(".json") not in DATA]
NUMBER = r"(\d+\.\d\d)"
IN_TABLE = re.compile(rf"(\*\*)?{NUMBER}x(?:\*\*)? \({NUMBER} to {NUMBER}, (\d+) rounds?(; fewer than 3 rounds)?\)")
ANY_RANGE = re.compile(r"\dx(?:\*\*)? \([\d.]+ to ")  # also matches a ratio without its rounds
ELSEWHERE = re.compile(rf"{NUMBER}(?:x| times) \((\d+) rounds?")


def name_of(path: Path) -> str:
    return path.stem


def test_every_file_of_data_is_known() -> None:
    assert REPORTS
    assert {*REPORTS, *SCALING, *INSTRUCTION_SETS} == set(DATA)


@pytest.mark.parametrize("path", REPORTS, ids=name_of)
def test_ratios_are_those_of_the_rounds(path: Path) -> None:
    assert DATA[path]["format_version"] == FORMAT_VERSION
    for facts in DATA[path]["shapes"].values():
        assert facts["ratios"] == {workload: ratios(peers, "nerd_tag") for workload, peers in facts["speed"].items()}
        for found in facts["alone"].values():
            if all("runs" in peer for peer in found["peers"].values()):
                assert found["ratios"] == ratios(found["peers"], "nerd_tag", "seconds")


@pytest.mark.parametrize("path", REPORTS, ids=name_of)
def test_the_page_is_what_rendering_gives(path: Path) -> None:
    """``python -m benchmarks --render FILE.json`` writes it again."""
    assert path.with_suffix(".md").read_text("utf-8") == as_markdown(load_report(path))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_ratios_of_a_page_are_possible_and_marked(path: Path) -> None:
    text = path.read_text("utf-8")
    found = IN_TABLE.findall(text)

    assert found
    assert len(found) == len(ANY_RANGE.findall(text))

    for bold, figure, low, high, rounds, few in found:
        assert float(low) <= float(figure) <= float(high)
        assert bool(bold) == (not few) == (int(rounds) >= MIN_ROUNDS)
        if int(rounds) == 2:
            assert float(figure) == pytest.approx((float(low) + float(high)) / 2, abs=0.011)

    in_table = {(figure, rounds) for _, figure, _, _, rounds, _ in found}

    assert set(ELSEWHERE.findall(text)) <= in_table


@pytest.mark.parametrize("path", SCALING, ids=name_of)
def test_the_table_of_scaling_is_what_its_data_gives(path: Path) -> None:
    assert table(DATA[path]["lines"]) in (ROOT / "docs" / "scaling.md").read_text("utf-8")


@pytest.mark.parametrize("path", INSTRUCTION_SETS, ids=name_of)
def test_the_table_of_instruction_sets_is_what_its_data_gives(path: Path) -> None:
    text = (ROOT / "docs" / "measurements.md").read_text("utf-8")
    for tokens, found in DATA[path]["by_tokens"].items():
        ratios_of = [found[name]["faster"] for name in ("amx", "avx512vnni", "avxvnni", "avx2")]
        cells = [f"{one['median']:.2f}# ({one['min']:.2f} to {one['max']:.2f})" for one in ratios_of]
        row = f"| {tokens} | {' | '.join(cells)} |"
        assert row.replace("#", " times", 1).replace("#", "") in text


def bounds(lines: list[dict[str, Any]], engine: str) -> tuple[float, float]:
    """Return minimum and maximum of the median of paired ratios, over all ways to pair three rounds."""
    one, two = (
        [line[f"{name}tokens_per_s"] for name in ("lowest_", "", "highest_")]
        for line in lines
        if line["engine"] == engine
    )
    medians = [median(b / a for a, b in zip(one, order, strict=True)) for order in permutations(two)]
    return min(medians), max(medians)


def test_the_bounds_that_scaling_quotes_hold() -> None:
    """Of the rounds of 2026-11-24 only three speeds per line are known, not which of them belong to one round."""
    data = DATA[RESULTS / "2026-11-24-scaling-2-cores.json"]
    assert data["rounds"] == 3
    text = " ".join((ROOT / "docs" / "scaling.md").read_text("utf-8").split())
    span = f"{NUMBER} to {NUMBER}"
    quoted = re.search(f"{span} for the local run, {span} for Ray, {span} for Spark", text)
    assert quoted
    expected = [value for engine in ("local", "ray", "spark") for value in bounds(data["lines"], engine)]
    assert [float(value) for value in quoted.groups()] == pytest.approx(expected, abs=0.005)
