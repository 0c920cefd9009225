"""Checks that a run must pass. They need only the report, so older reports can be checked too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measurements.ratios import rounds_note
from benchmarks.peers import BASELINE, SUBJECT
from nerd_export.conversion.gate import VIEWS

MAX_F1_DRIFT = 0.003  # from the recorded F1: another processor may round differently
MAX_F1_LOSS = 0.003  # against PyTorch
MIN_RATIO = 2.0  # far below the usual ratios, so that only a large drop fails
MIN_SHARE_OF_OLD_RATIO = 0.6  # large, because runs on different days differ


@dataclass(frozen=True)
class Check:
    """
    A figure that was compared with its limit.

    :param detail: the figure and the limit
    """

    name: str
    passed: bool
    detail: str


def run_checks(report: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Check]:
    """
    Return the checks of a report. Parts that were not measured are not checked.

    :param old: an earlier report; speed ratios must not be far below its ratios
    """
    return [
        *_bundle(report.get("accuracy") or {}),
        *_against_pytorch(report.get("shapes") or {}),
        *_neighbours(report.get("neighbours")),
        *_speed(report.get("shapes") or {}),
        *_failed(report.get("failed_steps") or {}),
        *(_fallen(report, old) if old else ()),
    ]


def _bundle(splits: Mapping[str, Any]) -> Iterator[Check]:
    """Compare the bundle with the scores of itself and of its original that were recorded at its export."""
    for split, scores in splits.items():
        recorded = scores["recorded"]
        if recorded:
            found = scores["bundle"]
            # Both: a bundle may agree with its record and still be worse than its original, and the other way round.
            yield _drift(f"{split}: F1 as recorded in the bundle", found, recorded["bundle"])
            yield _loss(f"{split}: F1 against PyTorch as recorded", f1_differences(found, recorded["original"]))


def _against_pytorch(shapes: Mapping[str, Any]) -> Iterator[Check]:
    """Compare the bundle with PyTorch; both were measured in this run."""
    for shape, facts in shapes.items():
        scores = (facts.get("accuracy") or {}).get("peers", {})
        if SUBJECT in scores and "against_pytorch" in scores[SUBJECT]:
            differences = {key: found["value"] for key, found in scores[SUBJECT]["against_pytorch"].items()}
            yield _loss(f"{shape}: F1 against PyTorch, same run", differences)


def _drift(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Check:
    """Compare the scores of a model with the recorded ones."""
    differences = f1_differences(found, expected)
    # One line per split: the level with the largest difference decides for the others.
    key = max(differences, key=lambda level: abs(differences[level]))

    return Check(
        name,
        abs(differences[key]) <= MAX_F1_DRIFT,
        f"{found[key]['f1']:.4f}, recorded {expected[key]['f1']:.4f} ({VIEWS[key]}, the largest "
        f"difference; maximum {MAX_F1_DRIFT})",
    )


def _loss(name: str, differences: Mapping[str, float]) -> Check:
    """Compare the largest loss of F1 with the limit; a gain always passes."""
    key = min(differences, key=lambda level: differences[level])

    return Check(
        name,
        differences[key] >= -MAX_F1_LOSS,
        f"{differences[key]:+.4f} ({VIEWS[key]}, the largest loss; minimum -{MAX_F1_LOSS})",
    )


def f1_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Return the difference of F1 at each level that both have, rounded like the scores."""
    return {
        level: round(found[level]["f1"] - expected[level]["f1"], 6)
        for level in VIEWS
        if level in found and level in expected
    }


def _neighbours(neighbours: Mapping[str, Any] | None) -> Iterator[Check]:
    if neighbours:
        changed = {way: count for way, count in neighbours["changed"].items() if count}
        listed = ", ".join(f"{way}: {count}" for way, count in changed.items())
        yield Check(
            "results do not depend on other texts",
            not changed,
            f"{neighbours['texts']} texts, changed: {listed or 'none'}",
        )


def _speed(shapes: Mapping[str, Any]) -> Iterator[Check]:
    for shape, facts in shapes.items():
        ratio = facts.get("ratios", {}).get("short", {}).get(BASELINE)
        if ratio:
            yield Check(
                f"{shape}: speed on short rows against the transformers pipeline",
                ratio["median"] >= MIN_RATIO,
                f"{ratio['median']:.2f} times ({rounds_note(ratio)}), same run (minimum {MIN_RATIO:g})",
            )


def _failed(steps: Mapping[str, str]) -> Iterator[Check]:
    for name, reason in steps.items():
        yield Check(f"step {name}", passed=False, detail=reason)


def _fallen(report: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Check]:
    """Compare the ratios to the baseline with those of an earlier report. The speed of the machine cancels out."""
    for shape, facts in (report.get("shapes") or {}).items():
        before = (old.get("shapes") or {}).get(shape, {}).get("ratios", {})
        for workload, found in facts.get("ratios", {}).items():
            if BASELINE in found and BASELINE in before.get(workload, {}):
                now, then = found[BASELINE], before[workload][BASELINE]
                yield Check(
                    f"{shape}, {workload}: speed against the transformers pipeline, compared with the older report",
                    now["median"] >= MIN_SHARE_OF_OLD_RATIO * then["median"],
                    f"{now['median']:.2f} times ({rounds_note(now)}), before {then['median']:.2f} "
                    f"({rounds_note(then)}; minimum {MIN_SHARE_OF_OLD_RATIO:g} of it)",
                )
