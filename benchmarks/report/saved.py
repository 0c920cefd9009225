"""Read reports of earlier runs, and convert them to the current format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measurements.ratios import ratios
from benchmarks.peers import SUBJECT
from benchmarks.report.checks import run_checks

FORMAT_VERSION = 3
_FORMAT_WITHOUT_PAIRS = 2  # its ratios divided medians over all rounds
_NOTE = "The ratios were computed again, as medians of paired rounds; at first they divided medians over all rounds."


def load_report(file: Path) -> dict[str, Any]:
    """
    Return a report in the current format.

    :raises ValueError: if its format cannot be read
    """
    report: dict[str, Any] = json.loads(file.read_text("utf-8"))
    found = report.get("format_version")
    if found == _FORMAT_WITHOUT_PAIRS:
        return with_paired_ratios(report)

    if found != FORMAT_VERSION:
        raise ValueError(
            f"{file.name}: format {found!r}; only formats {_FORMAT_WITHOUT_PAIRS} and {FORMAT_VERSION} can be read"
        )

    return report


def with_paired_ratios(report: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a report of format 2 in the current format, with ratios and checks computed again from its rounds.

    Its comparison with an older report is removed: the rounds of the older report are not known.
    """
    shapes = {name: _shape(facts) for name, facts in report["shapes"].items()}
    result = {**report, "format_version": FORMAT_VERSION, "notes": [*report["notes"], _NOTE], "shapes": shapes}

    # Its ratios divided medians.
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
    Return the figures of the networks alone, with quotients of medians instead of ratios.

    Format 2 has no rounds of them, so they cannot be paired. The number 0 of rounds marks such a quotient.
    """
    peers = found["peers"]
    own = peers.get(SUBJECT)
    peak = found.get("peak")

    with_shares = {}
    quotients = {}
    for name, one in peers.items():
        with_shares[name] = one
        if peak and "operations_per_s" in one:
            share = _quotient(one["operations_per_s"], peak["operations_per_s"])
            with_shares[name] = one | {"peak_share": share}
        if own and name != SUBJECT:
            quotients[name] = _quotient(own["tokens_per_s"], one["tokens_per_s"])

    return {**found, "peers": with_shares, "ratios": quotients}


def _quotient(numerator: Mapping[str, float], denominator: Mapping[str, float]) -> dict[str, float]:
    value = numerator["median"] / denominator["median"]
    return {"median": value, "min": value, "max": value, "rounds": 0}
