"""Fit the calibration of entity scores, their thresholds, and the weights of fine labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nerd_export.data.labelled import Labelled
from nerd_export.scoring.evaluation import Judged, evaluate_labelled, joined, judged_candidates
from nerd_export.scoring.measures import calibration, calibration_of
from nerd_onnx.inference.arrays import Bools, Doubles, Ints
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.calibration import ScoreCalibration, evidence_columns
from nerd_onnx.inference.candidates import EVIDENCE, choose
from nerd_onnx.inference.decoding import choose_fine
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.tagger import Tagger

PRECISIONS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
_FOLDS = 5
_FEWEST = 100  # minimum number of candidates to fit on
_FEWEST_ABOVE = 10  # minimum number of entities above a threshold: the precision of fewer is chance
_FLAT_F1 = 0.001  # F1 values this close count as equal: the 95% interval of F1 is fifteen times as wide
_DIGITS = 6  # digits of weights and offsets, in the record and in use
_ERROR_DIGITS = 5
_SAME = 1e-9  # a smaller spread of a feature is rounding error
_LEAST = 1e-9  # minimum probability before a logarithm
_STRENGTH = 1.0  # inverse of the regularisation; a tenth and ten times of it have the same effect
_FEWEST_WORDS = 20  # of the limit on the words of an entity: a small file may have short entities only
_FINE_STRENGTH = 1.0  # the same for fine labels; ten times of it has the same effect, a tenth a smaller one


def fitted_calibration(
    splits: Mapping[str, Judged], labels: LabelSet, fitted_on: Sequence[str], before: Mapping[str, float]
) -> dict[str, Any] | None:
    """
    Fit the probability that a candidate is right, on all candidates in plain text. The threshold of best F1
    is chosen on probabilities of five folds, each fitted on the other four.

    :param splits: candidates by split, at the level of the labels
    :param labels: labels of the model
    :param fitted_on: the splits to fit on; the others only measure how well the fit generalises
    :param before: expected calibration error of the mean probability of the words, by split
    :return: the record for ``nerd.json``; None if candidates are too few, or all right, or all wrong
    """
    found, types = joined([splits[name] for name in fitted_on]), labels.types

    # By sentence: candidates of one sentence overlap, so a fold with some of them would know the answer to the others.
    folds = [found.row % _FOLDS == fold for fold in range(_FOLDS)]
    if len(found.right) < _FEWEST or not all(_tells(found.select(~fold)) for fold in folds):
        return None

    # The threshold is chosen on held-out probabilities: on fitted ones it would be too optimistic.
    held_out = np.empty(len(found.right))
    for fold in folds:
        held_out[fold] = _logistic(found.select(~fold), len(types)).apply(found.select(fold).candidates)

    fitted = _logistic(found, len(types))
    apart, chosen = _Chosen.of(found, held_out), _Chosen.of(found, fitted.apply(found.candidates))
    ends = np.cumsum([len(splits[name].right) for name in fitted_on])
    parts = zip(fitted_on, np.split(held_out, ends[:-1]), strict=True)
    errors = {f"{name}, {_FOLDS}-fold": _Chosen.of(splits[name], part).error for name, part in parts}

    others = {name: other for name, other in splits.items() if name not in fitted_on}
    errors |= {name: _Chosen.of(other, fitted.apply(other.candidates)).error for name, other in others.items()}

    return {
        "method": "beta calibration of several probabilities: of the words for the type, its fine types, others and "
        "none, of the words beside, and the number of words, with an offset a type",
        "fitted_on": {
            "splits": list(fitted_on),
            "candidates": len(found.right),
            "counts_as_right": "borders and type, plain text",
        },
        "weights_for": dict(zip(EVIDENCE, fitted.weights_for.tolist(), strict=True)),
        "weights_against": dict(zip(EVIDENCE, fitted.weights_against.tolist(), strict=True)),
        "word_weight": fitted.word_weight,
        "offsets": dict(zip(types, fitted.offsets.tolist(), strict=True)),
        "expected_calibration_error": {name: round(error, _ERROR_DIGITS) for name, error in errors.items()},
        "before": {name: round(error, _ERROR_DIGITS) for name, error in before.items()},
        # Labelled text shows how long entities are; some that it does not have are longer.
        "maximum_words": max(_FEWEST_WORDS, 2 * int(found.candidates.words[found.right].max())),
        "f1_threshold": f1_threshold(apart.probability, apart.right, expected=found.expected),
        "thresholds": {
            f"{wish:g}": {
                name: _least_score(chosen.probability[chosen.label == i], chosen.right[chosen.label == i], wish)
                for i, name in enumerate(types)
            }
            for wish in PRECISIONS
        },
        **(_fitted_fine_weights(splits, fitted_on, labels) if labels.has_fine_level else {}),
    }


def calibration_of_tagger(
    tagger: Tagger, splits: Mapping[str, Labelled], fitted_on: Sequence[str]
) -> dict[str, Any] | None:
    """
    Fit as :func:`fitted_calibration` does, on what a tagger finds.

    :param tagger: without a calibration
    :param splits: labelled sentences by split
    :param fitted_on: names of the splits to fit on
    """
    judged = {
        name: judged_candidates(tagger, found.sentences, scheme=found.scheme, fine=found.fine, types=found.types)
        for name, found in splits.items()
    }
    views = {name: evaluate_labelled(tagger, found).views["raw"] for name, found in splits.items()}
    before = {name: calibration(view.gold, view.found, view.certainty).error for name, view in views.items()}
    return fitted_calibration(judged, tagger.labels, fitted_on, before)


def calibrated(bundle: Bundle, record: Mapping[str, Any] | None) -> Bundle:
    """Return a bundle with a recorded calibration; None removes the bundle's calibration."""
    if record is None:
        return bundle.uncalibrated()
    fitted = ScoreCalibration.from_description(record, bundle.labels)
    description = None if bundle.description is None else replace(bundle.description, calibration=record)
    return replace(bundle, calibration=fitted, description=description)


