"""Scores become probabilities: fitted, held against text it was not fitted on, recorded and used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nerd_export.conversion.score_calibration import PRECISIONS, _f1_threshold, fitted_calibration
from nerd_export.evaluation.measures import calibration
from nerd_export.training.evaluation import View
from nerd_export.training.scoring import Scores
from nerd_onnx.inference.calibration import ScoreCalibration

TYPES = ("art", "person")


def overconfident(sentences: int, seed: int) -> View:
    """Entities whose scores are too high, those of art more than those of persons; their borders tell as much again."""
    rng = np.random.default_rng(seed)
    gold: list[Any] = []
    found: list[Any] = []
    certainty: list[list[float]] = []
    borders: list[list[float]] = []
    for _ in range(sentences):
        label = int(rng.random() < 0.7)
        logit, border = rng.normal(1.5, 1.5), rng.normal(2.0, 2.0)
        right = rng.random() < 1 / (1 + np.exp(-(0.6 * logit + 0.4 * border - (0.5 if label else 1.8))))
        span = (0, 5, TYPES[label])
        gold.append([span] if right else [])
        found.append([span])
        certainty.append([float(1 / (1 + np.exp(-logit)))])
        borders.append([float(1 / (1 + np.exp(-border)))])
    return View(Scores(0, 0, 0), gold, found, certainty, borders)


def test_fitted_scores_hold_on_text_they_were_not_fitted_on() -> None:
    views = {"validation": overconfident(3000, 1), "test": overconfident(3000, 2)}
    record = fitted_calibration(views, TYPES, "validation")
    assert record is not None
    assert record["before"]["test"] > 0.08
    assert record["expected_calibration_error"]["test"] < 0.03
    assert record["expected_calibration_error"]["validation, 5-fold"] < 0.03
    assert record["slope"] == pytest.approx(0.6, abs=0.1)
    assert record["border_slope"] == pytest.approx(0.4, abs=0.1)
    assert record["offsets"]["person"] - record["offsets"]["art"] == pytest.approx(1.3, abs=0.3)


def test_thresholds_give_the_precision_they_promise_where_it_can_be_had() -> None:
    view = overconfident(3000, 3)
    record = fitted_calibration({"validation": view}, TYPES, "validation")
    assert record is not None
    fitted = ScoreCalibration.from_description(record, TYPES)
    scores = np.array([row[0] for row in view.certainty], dtype=np.float32)
    label = np.array([TYPES.index(spans[0][2]) for spans in view.found])
    right = np.array([bool(gold) for gold in view.gold])
    probability = fitted.apply(scores, np.array([row[0] for row in view.borders], dtype=np.float32), label)
    counts = []
    for wish in PRECISIONS:
        least = fitted.least_scores(wish)
        kept = probability >= least[label]
        counts.append(int(kept.sum()))
        for i in range(len(TYPES)):
            if least[i] <= 1:
                assert right[kept & (label == i)].mean() >= wish
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] >= 0


def test_the_threshold_is_that_of_the_best_f1_also_on_other_text() -> None:
    record = fitted_calibration({"validation": overconfident(6000, 6)}, TYPES, "validation")
    assert record is not None
    fitted = ScoreCalibration.from_description(record, TYPES)
    other = overconfident(6000, 7)
    label = np.array([TYPES.index(spans[0][2]) for spans in other.found])
    score = np.array([row[0] for row in other.certainty], dtype=np.float32)
    border = np.array([row[0] for row in other.borders], dtype=np.float32)
    probability = fitted.apply(score, border, label)
    right = np.array([bool(gold) for gold in other.gold])

    def f1(least: float) -> float:
        kept = probability >= least
        return float(2 * right[kept].sum() / (kept.sum() + right.sum()))

    best = max(map(f1, np.linspace(0, 1, 201)))
    assert f1(fitted.f1_threshold) > best - 0.006
    assert f1(fitted.f1_threshold) > f1(0.0) + 0.01
    # Lipton et al., 2014: the best threshold is half of the best F1.
    assert best / 2 - 0.06 < fitted.f1_threshold < best / 2 + 0.06


def test_the_threshold_does_not_fall_among_equal_scores() -> None:
    probability = np.array([0.9] * 4 + [0.5] * 10, dtype=np.float32)
    right = np.array([True] * 4 + [True] + [False] * 9)
    assert (
        _f1_threshold(probability, right, expected=5) == 0.899
    )  # rounded down; 8/9 of F1; with all of the others 10/19


def test_borders_that_tell_nothing_have_no_say() -> None:
    view = overconfident(1000, 8)
    blind = replace(view, borders=[[1 - score for score in row] for row in view.certainty])
    record = fitted_calibration({"validation": blind}, TYPES, "validation")
    assert record is not None
    assert record["border_slope"] >= 0


def test_too_little_or_nothing_to_learn_from_gives_no_calibration() -> None:
    assert fitted_calibration({"validation": overconfident(50, 1)}, TYPES, "validation") is None
    view = overconfident(500, 1)
    right = replace(view, gold=view.found)
    assert fitted_calibration({"validation": right}, TYPES, "validation") is None


def test_order_stays_and_bits_do_not_depend_on_neighbours() -> None:
    fitted = ScoreCalibration(0.7, 0.2, np.array([0.3, -0.2]), {})
    score = np.sort(np.random.default_rng(0).random(999)).astype(np.float32)
    label = np.zeros(999, dtype=np.int64)
    border = np.full(999, 0.9, dtype=np.float32)
    together = fitted.apply(score, border, label)
    assert (np.diff(together) >= 0).all()
    assert ((together >= 0) & (together <= 1)).all()
    alone = np.concatenate([fitted.apply(score[i : i + 1], border[i : i + 1], label[i : i + 1]) for i in range(999)])
    np.testing.assert_array_equal(alone, together)
    edges = fitted.apply(np.array([0, 1], dtype=np.float32), np.array([1, 0], dtype=np.float32), label[:2])
    assert np.isfinite(edges).all()
    same = ScoreCalibration(1.0, 0.0, np.zeros(2), {}).apply(score[1:], border[1:], label[1:])
    np.testing.assert_allclose(same, score[1:], atol=2e-6)


def test_the_error_is_that_of_the_reliability_table() -> None:
    view = overconfident(2000, 5)
    found = calibration(view.gold, view.found, view.certainty)
    by_hand = sum(one.entities * abs(one.mean_score - one.right) for one in found.bins) / 2000
    assert found.error == pytest.approx(by_hand)
