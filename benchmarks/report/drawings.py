"""Which figures of a report are drawn, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.measurements.stages import STAGES
from benchmarks.report.checks import REFERENCE, SUBJECT
from benchmarks.report.names import title_of
from nerd_export.reporting.parts import Plot
from nerd_export.reporting.svg import Chart, Point, bars, linear_axis, logarithmic_axis, number, stacked

_FAR_BELOW = 0.05  # F1 below the best: drawn at the edge, or it would press all others together
_FEWEST_EXPECTED = 20  # entities of a label: with fewer, its F1 says little
_FINE_LABELS = 24
_OWN = ("nerd_tag", "nerd_tag_fp32", "nerd_tag_other")


def accuracy_against_speed(report: Mapping[str, Any], shape: str) -> Plot | None:
    """Draw every engine by its tokens a second on short rows and its F1 on raw text."""
    facts = report["shapes"][shape]
    speed = facts["speed"].get("short") or {}
    scores = (facts.get("accuracy") or {}).get("peers", {})
    names = [name for name in speed if name in scores]
    if not names:
        return None

    best = max(scores[name]["f1"]["raw"] for name in names)
    near = [scores[name]["f1"]["raw"] for name in names if best - scores[name]["f1"]["raw"] <= _FAR_BELOW]
    y = linear_axis("F1, raw text, coarse types", min(near) - 0.002, best + 0.002, lambda v: f"{v:.3f}")
    rates = {name: speed[name]["tokens_per_s"]["median"] for name in names}
    chart = Chart(linear_axis("tokens a second, short rows, file to file", 0, max(rates.values())), y, height=340)
    ranked = sorted(names, key=lambda name: -rates[name])
    f1 = {name: scores[name]["f1"]["raw"] for name in names}
    chart.points(
        [
            Point(rates[name], max(f1[name], y.low), f"{number_}{'' if f1[name] >= y.low else ' ↓'}", _style(name))
            for number_, name in enumerate(ranked, 1)
        ]
    )
    items = "".join(
        f'<li class="{_style(name)}-text">{escape(title_of(report, shape, name))}: {rates[name]:,.0f} tokens/s, '
        f"F1 {f1[name]:.4f}</li>"
        for name in ranked
    )
    caption = "Accuracy against throughput: up and to the right is better; an arrow marks what lies below the frame."
    return Plot(f'{chart.svg(f"{caption} {_spoken(rates)}")}<ol class="key">{items}</ol>', caption)


def f1_by_label(report: Mapping[str, Any], shape: str) -> Plot | None:
    """Draw F1 of each label, of the int8 bundle and of PyTorch."""
    scores = report["shapes"][shape]["accuracy"]["peers"]
    shown = [name for name in (SUBJECT, REFERENCE) if name in scores]
    if not shown:
        return None

    rows = [row for key in ("f1_by_label", "f1_by_fine_label") for row in _label_rows(scores, shown, key)]
    names = " and ".join(title_of(report, shape, name) for name in shown)
    caption = (
        f"F1 by label on raw text, {names}: coarse types, then the {_FINE_LABELS} most frequent fine ones; the number "
        f"of entities in brackets."
    )
    keys = "".join(
        f'<span><i class="{_style(name)}"></i>{escape(title_of(report, shape, name))}</span>' for name in shown
    )
    return Plot(f'<p class="key">{keys}</p>{bars(rows, 1.0, caption)}', caption)


def _label_rows(
    scores: Mapping[str, Any], shown: Sequence[str], key: str
) -> list[tuple[str, list[tuple[float, str, str]]]]:
    """Make the rows of one level, the most frequent labels first."""
    expected = {label: found["expected"] for label, found in scores[shown[0]][key].items()}
    frequent = sorted((n for n in expected if expected[n] >= _FEWEST_EXPECTED), key=lambda n: -expected[n])

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
    """Draw the share of each stage, by workload."""
    stages = {name: one for name, one in report["shapes"][shape]["stages"].items() if one}
    rows = [
        (workload, [(found["stages_s"][stage] / found["cpu_s"], f"stage-{stage}") for stage in STAGES])
        for workload, found in stages.items()
    ]
    caption = "Processor time of nerd-tag by stage."
    keys = "".join(f'<span><i class="stage-{stage}"></i>{stage}</span>' for stage in STAGES)
    return Plot(f'<p class="key">{keys}</p>{stacked(rows, caption)}', caption)


def growth_with_rows(report: Mapping[str, Any]) -> Plot | None:
    """Draw memory against rows."""
    points = report["growth"]["rows"]
    values = [(p["rows"], p["peak_rss_bytes"] / 1e6) for p in points]
    chart = Chart(
        logarithmic_axis("rows in one file", values[0][0], values[-1][0]),
        linear_axis("peak memory, MB", 0, 1.2 * max(v for _, v in values)),
        height=220,
    )
    chart.line(values, "own", [f"{v:,.0f} MB" for _, v in values])
    caption = "Memory against rows: flat is good."
    return Plot(chart.svg(caption), caption)


def growth_with_length(report: Mapping[str, Any]) -> Plot | None:
    """Draw time against the length of one text."""
    points = report["growth"]["length"]
    values = [(p["characters"], p["seconds"]) for p in points]
    chart = Chart(
        logarithmic_axis("characters in one text", values[0][0], values[-1][0]),
        logarithmic_axis("seconds", min(v for _, v in values), 1.5 * max(v for _, v in values)),
        height=240,
    )
    chart.line(values, "own", [f"{v:.3g} s" for _, v in values])
    caption = "Time against the length of one text: a straight line of slope one is linear growth."
    return Plot(chart.svg(caption), caption)


def growth_with_threads(report: Mapping[str, Any]) -> Plot | None:
    """Draw throughput against threads."""
    points = report["growth"]["threads"]
    if len(points) < 2:  # noqa: PLR2004
        return None

    values = [(p["threads"], p["tokens_per_s"]["median"]) for p in points]
    chart = Chart(
        linear_axis("threads", 0, values[-1][0]),
        linear_axis("tokens a second", 0, 1.15 * max(v for _, v in values)),
        height=220,
    )
    chart.line(values, "own", [number(v) for _, v in values])
    caption = "Throughput against threads."
    return Plot(chart.svg(caption), caption)


def _style(peer: str) -> str:
    """Give the class of a peer's marks: ours stand out, PyTorch is what they are held against."""
    if peer in _OWN:
        return "own"
    return "reference" if peer == REFERENCE else "other"


def _spoken(rates: Mapping[str, float]) -> str:
    """Say the figures for those who cannot see them."""
    return "; ".join(f"{name} {rate:,.0f} tokens a second" for name, rate in rates.items())
