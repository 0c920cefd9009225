"""What a run must fulfil: read off the finished report, so that an old report can be judged again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST_F1_DRIFT = 0.003  # another processor may round differently
MOST_F1_LOSS = 0.003
LEAST_RATIO = 2.0  # far below what is reached: only a gross fall fails
LEVELS = {
    "words": "given words, coarse",
    "fine_words": "given words, fine",
    "raw": "raw text, coarse",
    "fine_raw": "raw text, fine",
}


@dataclass(frozen=True)
class Check:
    """One thing that was held against its limit."""

    name: str
    passed: bool
    detail: str


def run_checks(report: Mapping[str, Any]) -> list[Check]:
    """Judge a report. What was not measured is not judged."""
    return [
        *_accuracy(report.get("accuracy") or {}),
        *_neighbours(report.get("neighbours")),
        *_speed(report.get("ratios") or {}),
    ]


def _accuracy(splits: Mapping[str, Any]) -> Iterator[Check]:
    for split, scores in splits.items():
        recorded = scores["recorded"]
        if recorded:
            yield _drift(f"{split}: F1 as recorded in the bundle", scores["bundle"], recorded["bundle"])
        if recorded and scores["pytorch"]:
            yield _drift(f"{split}: F1 of PyTorch as recorded", scores["pytorch"], recorded["original"])
        original = scores["pytorch"] or (recorded and recorded["original"])
        if original:
            yield _loss(f"{split}: F1 against PyTorch", scores["bundle"], original)


def _drift(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Check:
    """Compare a model's scores with its own of another day."""
    differences = _f1_differences(found, expected)
    key = max(differences, key=lambda level: abs(differences[level]))
    return Check(
        name,
        abs(differences[key]) <= MOST_F1_DRIFT,
        f"{found[key]['f1']:.4f}, recorded {expected[key]['f1']:.4f} ({LEVELS[key]}, the farthest; "
        f"at most {MOST_F1_DRIFT} apart)",
    )


def _loss(name: str, found: Mapping[str, Any], original: Mapping[str, Any]) -> Check:
    """Compare the bundle's scores with its original's; better is never wrong."""
    differences = _f1_differences(found, original)
    key = min(differences, key=lambda level: differences[level])
    return Check(
        name,
        differences[key] >= -MOST_F1_LOSS,
        f"{differences[key]:+.4f} ({LEVELS[key]}, the worst; at least -{MOST_F1_LOSS})",
    )


def _f1_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Give the F1 difference on each level that both have, rounded as the scores are."""
    return {
        level: round(found[level]["f1"] - expected[level]["f1"], 6)
        for level in LEVELS
        if level in found and level in expected
    }


def _neighbours(neighbours: Mapping[str, Any] | None) -> Iterator[Check]:
    if neighbours:
        changed = {way: count for way, count in neighbours["changed"].items() if count}
        listed = ", ".join(f"{way}: {count}" for way, count in changed.items())
        yield Check(
            "one text, one answer",
            not changed,
            f"{neighbours['texts']} texts, changed {listed or 'none'}",
        )


def _speed(ratios: Mapping[str, Any]) -> Iterator[Check]:
    ratio = ratios.get("short", {}).get("transformers_pipeline")
    if ratio:
        yield Check(
            "speed on short rows against the transformers pipeline",
            ratio["tagging"] >= LEAST_RATIO,
            f"{ratio['tagging']:.2f} times, same run (at least {LEAST_RATIO:g})",
        )
