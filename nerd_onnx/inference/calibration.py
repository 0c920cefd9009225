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
    Platt scaling (Platt, 1999), fitted on labelled text: ``sigmoid(slope * logit(score) + offset of the type)``.

    :param slope: the same for all types
    :param offsets: of each type. *Shape:* (types,)
    :param thresholds: by precision that is wished for: the least score of each type that had it on the labelled text,
        above 1 where none had. *Shape:* (types,) each
    """

    slope: float
    offsets: npt.NDArray[np.float64]
    thresholds: Mapping[float, npt.NDArray[np.float64]]

    @classmethod
    def from_description(cls, record: Mapping[str, Any], types: Sequence[str]) -> ScoreCalibration:
        """
        Read what the export recorded.

        :raises KeyError, TypeError, ValueError: when it is not what the export writes
        """
        offsets = np.array([float(record["offsets"][name]) for name in types])
        slope = float(record["slope"])
        thresholds = {
            float(wish): np.array([2.0 if least[name] is None else float(least[name]) for name in types])
            for wish, least in record["thresholds"].items()
        }
        if not (slope > 0 and np.isfinite(slope) and np.isfinite(offsets).all()):
            raise ValueError("calibration: slope and offsets must be finite, and the slope above 0")
        return cls(slope, offsets, thresholds)

    def apply(self, score: Floats, label: Ints) -> Floats:
        """
        Turn scores into probabilities; of one type, their order stays.

        :param score: mean word probabilities. *Shape:* (entities,)
        :param label: index of each entity's type. *Shape:* (entities,)
        """
        logit = self.slope * log_odds(score) + self.offsets[label]
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
