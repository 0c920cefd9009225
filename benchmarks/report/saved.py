"""Reports of earlier runs: read, and brought to the format of today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measurements.ratios import ratios
from benchmarks.report.checks import SUBJECT, run_checks

FORMAT_VERSION = 3
_MEDIANS_DIVIDED = 2  # the format whose ratios divided medians over all rounds
_NOTE = "The ratios were computed again, as medians of paired rounds; at first they divided medians over all rounds."


def load_report(file: Path) -> dict[str, Any]:
    """
    Read an older report.

    :raises ValueError: when it has a format that cannot be read
    """
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    found = report.get("format_version")
    if found == _MEDIANS_DIVIDED:
        return with_paired_ratios(report)
    if found != FORMAT_VERSION:
        raise ValueError(
            f"{file.name}: format {found!r}; only formats {_MEDIANS_DIVIDED} and {FORMAT_VERSION} can be read"
        )

    return report


def with_paired_ratios(report: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a report of format 2 as one of today: its ratios computed again from the rounds, and judged again.

    What it said of a still older report is left out: that one's ratios divided medians, and its rounds are not here.
    """
    shapes = {name: _shape(facts) for name, facts in report["shapes"].items()}
    result = {**report, "format_version": FORMAT_VERSION, "notes": [*report["notes"], _NOTE], "shapes": shapes}
    result.pop("compared", None)
    return {**result, "checks": [asdict(check) for check in run_checks(result)]}


def _shape(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **facts,
        "ratios": {workload: ratios(peers, SUBJECT) for workload, peers in facts["speed"].items()},
        "alone": {workload: found and _alone(found) for workload, found in facts["alone"].items()},
    }


def _alone(found: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the figures of the networks alone with the quotients that the report showed.

    Format 2 kept no rounds of them, so they cannot be paired: they have 0 rounds, and are shown as what they are.
    """
    peers = found["peers"]
    own = peers.get(SUBJECT)
    peak = found.get("peak")

    return {
        **found,
        "peers": {
            name: one | {"peak_share": _quotient(one["operations_per_s"], peak["operations_per_s"])}
            if peak and "operations_per_s" in one
            else one
            for name, one in peers.items()
        },
        "ratios": {
            name: _quotient(own["tokens_per_s"], one["tokens_per_s"])
            for name, one in peers.items()
            if own and name != SUBJECT
        },
    }


def _quotient(numerator: Mapping[str, float], denominator: Mapping[str, float]) -> dict[str, float]:
    value = numerator["median"] / denominator["median"]
    return {"median": value, "min": value, "max": value, "rounds": 0}