@dataclass(frozen=True)
class _Chosen:
    """
    The candidates that a tagger chooses where several overlap. *Shape:* (chosen,) each.

    :param probability: probability that the candidate is right
    :param right: whether it is right
    :param label: index of its label
    """

    probability: Doubles
    right: Bools
    label: Ints

    @classmethod
    def of(cls, found: Judged, probability: Doubles) -> _Chosen:
        kept = choose(found.candidates, probability)
        as_written = probability[kept].astype(np.float32).astype(np.float64)  # thresholds are compared with these
        return cls(as_written, found.right[kept], found.candidates.label[kept])

    @property
    def error(self) -> float:
        return calibration_of(self.probability, self.right).error


def _tells(found: Judged) -> bool:
    """Whether there are both right and wrong candidates to learn from."""
    return bool(found.right.any() and not found.right.all())


def _logistic(found: Judged, types: int) -> ScoreCalibration:
    """Fit weights and offsets by logistic regression. Regularisation pulls offsets of rare labels to the common one."""
    from sklearn.linear_model import LogisticRegression

    evidence = np.stack(evidence_columns(found.candidates), axis=1)
    middle, spread = evidence.mean(axis=0), evidence.std(axis=0)
    spread[spread < _SAME] = np.inf  # a constant feature carries no information: its weight becomes 0
    features = np.concatenate([(evidence - middle) / spread, np.eye(types)[found.candidates.label]], axis=1)
    model = LogisticRegression(C=_STRENGTH, max_iter=1000).fit(features, found.right)

    # Back to the features as they are, so that the runtime needs neither mean nor spread; rounded, so that the record
    # has the digits that are used.
    learned = np.round(model.coef_[0, :-types] / spread, _DIGITS)
    offsets = model.coef_[0, -types:] + model.intercept_[0] - (learned * middle).sum()

    return ScoreCalibration(
        weights_for=learned[1 : 1 + len(EVIDENCE)],
        weights_against=learned[1 + len(EVIDENCE) :],
        word_weight=float(learned[0]),
        offsets=np.asarray(np.round(offsets, _DIGITS), dtype=np.float64),
        thresholds={},
    )


def _fitted_fine_weights(splits: Mapping[str, Judged], fitted_on: Sequence[str], labels: LabelSet) -> dict[str, Any]:
    """
    Fit the weights of fine labels, and measure how often the chosen one is right without and with them, among
    candidates whose borders and label are right. All weights are 1 if cross-validation shows no gain.
    """
    known = {name: split.select(split.fine_type >= 0) for name, split in splits.items()}
    found, equal = joined([known[name] for name in fitted_on]), np.ones(len(labels.fine_types))
    held_out = np.zeros(len(found.right), dtype=np.bool_)

    for fold in (found.row % _FOLDS == number for number in range(_FOLDS)):
        held_out[fold] = _chosen_right(found.select(fold), labels, _fine_weights(found.select(~fold), labels))

    before = _chosen_right(found, labels, equal)
    # Weights that do not help on held-out folds only fit the noise of the data.
    gains = held_out.sum() > before.sum()
    weights = _fine_weights(found, labels) if gains else equal

    shares = {f"{', '.join(_with_any(known, fitted_on))}, {_FOLDS}-fold": (before, held_out if gains else before)}
    shares |= {
        name: (_chosen_right(other, labels, equal), _chosen_right(other, labels, weights))
        for name, other in known.items()
        if name not in fitted_on
    }

    return {
        "fine_weights": dict(zip(labels.fine_types, weights.tolist(), strict=True)),
        "fine_types_right": {
            name: {"without": _share(without), "with": _share(weighted)}
            for name, (without, weighted) in shares.items()
            if len(without)
        },
    }


