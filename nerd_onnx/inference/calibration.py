"""Scores that mean what they say: what is known of a candidate becomes the share of such candidates that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.errors import OptionError
from nerd_onnx.inference.candidates import Candidates

Doubles = npt.NDArray[np.float64]

EVIDENCE = ("mean", "least", "before", "after")  # of a candidate; all are probabilities
_EDGE = 1e-6  # probabilities this near to 0 and 1 are taken for it


@dataclass(frozen=True)
class ScoreCalibration:
    """
    Logistic regression on what is known of a candidate, fitted on labelled text: Platt scaling (Platt, 1999) of several
    probabilities, ``sigmoid(sum over evidence of slope * log odds + share * probability, plus word_slope * log(words)
    plus the offset of the type)``.

    :param slopes: of the log odds of :data:`EVIDENCE`, in its order
    :param shares: of the probabilities themselves, in the same order
    :param word_slope: of the logarithm of the number of words
    :param offsets: of each type. *Shape:* (types,)
    :param thresholds: by precision that is wished for: the least score of each type that had it on the labelled text,
        above 1 where none had. *Shape:* (types,) each
    :param f1_threshold: entities from this probability on had about the best F1 on the labelled text; Lipton et al.,
        2014, show why it is below one half
    """

    slopes: tuple[float, ...]
    shares: tuple[float, ...]
    word_slope: float
    offsets: Doubles
    thresholds: Mapping[float, Doubles]
    f1_threshold: float = 0.0

    @classmethod
    def from_description(cls, record: Mapping[str, Any], types: Sequence[str]) -> ScoreCalibration:
        """
        Read what the export recorded.

        :raises KeyError, TypeError, ValueError: when it is not what the export writes
        """
        offsets = np.array([float(record["offsets"][name]) for name in types])
        slopes, shares = (tuple(float(record[key][name]) for name in EVIDENCE) for key in ("slopes", "shares"))
        word_slope = float(record["word_slope"])
        f1_threshold = float(record.get("f1_threshold", 0.0))
        thresholds = {
            float(wish): np.array([2.0 if least[name] is None else float(least[name]) for name in types])
            for wish, least in record["thresholds"].items()
        }
        if not np.isfinite([*slopes, *shares, word_slope, *offsets]).all():
            raise ValueError("calibration: slopes, shares and offsets must be finite")
        if not 0 <= f1_threshold <= 1:
            raise ValueError("calibration: the threshold must lie from 0 to 1")
        return cls(slopes, shares, word_slope, offsets, thresholds, f1_threshold)

    def apply(self, candidates: Candidates) -> Doubles:
        """Give the probability that each candidate is right, in borders and type. *Shape:* (candidates,)."""
        logit = self.offsets[candidates.label]
        weights = (self.word_slope, *chain.from_iterable(zip(self.slopes, self.shares, strict=True)))
        for weight, column in zip(weights, evidence_columns(candidates), strict=True):
            logit = logit + weight * column
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float64)

    def least_scores(self, precision: float) -> Doubles:
        """
        Give the least score of each type for a precision that is wished for. *Shape:* (types,).

        :param precision: share of entities that are to be right; the next higher one recorded is taken
        :raises OptionError: when none so high is recorded
        """
        for recorded, least in sorted(self.thresholds.items()):
            if recorded >= precision - 1e-9:
                return least
        highest = max(self.thresholds, default=0.0)
        raise OptionError(f"--precision {precision:g}: the model records thresholds up to {highest:g}; give less")


def evidence_columns(candidates: Candidates) -> list[Doubles]:
    """
    Give what is known of candidates, as it is weighed: the logarithm of their words, then of each of :data:`EVIDENCE`
    its log odds and itself. *Shape:* (candidates,) each.
    """
    columns = [np.log(candidates.words.astype(np.float64))]
    for name in EVIDENCE:
        probability = getattr(candidates, name).astype(np.float64)
        columns += [log_odds(probability), probability]
    return columns


def log_odds(probability: Doubles) -> Doubles:
    """Give ``log(p / (1 - p))``, bounded at the edges. *Shape:* as given."""
    inner = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inner / (1 - inner)), dtype=np.float64)
