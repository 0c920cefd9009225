"""Turn an evaluation into the sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nerd_export.conversion.gate import VIEWS
from nerd_export.evaluation.result import Result, overall
from nerd_export.reporting.report_parts import Mark, Passages, Plot, Section, Table
from nerd_export.reporting.svg import Chart, bars, linear_axis
from nerd_export.scoring.bootstrap import Difference
from nerd_export.scoring.f1 import Span
from nerd_export.scoring.measures import NOTHING
from nerd_onnx.terminal import counted

_CONFUSIONS = 15
_LABELS = 80
_BARS = 30


def sections(
    facts: Mapping[str, Any], results: Sequence[Result], differences: Sequence[Mapping[str, Difference]], errors: int
) -> list[Section]:
    """
    Return the sections of a report on what was measured.

    :param facts: ``model`` and ``against``, each with ``name``, ``quantization``, ``min_score``,
        ``calibrated`` and ``calibrated_on``
    :param results: the result of each file
    :param differences: differences from the other model by view, in the same order; empty mappings without one
    :param errors: number of sentences with errors to show per file
    """
    model, other = facts["model"], facts.get("against")
    about = f"Model {_named(model)}" + (f", compared with {_named(other)}." if other else ".")
    found = [Section("", [about, _how()])]
    if len(results) > 1:
        found.append(_all_files(results))
    for result, difference in zip(results, differences, strict=True):
        found += _file(result, difference, other["name"] if other else "", errors)
    return found


def _named(model: Mapping[str, Any]) -> str:
    how = "calibrated" if model["calibrated"] else "each word decided for itself"
    how += f" on {model['calibrated_on']}" if model["calibrated_on"] else ""
    least = f"entities with a score of {model['min_score']:.3g} or more" if model["min_score"] else "all entities"
    return f"`{model['name']}` ({model['quantization']}, {how}, {least})"


def _how() -> str:
    return (
        "Given words: each word of the file is decided by its first token, and seqeval scores them, strict. Raw text: "
        "the words joined as people write them, scored by character spans. In brackets the 95% interval by bootstrap "
        "over sentences. Partial: an entity of the right type that only overlaps counts one half."
    )


def _file(result: Result, difference: Mapping[str, Difference], other: str, errors: int) -> Iterator[Section]:
    summary = result.summary
    about = f"{counted(summary['sentences'], 'sentence')}; types scored: {', '.join(summary['types'])}."
    if result.others:
        dropped = counted(result.others, "entity", "entities")
        about += f" Dropped, because the file does not label their types: {dropped} (raw text)."

    if (alarms := result.false_alarms).sentences:
        about += (
            f" Without any entity: {counted(alarms.sentences, 'sentence')}; {alarms.alarmed:,} of them got one or more "
            f"({alarms.entities:,} in all; raw text)."
        )

    head = ["", "precision", "recall", "F1", "partial F1", "entities"]
    rows = [_view_cells(name, view) for name, view in summary["views"].items()]
    if difference:
        head.append(f"against {other}")
        for name, row in zip(summary["views"], rows, strict=True):
            row.append(_signed(difference[name]) if name in difference else "")

    yield Section(summary["file"], [about, Table(head, rows)])
    yield _calibration(result)

    for name, title in (("raw", "types"), ("fine_raw", "fine types")):
        if name in summary["views"]:
            yield _by_type(summary["views"][name], f"By type: {title}, raw text")

    yield _confusions(summary["views"]["raw"])
    if errors:
        yield _errors(result, errors)


def _view_cells(name: str, view: Mapping[str, Any]) -> list[str]:
    """Return the figures of a view as text."""
    return [
        VIEWS[name],
        f"{view['precision']:.4f}",
        f"{view['recall']:.4f}",
        f"{view['f1']:.4f} ({view['f1_low']:.4f} to {view['f1_high']:.4f})",
        f"{view['partial_f1']:.4f}",
        f"{view['expected']:,}",
    ]


def _all_files(results: Sequence[Result]) -> Section:
    """Return a table with one row per file, and the scores over all of them."""
    head = ("", "sentences", "entities", "precision", "recall", "F1", "F1, given words", "calibration error", "alarmed")
    rows = []
    for result in results:
        summary, alarms = result.summary, result.false_alarms
        raw, words = summary["views"]["raw"], summary["views"]["words"]
        rows.append(
            (
                summary["file"],
                f"{summary['sentences']:,}",
                f"{raw['expected']:,}",
                *(f"{raw[name]:.4f}" for name in ("precision", "recall", "f1")),
                f"{words['f1']:.4f}",
                f"{result.calibration.error:.4f}",
                f"{alarms.alarmed:,} of {alarms.sentences:,}",
            )
        )

    raw_scores, word_scores = overall(results, "raw") or {}, overall(results, "words") or {}
    for name, title in (("micro", "all entities (micro)"), ("macro", "mean of the files (macro)")):
        scores = raw_scores[name]
        shown = (f"{value:.4f}" for value in (scores.precision, scores.recall, scores.f1, word_scores[name].f1))
        rows.append((title, "", "", *shown, "", ""))

    about = (
        "Coarse labels, raw text, and F1 on given words. Calibration error: mean distance of score and share right. "
        "Alarmed: sentences without any entity in which one was found."
    )
    # The last two rows are those over all files.
    return Section("All files", [about, Table(head, rows, frozenset({len(results), len(results) + 1}))])


def _signed(found: Difference) -> str:
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _by_type(view: Mapping[str, Any], title: str) -> Section:
    ranked = sorted(view["by_type"].items(), key=lambda one: -one[1]["expected"])[:_LABELS]
    rows = [
        (name, f"{one['precision']:.3f}", f"{one['recall']:.3f}", f"{one['f1']:.3f}", f"{one['expected']:,}")
        for name, one in ranked
    ]
    lengths = [(f"{name} ({one['expected']:,})", [(one["f1"], "own", f"{one['f1']:.2f}")]) for name, one in ranked]
    caption = "F1 by type, the most frequent first; the number of entities is in brackets."
    plot = [Plot(bars(lengths[:_BARS], 1.0, caption), caption)] if lengths else []
    return Section(title, [*plot, Table(("", "precision", "recall", "F1", "entities"), rows)], level=3)


def _confusions(view: Mapping[str, Any]) -> Section:
    confused = [(*names, count) for *names, count in view["confusion"] if names[0] != names[1]][:_CONFUSIONS]
    rows = [(expected, found, f"{count:,}") for expected, found, count in confused]
    about = f"What was found where something else was expected, the most frequent first; {NOTHING}: no entity overlaps."
    lengths = [
        (f"{expected} → {found}", [(count, _kind_of_mistake(expected, found), f"{count:,}")])
        for expected, found, count in confused
    ]
    caption = "Confusions: expected → found, with the number of entities."
    plot = [Plot(bars(lengths, max(row[2] for row in confused), caption), caption)] if confused else []
    return Section("Confusions, raw text", [about, *plot, Table(("expected", "found", "entities"), rows)], level=3)


def _kind_of_mistake(expected: str, found: str) -> str:
    """Return the style of a mistake: a missed entity, an entity that is none, and a wrong type differ."""
    if found == NOTHING:
        return "missed"
    return "wrong" if expected == NOTHING else "other"


def _calibration(result: Result) -> Section:
    found = result.calibration
    about = (
        f"Expected calibration error {found.error:.4f}, Brier score {found.brier:.4f}: scores of found entities on raw "
        "text against the share of them that is right in borders and type."
    )
    rows = [
        (f"{one.low:.1f} to {one.high:.1f}", f"{one.entities:,}", f"{one.mean_score:.3f}", f"{one.right:.3f}")
        for one in found.bins
    ]
    table = Table(("score", "entities", "mean score", "share right"), rows)

    return Section("Calibration", [about, *([_reliability(result)] if found.bins else []), table], level=3)


def _reliability(result: Result) -> Plot:
    """Plot the share of right entities over their mean score; calibrated scores lie on the diagonal."""
    bins = result.calibration.bins
    chart = Chart(linear_axis("mean score", 0, 1), linear_axis("share right", 0, 1), height=300)
    chart.line([(0.0, 0.0), (1.0, 1.0)], "ideal", ["", ""])
    chart.line([(one.mean_score, one.right) for one in bins], "own", [f"{one.entities:,}" for one in bins])
    caption = "Reliability: share of right entities by score, with the number of entities; on the line is best."
    return Plot(chart.svg(caption), caption)


def _errors(result: Result, most: int) -> Section:
    drawn = result.errors(most)
    about = (
        f"{len(drawn)} sentences with an error, drawn by chance: right, wrong (found, but not expected so), and missed "
        "(expected, but not found so)."
    )
    passages = Passages([(text, _marks(gold, found)) for text, gold, found in drawn])
    return Section("Errors", [about, passages], level=3)


def _marks(gold: Sequence[Span], found: Sequence[Span]) -> list[Mark]:
    right, wrong, missed = (
        sorted(part) for part in (set(gold) & set(found), set(found) - set(gold), set(gold) - set(found))
    )
    marks = [Mark(start, end, name, "right") for start, end, name in right]
    marks += [Mark(start, end, f"found {name}", "wrong") for start, end, name in wrong]
    marks += [Mark(start, end, f"expected {name}", "missed") for start, end, name in missed]
    return marks
