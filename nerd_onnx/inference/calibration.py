"""Scores that mean what they say: mean probabilities of words become shares of entities that are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.errors import OptionError
from nerd_onnx.inference.arrays import Floats, Ints

_EDGE = 1e-6  # scores this near to 0 and 1 are taken for it


@dataclass(frozen=True)
class ScoreCalibration:
    """
    Platt scaling (Platt, 1999) of two scores, fitted on labelled text:
    ``sigmoid(slope * logit(score) + border_slope * logit(border) + offset of the type)``.

    :param slope: of the mean probability of the words, the same for all types
    :param border_slope: of the probability that the words beside are not of the type, the same for all types
    :param offsets: of each type. *Shape:* (types,)
    :param thresholds: by precision that is wished for: the least score of each type that had it on the labelled text,
        above 1 where none had. *Shape:* (types,) each
    :param f1_threshold: entities from this probability on had about the best F1 on the labelled text; Lipton et al.,
        2014, show why it is below one half
    """

    slope: float
    border_slope: float
    offsets: npt.NDArray[np.float64]
    thresholds: Mapping[float, npt.NDArray[np.float64]]
    f1_threshold: float = 0.0

    @classmethod
    def from_description(cls, record: Mapping[str, Any], types: Sequence[str]) -> ScoreCalibration:
        """
        Read what the export recorded.

        :raises KeyError, TypeError, ValueError: when it is not what the export writes
        """
        offsets = np.array([float(record["offsets"][name]) for name in types])
        slope, border_slope = float(record["slope"]), float(record.get("border_slope", 0.0))
        f1_threshold = float(record.get("f1_threshold", 0.0))
        thresholds = {
            float(wish): np.array([2.0 if least[name] is None else float(least[name]) for name in types])
            for wish, least in record["thresholds"].items()
        }
        if not (slope > 0 and border_slope >= 0 and np.isfinite([slope, border_slope, *offsets]).all()):
            raise ValueError("calibration: slopes and offsets must be finite, and no slope below 0")
        if not 0 <= f1_threshold <= 1:
            raise ValueError("calibration: the threshold must lie from 0 to 1")
        return cls(slope, border_slope, offsets, thresholds, f1_threshold)

    def apply(self, score: Floats, border: Floats, label: Ints) -> Floats:
        """
        Turn scores into probabilities.

        :param score: mean word probabilities. *Shape:* (entities,)
        :param border: probabilities that the words beside are not of the type. *Shape:* (entities,)
        :param label: index of each entity's type. *Shape:* (entities,)
        """
        logit = self.slope * log_odds(score) + self.border_slope * log_odds(border) + self.offsets[label]
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)

    def least_scores(self, precision: float) -> npt.NDArray[np.float64]:
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


def log_odds(score: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Give ``log(score / (1 - score))``, bounded at the edges. *Shape:* as given."""
    inner = np.clip(score.astype(np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inner / (1 - inner)), dtype=np.float64)
