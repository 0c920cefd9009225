"""The plots of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.measurements.stages import STAGES
from benchmarks.peers import REFERENCE, SUBJECT
from benchmarks.report.names import title_of
from nerd_export.reporting.report_parts import Plot
from nerd_export.reporting.svg import Chart, Point, bars, linear_axis, logarithmic_axis, number, stacked

_SHOWN_F1_RANGE = 0.05  # below the best F1; points under it are drawn at the edge, or all others would be too close
_MIN_EXPECTED = 20  # entities of a label; with fewer, its F1 is too uncertain
_FINE_LABELS = 24


def accuracy_against_speed(report: Mapping[str, Any], shape: str) -> Plot | None:
    """Plot the peers by tokens per second on short rows and by F1 on raw text."""
    facts = report["shapes"][shape]
    speed = facts["speed"].get("short") or {}
    scores = (facts.get("accuracy") or {}).get("peers", {})
    names = [name for name in speed if name in scores]
    if not names:
        return None

    rates = {name: speed[name]["tokens_per_s"]["median"] for name in names}
    f1 = {name: scores[name]["f1"]["raw"] for name in names}

    # The axis covers only the points near the best one.
    best = max(f1.values())
    lowest = min(value for value in f1.values() if best - value <= _SHOWN_F1_RANGE)
    x = linear_axis("tokens per second, short rows, file to file", 0, max(rates.values()))
    y = linear_axis("F1, raw text, coarse labels", lowest - 0.002, best + 0.002, lambda v: f"{v:.3f}")

    # The numbers in the plot refer to this order.
    ranked = sorted(names, key=lambda name: -rates[name])
    points = []
    for place, name in enumerate(ranked, 1):
        is_below = f1[name] < y.low
        points.append(Point(rates[name], max(f1[name], y.low), f"{place} ↓" if is_below else f"{place}", _style(name)))
    chart = Chart(x, y, height=340)
    chart.points(points)

    items = "".join(
        f'<li class="{_style(name)}-text">{escape(title_of(report, shape, name))}: {rates[name]:,.0f} tokens/s, '
        f"F1 {f1[name]:.4f}</li>"
        for name in ranked
    )

    caption = (
        f"Accuracy and speed of the peers, {shape} model. Up and to the right is better. An arrow marks a point below "
        "the plot."
    )
    return Plot(f'{chart.svg(f"{caption} {_text_alternative(rates)}")}<ol class="key">{items}</ol>', caption)


def f1_by_label(report: Mapping[str, Any], shape: str) -> Plot | None:
    """Plot F1 by label, of the int8 bundle and of PyTorch."""
    scores = report["shapes"][shape]["accuracy"]["peers"]
    shown = [name for name in (SUBJECT, REFERENCE) if name in scores]
    if not shown:
        return None

    rows = [row for key in ("f1_by_label", "f1_by_fine_label") for row in _label_rows(scores, shown, key)]
    names = " and ".join(title_of(report, shape, name) for name in shown)
    caption = (
        f"F1 by label on raw text, {names}: coarse labels, then the {_FINE_LABELS} most frequent fine labels. The "
        f"number of entities is in brackets."
    )

    keys = "".join(
        f'<span><i class="{_style(name)}"></i>{escape(title_of(report, shape, name))}</span>' for name in shown
    )
    return Plot(f'<p class="key">{keys}</p>{bars(rows, 1.0, caption)}', caption)


def _label_rows(
    scores: Mapping[str, Any], shown: Sequence[str], key: str
) -> list[tuple[str, list[tuple[float, str, str]]]]:
    """Return the bars of one level, the most frequent labels first."""
    expected = {label: found["expected"] for label, found in scores[shown[0]][key].items()}
    frequent = sorted((n for n in expected if expected[n] >= _MIN_EXPECTED), key=lambda n: -expected[n])

    return [
        (
            f"{label} ({expected[label]})",
            [
                (scores[name][key][label]["f1"], _style(name), f"{scores[name][key][label]['f1']:.2f}")
                for name in shown
                if label in scores[name][key]
            ],
        )
        for label in frequent[:_FINE_LABELS]
    ]


def time_by_stage(report: Mapping[str, Any], shape: str) -> Plot | None:
    """Plot the share of each stage, by workload."""
    stages = {name: one for name, one in report["shapes"][shape]["stages"].items() if one}
    rows = [
        (workload, [(found["stages_s"][stage] / found["cpu_s"], f"stage-{stage}") for stage in STAGES])
        for workload, found in stages.items()
    ]

    caption = "Processor time of nerd-tag by stage."
    keys = "".join(f'<span><i class="stage-{stage}"></i>{stage}</span>' for stage in STAGES)
    return Plot(f'<p class="key">{keys}</p>{stacked(rows, caption)}', caption)


def growth_with_rows(report: Mapping[str, Any]) -> Plot | None:
    """Plot memory by number of rows."""
    points = report["growth"]["rows"]
    values = [(p["rows"], p["peak_rss_bytes"] / 1e6) for p in points]
    chart = Chart(
        logarithmic_axis("rows in one file", values[0][0], values[-1][0]),
        linear_axis("peak memory, MB", 0, 1.2 * max(v for _, v in values)),
        height=220,
    )

    chart.line(values, "own", [f"{v:,.0f} MB" for _, v in values])
    caption = "Peak memory by number of rows. A flat line is good."
    return Plot(chart.svg(caption), caption)


def growth_with_length(report: Mapping[str, Any]) -> Plot | None:
    """Plot time by length of one text."""
    points = report["growth"]["length"]
    values = [(p["characters"], p["seconds"]) for p in points]
    chart = Chart(
        logarithmic_axis("characters in one text", values[0][0], values[-1][0]),
        logarithmic_axis("seconds", min(v for _, v in values), 1.5 * max(v for _, v in values)),
        height=240,
    )

    chart.line(values, "own", [f"{v:.3g} s" for _, v in values])
    caption = "Time by length of one text. A straight line with slope 1 is linear growth."
    return Plot(chart.svg(caption), caption)


def growth_with_threads(report: Mapping[str, Any]) -> Plot | None:
    """Plot speed by number of threads."""
    points = report["growth"]["threads"]
    if len(points) < 2:  # noqa: PLR2004
        return None

    values = [(p["threads"], p["tokens_per_s"]["median"]) for p in points]
    chart = Chart(
        linear_axis("threads", 0, values[-1][0]),
        linear_axis("tokens per second", 0, 1.15 * max(v for _, v in values)),
        height=220,
    )

    chart.line(values, "own", [number(v) for _, v in values])
    caption = "Speed by number of threads."
    return Plot(chart.svg(caption), caption)


def _style(peer: str) -> str:
    """Return the CSS class of a peer's marks: one for nerd-tag, one for PyTorch and one for the others."""
    if peer.startswith(SUBJECT):  # also its variants nerd_tag_fp32 and nerd_tag_other
        return "own"
    return "reference" if peer == REFERENCE else "other"


def _text_alternative(rates: Mapping[str, float]) -> str:
    """Return the figures as text for screen readers."""
    return "; ".join(f"{name} {rate:,.0f} tokens per second" for name, rate in rates.items())