def _with_any(known: Mapping[str, Judged], names: Sequence[str]) -> list[str]:
    """Return the names of the splits that have candidates with a known fine label."""
    return [name for name in names if len(known[name].right)]


def _chosen_right(found: Judged, labels: LabelSet, weights: Doubles) -> Bools:
    """Return whether the chosen fine label of each candidate is right. *Shape:* (candidates,)."""
    return np.equal(choose_fine(labels, found.candidates.label, found.fine, weights), found.fine_type)


def _share(values: Bools) -> float:
    return round(float(values.mean()), _ERROR_DIGITS)


def _fine_weights(found: Judged, labels: LabelSet) -> Doubles:
    """
    Fit a weight for each fine label: logistic regression on an offset to the logarithm of its probability, with
    regularisation towards 0.
    """
    from scipy.optimize import minimize

    of_type = labels.type_of_fine_type[None, :] == found.candidates.label[:, None]
    # Fine types of another label are no choice: their probability is 0.
    logs = np.where(of_type, np.log(np.maximum(found.fine, _LEAST)), -np.inf).astype(np.float64)
    rows = np.arange(len(logs))

    def loss(offsets: Doubles) -> tuple[float, Doubles]:
        scores = logs + offsets
        total = np.logaddexp.reduce(scores, axis=1)
        wrong = np.exp(scores - total[:, None])
        wrong[rows, found.fine_type] -= 1
        each, held = total - scores[rows, found.fine_type], offsets / _FINE_STRENGTH
        return float(each.sum() + offsets @ held / 2), wrong.sum(axis=0) + held

    offsets = minimize(loss, np.zeros(len(labels.fine_types)), jac=True, method="L-BFGS-B").x
    return np.asarray(np.maximum(np.exp(offsets).round(_DIGITS), 10.0**-_DIGITS), dtype=np.float64)


def f1_threshold(probability: Doubles, right: Bools, *, expected: int) -> float:
    """
    Return a threshold with about the best F1, rounded down to three digits if that adds no entity.

    F1 is flat around its best value, and the exact position of the maximum is chance. With calibrated scores it is at
    half the best F1 (Lipton et al., 2014). That value is returned, or the nearest one in the flat range.

    :param probability: of each entity found. *Shape:* (entities,)
    :param expected: number of entities in the data
    """
    least, right_above, kept = _above(probability, right)
    f1 = 2 * right_above / (kept + expected)

    worse = np.flatnonzero(f1 < f1.max() - _FLAT_F1)
    split = np.searchsorted(worse, f1.argmax())  # the flat range around the maximum ends before the worse values

    highest = least[worse[split - 1] + 1] if split else least[0]
    lowest = least[worse[split] - 1] if split < len(worse) else least[-1]
    wanted = float(np.clip(f1.max() / 2, lowest, highest))
    rounded = math.floor(wanted * 1000) / 1000
    return wanted if ((least >= rounded) & (least < lowest)).any() else rounded


def _least_score(probability: Doubles, right: Bools, wish: float) -> float | None:
    """Return the lowest threshold that reaches a precision; None if no threshold does."""
    least, right_above, kept = _above(probability, right)
    # Precision does not fall evenly: the lowest threshold keeps the most entities.
    good = least[(right_above / kept >= wish) & (kept >= _FEWEST_ABOVE)]
    return float(good[-1]) if len(good) else None


def _above(probability: Doubles, right: Bools) -> tuple[Doubles, Ints, Ints]:
    """
    Return the distinct probabilities from the highest to the lowest, the number of right entities at or above each, and
    the number of all entities at or above each. *Shape:* (distinct probabilities,) each.
    """
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    # The last of equal probabilities, because a threshold keeps all of them or none. Without any, append() gives one
    # item too many.
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
    return ranked[last], np.cumsum(right[order], dtype=np.int64)[last], last + 1
