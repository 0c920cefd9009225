"""Fit what turns an entity's score into the share of such entities that is right, and thresholds for a precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.evaluation.measures import calibration, outcomes
from nerd_export.training.evaluation import View
from nerd_onnx.inference.arrays import Bools
from nerd_onnx.inference.calibration import ScoreCalibration, log_odds

PRECISIONS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
_FOLDS = 5
_FEWEST = 100  # entities to fit on
_FEWEST_ABOVE = 10  # entities that must lie above a threshold to believe its precision
_DIGITS = 6  # of slope and offsets, as they are recorded and used


def fitted_calibration(views: Mapping[str, View], types: Sequence[str], fitted_on: str) -> dict[str, Any] | None:
    """
    Fit Platt scaling on the entities found in plain text, with one slope and an offset a type.

    :param views: by split what the bundle found in it, with raw scores, at the level of its labels
    :param types: all types, in the model's order
    :param fitted_on: the split to fit on; the others only tell how well it holds
    :return: the record for ``nerd.json``; None where there are too few entities, or all of them right or wrong
    """
    view = views[fitted_on]
    scores, right, label, row = _entities(view, types)
    if len(scores) < _FEWEST or right.all() or not right.any():
        return None
    slope, offsets = _platt(scores, right, label, len(types))
    fitted = ScoreCalibration(slope, offsets, {})
    held_out = np.empty(len(scores), dtype=np.float32)
    for fold in range(_FOLDS):
        inside = row % _FOLDS == fold
        if right[~inside].all() or not right[~inside].any():
            return None
        part = ScoreCalibration(*_platt(scores[~inside], right[~inside], label[~inside], len(types)), {})
        held_out[inside] = part.apply(scores[inside].astype(np.float32), label[inside])
    errors = {f"{fitted_on}, {_FOLDS}-fold": _error(view, held_out)}
    for name, other in views.items():
        if name != fitted_on:
            found, _, kinds, _ = _entities(other, types)
            errors[name] = _error(other, fitted.apply(found.astype(np.float32), kinds))
    before = {name: round(calibration(one.gold, one.found, one.certainty).error, 5) for name, one in views.items()}
    probability = fitted.apply(scores.astype(np.float32), label).astype(np.float64)
    return {
        "method": "Platt scaling of the mean word probability, one slope, an offset a type",
        "fitted_on": {"split": fitted_on, "entities": len(scores), "counts_as_right": "borders and type, plain text"},
        "slope": slope,
        "offsets": dict(zip(types, offsets.tolist(), strict=True)),
        "expected_calibration_error": errors,
        "before": before,
        "thresholds": {
            f"{wish:g}": {
                name: _least_score(probability[label == i], right[label == i], wish) for i, name in enumerate(types)
            }
            for wish in PRECISIONS
        },
    }


def _entities(
    view: View, types: Sequence[str]
) -> tuple[npt.NDArray[np.float64], Bools, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give score, outcome, type and sentence of every entity found. *Shape:* (entities,) each."""
    place = {name: i for i, name in enumerate(types)}
    scores = np.array([score for row in view.certainty for score in row], dtype=np.float64)
    right = outcomes(view.gold, view.found)
    label = np.array([place[span[2]] for found in view.found for span in found], dtype=np.int64)
    row = np.array([i for i, found in enumerate(view.found) for _ in found], dtype=np.int64)
    return scores, right, label, row


def _platt(
    scores: npt.NDArray[np.float64], right: Bools, label: npt.NDArray[np.int64], types: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Fit slope and offsets by logistic regression; offsets of rare types are drawn towards the common one."""
    from sklearn.linear_model import LogisticRegression

    features = np.concatenate([log_odds(scores)[:, None], np.eye(types)[label]], axis=1)
    model = LogisticRegression(C=10.0, max_iter=1000).fit(features, right)
    slope = max(float(model.coef_[0, 0]), 1e-3)
    offsets = np.asarray(model.coef_[0, 1:] + model.intercept_[0], dtype=np.float64)
    return round(slope, _DIGITS), np.round(offsets, _DIGITS)


def _error(view: View, probability: npt.NDArray[np.float32]) -> float:
    """Give the expected calibration error of other scores for the same entities."""
    values = iter(probability.tolist())
    certainty = [[next(values) for _ in found] for found in view.found]
    return round(calibration(view.gold, view.found, certainty).error, 5)


def _least_score(probability: npt.NDArray[np.float64], right: Bools, wish: float) -> float | None:
    """Give the lowest threshold above which so large a share is right; None where there is none."""
    order = np.argsort(-probability, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_score = np.append(probability[order][1:] != probability[order][:-1], True)
    good = np.flatnonzero((share >= wish) & last_of_score & (np.arange(1, len(order) + 1) >= _FEWEST_ABOVE))
    return float(probability[order][good[-1]]) if len(good) else None
