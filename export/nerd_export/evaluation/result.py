"""The results of one model on one labelled file: every figure, and examples of errors."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nerd_export.data.labelled import Labelled
from nerd_export.scoring.bootstrap import Difference, f1_interval, paired_difference
from nerd_export.scoring.evaluation import Evaluation, View, evaluate_labelled, text_of
from nerd_export.scoring.f1 import Scores, Span, counts_by_type
from nerd_export.scoring.measures import Calibration, FalseAlarms, calibration, confusion, partial_scores
from nerd_onnx.inference.labels import OUTSIDE
from nerd_onnx.tagger import Tagger

_DIGITS = 5


@dataclass(frozen=True)
class Result:
    """
    The scores on one file.

    :param calibration: calibration of the coarse scores on raw text
    """

    labelled: Labelled
    evaluation: Evaluation
    calibration: Calibration

    @property
    def others(self) -> int:
        """Number of entities found in raw text with labels that the file does not have; they were dropped."""
        return self.evaluation.views["raw"].others

    @property
    def false_alarms(self) -> FalseAlarms:
        """The entities found in the raw text of sentences without any tag."""
        nameless = [
            all(tag == OUTSIDE for tag in sentence.tags) and not sentence.unknown
            for sentence in self.labelled.sentences
        ]
        return FalseAlarms.among(nameless, self.evaluation.views["raw"].found)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Every figure as plain data."""
        return {
            "file": self.labelled.source,
            "sentences": len(self.labelled.sentences),
            "types": sorted(self.labelled.types),
            "dropped_entities_of_other_types": self.others,
            "views": {name: _view_summary(view) for name, view in self.evaluation.views.items()},
            "without_entities": asdict(self.false_alarms),
            "calibration": asdict(self.calibration),
        }

    def against(self, other: Result) -> dict[str, Difference]:
        """Return the F1 of this model minus that of another on the same sentences, by view."""
        mine, theirs = self.evaluation.views, other.evaluation.views
        return {
            name: paired_difference(view.counts(), theirs[name].counts())
            for name, view in mine.items()
            if name in theirs
        }

    def errors(self, most: int, seed: int = 42) -> list[tuple[str, list[Span], list[Span]]]:
        """
        Return a random sample of sentences with an error, in the order of the file.

        :param most: maximum number of sentences
        :return: text, expected and found entities of each, at the finest level scored
        """
        view = self.evaluation.views["fine_raw" if "fine_raw" in self.evaluation.views else "raw"]
        wrong = [
            i for i, (gold, found) in enumerate(zip(view.gold, view.found, strict=True)) if set(gold) != set(found)
        ]

        drawn = sorted(random.Random(seed).sample(wrong, min(most, len(wrong))))  # noqa: S311 - nothing secret
        sentences = self.labelled.sentences
        return [(text_of(sentences[i])[0], list(view.gold[i]), list(view.found[i])) for i in drawn]


def over_all(results: Sequence[Result]) -> dict[str, Any]:
    """Return the scores over several files as plain data, by view; nothing for one file."""
    if len(results) < 2:  # noqa: PLR2004
        return {}

    views = dict.fromkeys(name for result in results for name in result.evaluation.views)
    return {
        "all_files": {
            name: {kind: _rounded(scores) for kind, scores in found.items()}
            for name in views
            if (found := overall(results, name)) is not None
        }
    }


def overall(results: Sequence[Result], view: str) -> dict[str, Scores] | None:
    """
    Return the scores over several files: ``micro`` over all entities, and ``macro``, the mean over the files.

    Files without an expected entity are in ``micro`` only.

    :param view: name of a view of an evaluation; None is returned if a file does not have it
    """
    if any(view not in result.evaluation.views for result in results):
        return None

    counts = np.array([result.evaluation.views[view].counts().sum(axis=0) for result in results])
    of_files = [Scores.from_counts(*map(int, row)) for row in counts if row[2]]
    macro = [
        float(np.mean([getattr(scores, name) for scores in of_files])) if of_files else 0.0
        for name in ("precision", "recall", "f1")
    ]
    return {"micro": Scores.from_counts(*map(int, counts.sum(axis=0))), "macro": Scores(*macro)}


def score(tagger: Tagger, labelled: Labelled) -> Result:
    """Tag the sentences as given words and as plain text, and return all measures."""
    found = evaluate_labelled(tagger, labelled)
    raw = found.views["raw"]
    return Result(labelled, found, calibration(raw.gold, raw.found, raw.certainty))


def _view_summary(view: View) -> dict[str, Any]:
    counts = view.counts()
    low, high = f1_interval(counts)
    partial = partial_scores(view.gold, view.found)
    by_type = {
        name: {**_rounded(Scores.from_counts(*map(int, of_type))), "expected": int(of_type[2])}
        for name, of_type in counts_by_type(view.gold, view.found).items()
    }
    pairs = confusion(view.gold, view.found)

    return {
        **_rounded(view.scores),
        "f1_low": round(low, _DIGITS),
        "f1_high": round(high, _DIGITS),
        "partial_f1": round(partial.f1, _DIGITS),
        "expected": partial.expected,
        "predicted": partial.predicted,
        "by_type": by_type,
        "confusion": [[*pair, count] for pair, count in sorted(pairs.items(), key=lambda one: (-one[1], one[0]))],
    }


def _rounded(scores: Scores) -> Mapping[str, float]:
    return {name: round(value, _DIGITS) for name, value in asdict(scores).items() if value is not None}
