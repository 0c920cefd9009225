"""Sections about the start of nerd-tag, and about its growth with the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report import drawings
from benchmarks.report.names import rate
from nerd_export.reporting.report_parts import Section, Table


def start_section(report: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the section with the start times."""
    start = report.get("start")
    if start:
        rows = [
            (f"`{start['commands'][what]}`", f"{start[what]['median']:.2f} s", f"{start[what]['max']:.2f} s")
            for what in ("help_s", "first_entity_s")
        ]
        about = "Time of the whole process. Program and model are in the disk cache."
        yield Section("Start", [about, Table(("", "median", "slowest"), rows)])


def growth_section(report: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the section with time, memory and speed of the small bundle by size of the input."""
    growth = report.get("growth") or {}
    blocks: list[Any] = []
    if growth.get("rows"):
        blocks += [
            *_plot(drawings.growth_with_rows(report)),
            _points(growth["rows"], "rows", "short rows in one file"),
        ]

    if growth.get("length"):
        blocks += [
            *_plot(drawings.growth_with_length(report)),
            _points(growth["length"], "characters", "characters in one text"),
        ]

    if growth.get("threads"):
        rows = [
            (str(p["threads"]), rate(p["tokens_per_s"]), f"{p['peak_rss_bytes'] / 1e6:,.0f} MB")
            for p in growth["threads"]
        ]
        blocks += [*_plot(drawings.growth_with_threads(report)), Table(("threads", "tokens/s", "peak memory"), rows)]

    if blocks:
        yield Section("Growth", blocks)


def _plot(plot: Any) -> list[Any]:
    return [plot] if plot else []


def _points(points: list[dict[str, Any]], key: str, name: str) -> Table:
    rows = [
        (
            f"{point[key]:,}",
            f"{point['seconds']:.2f} s",
            f"{point['tokens'] / point['seconds']:,.0f}",
            f"{point['peak_rss_bytes'] / 1e6:,.0f} MB",
        )
        for point in points
    ]
    return Table((name, "time", "tokens/s", "peak memory"), rows)
