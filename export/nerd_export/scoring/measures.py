"""What F1 alone does not tell: partial credit, confusion of types, and whether scores mean what they say."""

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
    Entity scores in which an entity of the right type that only overlaps counts one half, as in the partial matching
    of SemEval-2013 task 9 (Segura-Bedmar et al., 2013), with the type asked for.

    :param exact: entities whose borders and type agree
    :param partial: further pairs of one type that overlap
    """

    exact: int
    partial: int
    predicted: int
    expected: int

    @property
    def f1(self) -> float:
        """F1 of the credits, 0 to 1; 0 where nothing is predicted and expected."""
        total = self.predicted + self.expected
        return (2 * self.exact + self.partial) / total if total else 0.0


def partial_scores(gold: Rows, found: Rows) -> PartialScores:
    """
    Count entities with half the credit for wrong borders. Every entity is in one pair at most.

    :param gold: expected entities of each text
    :param found: found entities of each text
    """
    exact = partial = 0
    for expected, predicted in zip(map(set, gold), map(set, found), strict=True):
        exact += len(expected & predicted)
        left = sorted(expected - predicted)
        for span in sorted(predicted - expected):
            match = next((other for other in left if other[2] == span[2] and _overlap(other, span)), None)
            if match is not None:
                left.remove(match)
                partial += 1

    return PartialScores(exact, partial, sum(map(len, found)), sum(map(len, gold)))


def confusion(gold: Rows, found: Rows) -> Counter[tuple[str, str]]:
    """
    Count which type was found where which was expected; an entity goes with the one it shares most with.

    :return: by (expected type, found type); :data:`NOTHING` stands for no entity
    """
    counts: Counter[tuple[str, str]] = Counter()
    for expected, predicted in zip(gold, found, strict=True):
        counts.update((span[2], _closest(span, predicted)) for span in expected)
        counts.update((NOTHING, span[2]) for span in predicted if _closest(span, expected) == NOTHING)
    return counts


@dataclass(frozen=True)
class Bin:
    """
    Entities whose scores lie in one interval.

    :param low: lower end of the interval
    :param high: upper end
    :param mean_score: of the entities in it
    :param right: share of them whose borders and type are right
    """

    low: float
    high: float
    entities: int
    mean_score: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """
    How far the scores of entities are from the share of them that is right.

    :param bins: those that hold any entity
    :param error: expected calibration error: mean distance of score and share over intervals of equal width, weighted
        by entities (Naeini et al., 2015); 0 is best
    :param brier: mean squared distance of score and outcome (Brier, 1950); 0 is best
    """

    bins: tuple[Bin, ...]
    error: float
    brier: float


def calibration(gold: Rows, found: Rows, certainty: Sequence[Sequence[float]], bins: int = BINS) -> Calibration:
    """
    Compare the scores of found entities with what came of them.

    :param certainty: score of each found entity
    :param bins: number of intervals from 0 to 1
    """
    scores = np.array([score for row in certainty for score in row], dtype=np.float64)
    return calibration_of(scores, outcomes(gold, found), bins)


def calibration_of(scores: npt.NDArray[np.float64], right: Bools, bins: int = BINS) -> Calibration:
    """
    Compare scores with outcomes.

    :param scores: 0 to 1. *Shape:* (entities,)
    :param right: what came of each. *Shape:* (entities,)
    :param bins: number of intervals from 0 to 1
    """
    outcome = right.astype(np.float64)
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
    What is found in sentences in which nothing is named.

    :param sentences: those that have no entity of any type
    :param alarmed: those of them in which something is found
    :param entities: found in them in all
    """

    sentences: int
    alarmed: int
    entities: int

    @classmethod
    def among(cls, nameless: Sequence[bool], found: Rows) -> FalseAlarms:
        """
        Count what is found where nothing is.

        :param nameless: whether each text has no entity
        """
        spans = [len(row) for row, empty in zip(found, nameless, strict=True) if empty]
        return cls(len(spans), sum(map(bool, spans)), sum(spans))


def outcomes(gold: Rows, found: Rows) -> Bools:
    """Return, text by text, whether the borders and the label of each found entity are right. *Shape:* (entities,)."""
    pairs = zip(map(set, gold), found, strict=True)
    return np.array([span in expected for expected, spans in pairs for span in spans], dtype=np.bool_)


def _overlap(one: Span, other: Span) -> int:
    """Count what two spans share; 0 or less for nothing."""
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _closest(span: Span, others: Iterable[Span]) -> str:
    """Name the type of the entity that shares most with a span, of equal ones the same type first."""
    best = max(others, key=lambda other: (_overlap(span, other), other[2] == span[2]), default=None)
    return best[2] if best is not None and _overlap(span, best) else NOTHING
