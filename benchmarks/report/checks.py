"""What a run must fulfil: read off the finished report, so that an old report can be judged again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measurements.ratios import rounds_note
from nerd_export.conversion.gate import VIEWS

MOST_F1_DRIFT = 0.003  # another processor may round differently
MOST_F1_LOSS = 0.003
LEAST_RATIO = 2.0  # far below what is reached: only a gross fall fails
LEAST_OF_OLD_RATIO = 0.6  # of what another report has
SUBJECT, REFERENCE, BASELINE = "nerd_tag", "pytorch_fp32", "transformers_pipeline"


@dataclass(frozen=True)
class Check:
    """One thing that was held against its limit."""

    name: str
    passed: bool
    detail: str


def run_checks(report: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Check]:
    """
    Judge a report. What was not measured is not judged.

    :param old: another report; ratios of the same run must not have fallen far below its ratios
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
    """Compare the bundle with what its description claims of it and of its original."""
    for split, scores in splits.items():
        recorded = scores["recorded"]
        if recorded:
            found = scores["bundle"]
            yield _drift(f"{split}: F1 as recorded in the bundle", found, recorded["bundle"])
            yield _loss(f"{split}: F1 against PyTorch as recorded", f1_differences(found, recorded["original"]))


def _against_pytorch(shapes: Mapping[str, Any]) -> Iterator[Check]:
    """Compare our bundle with PyTorch, both measured in this run."""
    for shape, facts in shapes.items():
        scores = (facts.get("accuracy") or {}).get("peers", {})
        if SUBJECT in scores and "against_pytorch" in scores[SUBJECT]:
            differences = {key: found["value"] for key, found in scores[SUBJECT]["against_pytorch"].items()}
            yield _loss(f"{shape}: F1 against PyTorch, same run", differences)


def _drift(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Check:
    """Compare a model's scores with its own of another day."""
    differences = f1_differences(found, expected)
    key = max(differences, key=lambda level: abs(differences[level]))
    return Check(
        name,
        abs(differences[key]) <= MOST_F1_DRIFT,
        f"{found[key]['f1']:.4f}, recorded {expected[key]['f1']:.4f} ({VIEWS[key]}, the farthest; "
        f"at most {MOST_F1_DRIFT} apart)",
    )


def _loss(name: str, differences: Mapping[str, float]) -> Check:
    """Hold F1 differences to the original against the limit; better is never wrong."""
    key = min(differences, key=lambda level: differences[level])
    return Check(
        name,
        differences[key] >= -MOST_F1_LOSS,
        f"{differences[key]:+.4f} ({VIEWS[key]}, the worst; at least -{MOST_F1_LOSS})",
    )


def f1_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Give the F1 difference on each level that both have, rounded as the scores are."""
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
            "one text, one answer",
            not changed,
            f"{neighbours['texts']} texts, changed {listed or 'none'}",
        )


def _speed(shapes: Mapping[str, Any]) -> Iterator[Check]:
    for shape, facts in shapes.items():
        ratio = facts.get("ratios", {}).get("short", {}).get(BASELINE)
        if ratio:
            yield Check(
                f"{shape}: speed on short rows against the transformers pipeline",
                ratio["median"] >= LEAST_RATIO,
                f"{ratio['median']:.2f} times ({rounds_note(ratio)}), same run (at least {LEAST_RATIO:g})",
            )


def _failed(steps: Mapping[str, str]) -> Iterator[Check]:
    for name, reason in steps.items():
        yield Check(f"step {name}", passed=False, detail=reason)


def _fallen(report: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Check]:
    """Compare ratios to the baseline with those of another report; both are of one run each, so machines cancel out."""
    for shape, facts in (report.get("shapes") or {}).items():
        before = (old.get("shapes") or {}).get(shape, {}).get("ratios", {})
        for workload, found in facts.get("ratios", {}).items():
            if BASELINE in found and BASELINE in before.get(workload, {}):
                now, then = found[BASELINE], before[workload][BASELINE]
                yield Check(
                    f"{shape}, {workload}: speed against the transformers pipeline, compared with the other report",
                    now["median"] >= LEAST_OF_OLD_RATIO * then["median"],
                    f"{now['median']:.2f} times ({rounds_note(now)}), before {then['median']:.2f} "
                    f"({rounds_note(then)}; at least {LEAST_OF_OLD_RATIO:g} of it)",
                )
