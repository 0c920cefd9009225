"""
Calibration: the probability that a candidate is correct, and the thresholds that follow from it.

The probabilities of a network are not calibrated: of the entities with a score of 0.9, more or less than 90% may be
correct. The export fits a logistic regression on labelled text, which turns the evidence of a candidate into the
probability that its borders and its type are correct. On the same text it finds the threshold of best F1 (Lipton et
al., 2014), the minimum scores that reach a given precision, and the weights of fine types. This module applies them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nerd_onnx.errors import OptionError
from nerd_onnx.inference.arrays import Doubles
from nerd_onnx.inference.candidates import EVIDENCE, Candidates
from nerd_onnx.inference.json_object import JsonObject
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.portable_math import exponential, logarithm

# Probabilities below this differ by chance. A third of the value and three times the value had the same effect.
_EDGE = 1e-3
# Words of the longest entity in Few-NERD's training sentences: the limit of bundles that record none.
_MAXIMUM_WORDS = 40
_MOST_WORDS = 1 << 20
# Weights of fine types are products of probabilities, and must be above 0.
_LEAST_WEIGHT, _GREATEST_WEIGHT = 5e-324, 1e300


@dataclass(frozen=True)
class ScoreCalibration:
    """
    A logistic regression on the evidence of a candidate, fitted on labelled text.

    This is beta calibration (Kull et al., 2017) of several probabilities at once. The probability of a candidate is
    ``sigmoid(offset of its type + word_weight * log(words) + sum of w_for * log(p) + w_against * log(1 - p))`` with one
    ``p`` for each of :data:`EVIDENCE`; ``p`` and ``1 - p`` are at least 0.001.

    :param weights_for: weights of ``log(p)``, in the order of :data:`EVIDENCE`. *Shape:* (evidence,)
    :param weights_against: weights of ``log(1 - p)``. *Shape:* (evidence,)
    :param word_weight: weight of the logarithm of the number of words
    :param offsets: offset of each type. *Shape:* (types,)
    :param thresholds: for each recorded precision, the minimum score with which each type reached it on the labelled
        text; above 1 where no score did. *Shape:* (types,) each
    :param f1_threshold: minimum score with about the best F1 on the labelled text. It is below one half (Lipton et al.,
        2014)
    :param fine_weights: factors of the probabilities of fine types when the fine type of an entity is chosen. They
        adapt to text whose fine types have other frequencies than the training data (Saerens et al., 2002). None for
        equal weights. *Shape:* (fine types,)
    :param maximum_words: maximum number of words of an entity; longer candidates are beyond what the labelled text had
    """

    weights_for: Doubles
    weights_against: Doubles
    word_weight: float
    offsets: Doubles
    thresholds: Mapping[float, Doubles]
    f1_threshold: float = 0.0
    fine_weights: Doubles | None = None
    maximum_words: int = _MAXIMUM_WORDS

    @classmethod
    def from_description(cls, record: Mapping[str, Any], labels: LabelSet) -> ScoreCalibration:
        """
        Return the calibration that the export recorded.

        :param record: the field ``calibration`` of ``nerd.json``
        :param labels: labels of the same model
        :raises ModelError: when the record is not as the export writes it
        """
        return cls.read(JsonObject("nerd.json", record, "calibration"), labels)

    @classmethod
    def read(cls, record: JsonObject, labels: LabelSet) -> ScoreCalibration:
        """
        Read the calibration that the export recorded; see :meth:`from_description`.

        :raises ModelError: when a value is missing or malformed; the error names the file and the field
        """
        fine_weights = None
        if labels.has_fine_level:
            fine_weights = _numbers(record.section("fine_weights"), labels.fine_types, _LEAST_WEIGHT, _GREATEST_WEIGHT)

        # Older bundles do not have these two fields.
        fields = record.content
        f1_threshold = record.number("f1_threshold", 0, 1) if "f1_threshold" in fields else 0.0
        maximum_words = record.integer("maximum_words", 1, _MOST_WORDS) if "maximum_words" in fields else _MAXIMUM_WORDS

        return cls(
            weights_for=_numbers(record.section("weights_for"), EVIDENCE),
            weights_against=_numbers(record.section("weights_against"), EVIDENCE),
            word_weight=record.number("word_weight"),
            offsets=_numbers(record.section("offsets"), labels.types),
            thresholds={
                _precision(record, wish): _thresholds(scores, labels.types)
                for wish, scores in record.section("thresholds").sections()
            },
            f1_threshold=f1_threshold,
            fine_weights=fine_weights,
            maximum_words=maximum_words,
        )

    def apply(self, candidates: Candidates) -> Doubles:
        """
        Return the probability that each candidate is correct in its borders and its type.

        :param candidates: with the evidence of each
        :return: *Shape:* (candidates,)
        """
        # Added column by column in a fixed order: a matrix product may round differently for other numbers of rows.
        logit = self.offsets[candidates.label]
        weights = (self.word_weight, *self.weights_for.tolist(), *self.weights_against.tolist())
        for weight, column in zip(weights, evidence_columns(candidates), strict=True):
            logit = logit + weight * column

        return np.asarray(1 / (1 + exponential(-logit)), dtype=np.float64)

    def least_scores(self, precision: float) -> Doubles:
        """
        Return the minimum score of each type for a precision.

        :param precision: share of entities that must be correct; the next higher recorded precision is used
        :return: *Shape:* (types,)
        :raises OptionError: when every recorded precision is lower
        """
        for recorded, scores in sorted(self.thresholds.items()):
            if recorded >= precision - 1e-9:
                return scores

        highest = max(self.thresholds, default=0.0)
        raise OptionError(
            f"--precision {precision:g}: the thresholds of the model go up to {highest:g}; give a smaller number",
            reason="precision-too-high",
            option="--precision",
            found=precision,
            maximum=highest,
        )


def _numbers(
    record: JsonObject, names: Iterable[str], minimum: float = -math.inf, maximum: float = math.inf
) -> Doubles:
    """Return one number per name. *Shape:* (names,)."""
    return np.array([record.number(name, minimum, maximum) for name in names])


def _thresholds(scores: JsonObject, types: Iterable[str]) -> Doubles:
    """Return the minimum score of each type. *Shape:* (types,)."""
    # No score reaches 2, so a type without a threshold for a precision has no entities at that precision.
    unreached = {name for name in types if name in scores.content and scores.content[name] is None}
    return np.array([2.0 if name in unreached else scores.number(name) for name in types])


def _precision(record: JsonObject, name: str) -> float:
    """Return a precision that is the name of a field: JSON has only texts as names."""
    try:
        precision = float(name)
    except ValueError:
        precision = math.nan
    if not 0 <= precision <= 1:
        raise record.error("thresholds", f"has the precision {name!a}; expected a number from 0 to 1", found=name)
    return precision


def evidence_columns(candidates: Candidates) -> list[Doubles]:
    """
    Return the variables of the regression for each candidate.

    These are the logarithm of the number of words, then ``log(p)`` of each of :data:`EVIDENCE`, then ``log(1 - p)`` of
    each.

    :return: *Shape:* (candidates,) each
    """
    probability = candidates.evidence.T.astype(np.float64)
    present, absent = (logarithm(np.maximum(part, _EDGE)) for part in (probability, 1 - probability))
    return [logarithm(candidates.words.astype(np.float64)), *present, *absent]
