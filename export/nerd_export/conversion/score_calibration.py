"""Fit what turns an entity's score into the share of such entities that is right, and thresholds for a precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.evaluation.measures import calibration, outcomes
from nerd_export.training.evaluation import View
from nerd_onnx.inference.arrays import Bools, Floats, Ints
from nerd_onnx.inference.calibration import ScoreCalibration, log_odds

PRECISIONS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
_FOLDS = 5
_FEWEST = 100  # entities to fit on
_FEWEST_ABOVE = 10  # entities that must lie above a threshold to believe its precision
_FLAT_F1 = 0.001  # so much less than the best F1 is as good: its own 95% interval is fifteen times as wide
_DIGITS = 6  # of slopes and offsets, as they are recorded and used


@dataclass(frozen=True)
class _Found:
    """
    Entities found in one view, and what came of them. *Shape:* (entities,) each.

    :param score: mean probability of the words
    :param border: probability that the words beside are not of the type
    :param right: whether borders and type are right
    :param label: index of the type
    :param row: number of the sentence
    """

    score: Floats
    border: Floats
    right: Bools
    label: Ints
    row: Ints

    @classmethod
    def of(cls, view: View, types: Sequence[str]) -> _Found:
        place = {name: i for i, name in enumerate(types)}
        return cls(
            np.array([score for row in view.certainty for score in row], dtype=np.float32),
            np.array([border for row in view.borders for border in row], dtype=np.float32),
            outcomes(view.gold, view.found),
            np.array([place[span[2]] for found in view.found for span in found], dtype=np.int64),
            np.array([i for i, found in enumerate(view.found) for _ in found], dtype=np.int64),
        )

    @property
    def tells(self) -> bool:
        """Whether there are right and wrong ones to learn from."""
        return bool(self.right.any() and not self.right.all())

    def select(self, kept: Bools) -> _Found:
        return _Found(self.score[kept], self.border[kept], self.right[kept], self.label[kept], self.row[kept])

    def apply(self, fitted: ScoreCalibration) -> Floats:
        return fitted.apply(self.score, self.border, self.label)


def fitted_calibration(views: Mapping[str, View], types: Sequence[str], fitted_on: str) -> dict[str, Any] | None:
    """
    Fit Platt scaling on the entities found in plain text: a slope for their words, one for their borders, an offset a
    type. The threshold of best F1 is chosen on probabilities of five folds, each fitted on the other four.

    :param views: by split what the bundle found in it, with raw scores, at the level of its labels
    :param types: all types, in the model's order
    :param fitted_on: the split to fit on; the others only tell how well it holds
    :return: the record for ``nerd.json``; None where there are too few entities, or all of them right or wrong
    """
    view = views[fitted_on]
    found = _Found.of(view, types)
    folds = [found.row % _FOLDS == fold for fold in range(_FOLDS)]
    if len(found.score) < _FEWEST or not all(found.select(~fold).tells for fold in folds):
        return None
    held_out = np.empty(len(found.score), dtype=np.float32)
    for fold in folds:
        held_out[fold] = found.select(fold).apply(_platt(found.select(~fold), len(types)))
    fitted = _platt(found, len(types))
    errors = {f"{fitted_on}, {_FOLDS}-fold": _error(view, held_out)}
    others = {name: other for name, other in views.items() if name != fitted_on}
    errors |= {name: _error(other, _Found.of(other, types).apply(fitted)) for name, other in others.items()}
    before = {name: round(calibration(one.gold, one.found, one.certainty).error, 5) for name, one in views.items()}
    probability = found.apply(fitted).astype(np.float64)
    return {
        "method": "Platt scaling of two scores, the mean probability of the words and that of the borders, "
        "with an offset a type",
        "fitted_on": {
            "split": fitted_on,
            "entities": len(found.score),
            "counts_as_right": "borders and type, plain text",
        },
        "slope": fitted.slope,
        "border_slope": fitted.border_slope,
        "offsets": dict(zip(types, fitted.offsets.tolist(), strict=True)),
        "expected_calibration_error": errors,
        "before": before,
        "f1_threshold": _f1_threshold(held_out, found.right, expected=sum(map(len, view.gold))),
        "thresholds": {
            f"{wish:g}": {
                name: _least_score(probability[found.label == i], found.right[found.label == i], wish)
                for i, name in enumerate(types)
            }
            for wish in PRECISIONS
        },
    }


def _platt(found: _Found, types: int) -> ScoreCalibration:
    """Fit slopes and offsets by logistic regression; offsets of rare types are drawn towards the common one."""
    from sklearn.linear_model import LogisticRegression

    evidence = np.stack([log_odds(found.score), log_odds(found.border)], axis=1)
    features = np.concatenate([evidence, np.eye(types)[found.label]], axis=1)
    model = LogisticRegression(C=10.0, max_iter=1000).fit(features, found.right)
    if model.coef_[0, 1] < 0:  # borders tell nothing where no two types meet
        features[:, 1] = 0
        model = LogisticRegression(C=10.0, max_iter=1000).fit(features, found.right)
    slope, border_slope = max(float(model.coef_[0, 0]), 1e-3), float(model.coef_[0, 1])
    offsets = np.asarray(model.coef_[0, 2:] + model.intercept_[0], dtype=np.float64)
    return ScoreCalibration(round(slope, _DIGITS), round(border_slope, _DIGITS), np.round(offsets, _DIGITS), {})


def _f1_threshold(probability: Floats, right: Bools, *, expected: int) -> float:
    """
    Give a probability from which on entities have about the best F1, rounded down to the third digit.

    F1 is flat around its best, and where in this range it is highest is chance; the middle is a steadier choice.

    :param probability: of each entity found. *Shape:* (entities,)
    :param expected: entities that there are
    """
    least, right_above, kept = _above(probability, right)
    f1 = 2 * right_above / (kept + expected)
    good = least[f1 >= f1.max() - _FLAT_F1]
    return math.floor((float(good[0]) + float(good[-1])) / 2 * 1000) / 1000


def _error(view: View, probability: Floats) -> float:
    """Give the expected calibration error of other scores for the same entities."""
    values = iter(probability.tolist())
    certainty = [[next(values) for _ in found] for found in view.found]
    return round(calibration(view.gold, view.found, certainty).error, 5)


def _least_score(probability: npt.NDArray[np.float64], right: Bools, wish: float) -> float | None:
    """Give the lowest threshold above which so large a share is right; None where there is none."""
    least, right_above, kept = _above(probability, right)
    good = least[(right_above / kept >= wish) & (kept >= _FEWEST_ABOVE)]
    return float(good[-1]) if len(good) else None


def _above(
    probability: npt.NDArray[np.floating[Any]], right: Bools
) -> tuple[npt.NDArray[np.floating[Any]], Ints, Ints]:
    """
    Count what each threshold keeps, from the highest to the lowest: the different probabilities, and how many of the
    entities from there on are right, and how many there are. *Shape:* (different probabilities,) each.
    """
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
    return ranked[last], np.cumsum(right[order], dtype=np.int64)[last], last + 1
