"""Measures beside F1: partial credit, confusion of labels, and the calibration of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nerd_export.scoring.f1 import Rows, Span
from nerd_onnx.inference.arrays import Bools

NOTHING = "(nothing)"  # in a confusion: no entity overlaps
BINS = 10


@dataclass(frozen=True)
class PartialScores:
    """
    Entity scores in which an entity with the right label and wrong borders counts one half, as in the partial matching
    of SemEval-2013 task 9 (Segura-Bedmar et al., 2013), with the label required.

    :param exact: number of entities whose borders and label agree
    :param partial: number of further overlapping pairs with the same label
    """

    exact: int
    partial: int
    predicted: int
    expected: int

    @property
    def f1(self) -> float:
        """F1 with partial credit, 0 to 1; 0 if nothing is predicted and expected."""
        total = self.predicted + self.expected
        return (2 * self.exact + self.partial) / total if total else 0.0


def partial_scores(gold: Rows, found: Rows) -> PartialScores:
    """
    Return scores with half credit for wrong borders. Each entity is in at most one pair.

    :param gold: expected entities of each text
    :param found: found entities of each text
    """
    exact = partial = 0
    for expected, predicted in zip(map(set, gold), map(set, found), strict=True):
        exact += len(expected & predicted)
        # Sorted, so that sets of any order give the same pairs.
        left = sorted(expected - predicted)
        for span in sorted(predicted - expected):
            match = next((other for other in left if other[2] == span[2] and _overlap(other, span)), None)
            if match is not None:
                left.remove(match)
                partial += 1

    return PartialScores(exact, partial, sum(map(len, found)), sum(map(len, gold)))


def confusion(gold: Rows, found: Rows) -> Counter[tuple[str, str]]:
    """
    Count pairs of expected and found labels; each entity is paired with the one with which it overlaps most.

    :return: counts by (expected label, found label); :data:`NOTHING` means no entity
    """
    counts: Counter[tuple[str, str]] = Counter()
    for expected, predicted in zip(gold, found, strict=True):
        counts.update((span[2], _closest(span, predicted)) for span in expected)

        # Found entities with an overlap were counted above, from the side of the expected one.
        counts.update((NOTHING, span[2]) for span in predicted if _closest(span, expected) == NOTHING)
    return counts


@dataclass(frozen=True)
class Bin:
    """
    The entities with scores in one interval.

    :param low: lower end of the interval
    :param high: upper end
    :param mean_score: mean score of these entities
    :param right: share of them whose borders and label are right
    """

    low: float
    high: float
    entities: int
    mean_score: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """
    The difference between the scores of entities and the share of right ones.

    :param bins: the intervals that contain any entity
    :param error: expected calibration error: mean distance of score and share over intervals of equal width, weighted
        by entities (Naeini et al., 2015); 0 is best
    :param brier: mean squared distance of score and outcome (Brier, 1950); 0 is best
    """

    bins: tuple[Bin, ...]
    error: float
    brier: float


def calibration(gold: Rows, found: Rows, certainty: Sequence[Sequence[float]], bins: int = BINS) -> Calibration:
    """
    Compare the scores of found entities with whether they are right.

    :param certainty: score of each found entity
    :param bins: number of intervals from 0 to 1
    """
    scores = np.array([score for row in certainty for score in row], dtype=np.float64)
    return calibration_of(scores, outcomes(gold, found), bins)


def calibration_of(scores: npt.NDArray[np.float64], right: Bools, bins: int = BINS) -> Calibration:
    """
    Compare scores with outcomes.

    :param scores: 0 to 1. *Shape:* (entities,)
    :param right: whether each is right. *Shape:* (entities,)
    :param bins: number of intervals from 0 to 1
    """
    outcome = right.astype(np.float64)
    # A score of exactly 1 belongs to the last interval.
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    filled = []

    for number in range(bins):
        inside = place == number
        if count := int(inside.sum()):
            mean, share = float(scores[inside].mean()), float(outcome[inside].mean())
            filled.append(Bin(number / bins, (number + 1) / bins, count, mean, share))

    total = max(len(scores), 1)
    error = sum(one.entities * abs(one.mean_score - one.right) for one in filled) / total
    brier = float(((scores - outcome) ** 2).mean()) if len(scores) else 0.0

    return Calibration(tuple(filled), error, brier)


@dataclass(frozen=True)
class FalseAlarms:
    """
    The entities that are found in sentences without any.

    :param sentences: number of sentences without any entity
    :param alarmed: number of these in which an entity is found
    :param entities: number of entities found in them
    """

    sentences: int
    alarmed: int
    entities: int

    @classmethod
    def among(cls, nameless: Sequence[bool], found: Rows) -> FalseAlarms:
        """
        Count the entities found in texts without any.

        :param nameless: whether each text has no entity
        """
        spans = [len(row) for row, empty in zip(found, nameless, strict=True) if empty]
        return cls(len(spans), sum(map(bool, spans)), sum(spans))


def outcomes(gold: Rows, found: Rows) -> Bools:
    """Return, text by text, whether the borders and the label of each found entity are right. *Shape:* (entities,)."""
    pairs = zip(map(set, gold), found, strict=True)
    return np.array([span in expected for expected, spans in pairs for span in spans], dtype=np.bool_)


def _overlap(one: Span, other: Span) -> int:
    """Return the length of the overlap of two spans; 0 without one."""
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _closest(span: Span, others: Iterable[Span]) -> str:
    """Return the label of the entity with the longest overlap with a span; the same label wins a tie."""
    best = max(others, key=lambda other: (_overlap(span, other), other[2] == span[2]), default=None)
    return best[2] if best is not None and _overlap(span, best) else NOTHING
