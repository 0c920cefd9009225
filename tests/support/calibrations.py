"""Calibrations made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.candidates import EVIDENCE


def weighing(
    offsets: Sequence[float], *, word_weight: float = 0.0, **evidence: tuple[float, float]
) -> ScoreCalibration:
    """
    Make a calibration.

    :param offsets: of each type
    :param evidence: by name the weights of its logarithm and of that of what it lacks to 1; others weigh nothing
    """
    assert set(evidence) <= set(EVIDENCE)

    weights = np.array([evidence.get(name, (0.0, 0.0)) for name in EVIDENCE])
    return ScoreCalibration(weights[:, 0], weights[:, 1], word_weight, np.array(offsets, dtype=np.float64), {})
