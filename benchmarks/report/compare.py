"""Compare two reports: ratios, accuracy, sizes and times. Times depend on the machine, so no check uses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.peers import SUBJECT


def compare(new: Mapping[str, Any], old: Mapping[str, Any], name: str) -> dict[str, Any]:
    """
    Compare every figure that both reports have.

    :param name: file name of the old report
    :return: ``with``, ``commit`` and ``started`` of the old report, ``same_machine``, and ``rows`` with ``what``,
        ``before``, ``now``, ``quotient`` and, for ratios, ``rounds``: the smaller number of the two reports
    """
    before = {what: (value, rounds) for what, value, rounds in _figures(old)}
    rows = [
        {
            "what": what,
            "before": before[what][0],
            "now": now,
            "quotient": now / before[what][0] if before[what][0] else None,
            # The report with fewer rounds limits how far the comparison can be trusted.
            "rounds": None if rounds is None else min(rounds, before[what][1] or 0),
        }
        for what, now, rounds in _figures(new)
        if what in before
    ]

    return {
        "with": name,
        "commit": old.get("commit"),
        "started": old.get("started"),
        # By processor model only: a machine has no name that would be the same after a new start in the cloud.
        "same_machine": new["machine"]["cpu"] == old["machine"]["cpu"],
        "rows": rows,
    }


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, float, int | None]]:
    """Yield the figures to compare: name, value, and for a ratio the number of its rounds."""
    for shape, facts in (report.get("shapes") or {}).items():
        for workload, peers in facts.get("ratios", {}).items():
            for peer, ratio in peers.items():
                yield f"{shape}, {workload}: times faster than {peer}", ratio["median"], ratio["rounds"]

        for workload, peers in facts.get("speed", {}).items():
            if SUBJECT in peers:
                own = peers[SUBJECT]
                yield f"{shape}, {workload}: tokens/s", own["tokens_per_s"]["median"], None
                yield f"{shape}, {workload}: peak memory, MB", own["peak_rss_bytes"]["median"] / 1e6, None

        for peer, scores in ((facts.get("accuracy") or {}).get("peers") or {}).items():
            yield f"{shape}: F1 on raw text of {peer}", scores["f1"]["raw"], None
        yield f"{shape}: size of the model, MB", facts["model"]["size_bytes"] / 1e6, None

    for what, title in (("help_s", "nerd-tag --help, s"), ("first_entity_s", "first entity, s")):
        if report.get("start"):
            yield title, report["start"][what]["median"], None
