"""Scores that mean what they say: what is known of a candidate becomes the share of such candidates that is right.

Beside them stands what else is fitted on labelled text: thresholds, and what fine types weigh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nerd_onnx.errors import OptionError
from nerd_onnx.inference.arrays import Doubles
from nerd_onnx.inference.candidates import EVIDENCE, Candidates
from nerd_onnx.inference.labels import LabelSet

_EDGE = 1e-3  # what lies below differs by chance more than in meaning; a third and three times of it do the same


@dataclass(frozen=True)
class ScoreCalibration:
    """
    Logistic regression on what is known of a candidate, fitted on labelled text: beta calibration (Kull et al., 2017)
    of several probabilities, ``sigmoid(sum over evidence of for * log(p) + against * log(1 - p), plus word_weight *
    log(words) plus the offset of the type)``, with ``p`` and ``1 - p`` of 0.001 at least.

    :param weights_for: of ``log(p)`` of :data:`EVIDENCE`, in its order. *Shape:* (evidence,)
    :param weights_against: of ``log(1 - p)``. *Shape:* (evidence,)
    :param word_weight: of the logarithm of the number of words
    :param offsets: of each type. *Shape:* (types,)
    :param thresholds: by precision that is wished for: the least score of each type that had it on the labelled text,
        above 1 where none had. *Shape:* (types,) each
    :param f1_threshold: entities from this probability on had about the best F1 on the labelled text; Lipton et al.,
        2014, show why it is below one half
    :param fine_weights: by which the probability of each fine type is multiplied where an entity's is chosen, for text
        in which some are more frequent than in what the model was trained on (Saerens et al., 2002); None for alike.
        *Shape:* (fine types,)
    """

    weights_for: Doubles
    weights_against: Doubles
    word_weight: float
    offsets: Doubles
    thresholds: Mapping[float, Doubles]
    f1_threshold: float = 0.0
    fine_weights: Doubles | None = None

    @classmethod
    def from_description(cls, record: Mapping[str, Any], labels: LabelSet) -> ScoreCalibration:
        """
        Read what the export recorded of a model with these labels.

        :raises KeyError, TypeError, ValueError: when it is not what the export writes
        """
        offsets = np.array([float(record["offsets"][name]) for name in labels.types])
        weights_for, weights_against = (
            np.array([float(record[key][name]) for name in EVIDENCE]) for key in ("weights_for", "weights_against")
        )
        word_weight = float(record["word_weight"])
        f1_threshold = float(record.get("f1_threshold", 0.0))
        fine_weights = None
        if labels.has_fine_level:
            fine_weights = np.array([float(record["fine_weights"][name]) for name in labels.fine_types])
        thresholds = {
            float(wish): np.array([2.0 if least[name] is None else float(least[name]) for name in labels.types])
            for wish, least in record["thresholds"].items()
        }
        if not np.isfinite([*weights_for, *weights_against, word_weight, *offsets]).all():
            raise ValueError("calibration: weights and offsets must be finite")
        if not 0 <= f1_threshold <= 1:
            raise ValueError("calibration: the threshold must lie from 0 to 1")
        if fine_weights is not None and not (np.isfinite(fine_weights) & (fine_weights > 0)).all():
            raise ValueError("calibration: weights of fine types must be finite and above 0")
        return cls(weights_for, weights_against, word_weight, offsets, thresholds, f1_threshold, fine_weights)

    def apply(self, candidates: Candidates) -> Doubles:
        """Give the probability that each candidate is right, in borders and type. *Shape:* (candidates,)."""
        logit = self.offsets[candidates.label]
        weights = (self.word_weight, *self.weights_for.tolist(), *self.weights_against.tolist())
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
        raise OptionError(
            f"--precision {precision:g}: the thresholds of the model go up to {highest:g}; give a smaller number",
            reason="precision-too-high",
            option="--precision",
            found=precision,
            maximum=highest,
        )


def evidence_columns(candidates: Candidates) -> list[Doubles]:
    """
    Give what is known of candidates, as it is weighed: the logarithm of their words, then that of each of
    :data:`EVIDENCE`, then that of what each lacks to 1. *Shape:* (candidates,) each.
    """
    probability = candidates.evidence.T.astype(np.float64)
    present, absent = (np.log(np.maximum(part, _EDGE)) for part in (probability, 1 - probability))
    return [np.log(candidates.words.astype(np.float64)), *present, *absent]
