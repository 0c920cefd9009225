"""Partial credit, confusion and calibration, by hand and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_export.scoring.bootstrap import f1_interval, micro_f1
from nerd_export.scoring.f1 import span_scores
from nerd_export.scoring.measures import NOTHING, FalseAlarms, calibration, confusion, partial_scores

SPANS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 5), st.sampled_from("ab")).map(lambda s: (s[0], s[0] + s[1], s[2])),
    max_size=6,
    unique=True,
)
TEXTS = st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=5)


def test_half_a_point_for_the_right_type_at_wrong_borders() -> None:
    gold = [[(0, 5, "person"), (10, 14, "location"), (20, 25, "person")], [(0, 3, "person")]]
    found = [[(0, 5, "person"), (10, 12, "location"), (20, 25, "location"), (30, 31, "person")], []]
    scores = partial_scores(gold, found)
    assert (scores.exact, scores.partial, scores.predicted, scores.expected) == (1, 1, 4, 4)
    assert scores.f1 == pytest.approx(3 / 8)
    twice = partial_scores([[(0, 9, "a")]], [[(0, 2, "a"), (4, 6, "a")]])
    assert (twice.exact, twice.partial) == (0, 1)  # one expected entity, one pair
    assert partial_scores([[]], [[]]).f1 == 0.0


@given(TEXTS)
def test_partial_credit_is_never_below_strict_f1_and_one_for_equal_entities(texts: list[tuple[list, list]]) -> None:  # type: ignore[type-arg]
    gold, found = [pair[0] for pair in texts], [pair[1] for pair in texts]
    assert span_scores(gold, found).f1 - 1e-12 <= partial_scores(gold, found).f1 <= 1
    if any(gold):
        assert partial_scores(gold, gold).f1 == 1.0


@given(TEXTS)
def test_confusion_accounts_for_every_expected_entity(texts: list[tuple[list, list]]) -> None:  # type: ignore[type-arg]
    gold, found = [pair[0] for pair in texts], [pair[1] for pair in texts]
    counts = confusion(gold, found)
    assert sum(n for (expected, _), n in counts.items() if expected != NOTHING) == sum(map(len, gold))
    exact = sum(len(set(g) & set(f)) for g, f in zip(gold, found, strict=True))
    assert sum(n for (expected, other), n in counts.items() if expected == other) >= exact


def test_confusion_goes_by_the_largest_overlap() -> None:
    gold = [[(0, 10, "person")], [(0, 4, "art")], []]
    found = [[(0, 2, "person"), (2, 10, "location")], [], [(3, 5, "event")]]
    assert confusion(gold, found) == {("person", "location"): 1, ("art", NOTHING): 1, (NOTHING, "event"): 1}


def test_calibration_of_scores_that_mean_what_they_say_is_zero() -> None:
    gold = [[(i, i + 1, "a")] for i in range(4)]
    found = [[(0, 1, "a")], [(1, 2, "a")], [(2, 3, "a")], [(9, 10, "a")]]
    exact = calibration(gold, found, [[0.75]] * 4)
    assert exact.error == pytest.approx(0)
    assert [(one.entities, one.right) for one in exact.bins] == [(4, 0.75)]
    sure = calibration(gold, found, [[1.0], [0.9], [1.0], [1.0]])
    assert sure.error == pytest.approx((3 * (1 - 2 / 3) * 0 + abs(3.9 - 3)) / 4)
    assert sure.brier == pytest.approx((0 + 0.01 + 0 + 1) / 4)
    assert calibration([[]], [[]], [[]]).error == 0.0


def test_the_interval_holds_the_measured_f1() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(0, 3, 200)
    counts = np.stack([right, right + rng.integers(0, 2, 200), right + rng.integers(0, 2, 200)], axis=1)
    low, high = f1_interval(counts)
    assert low < float(micro_f1(counts.sum(axis=0))) < high
    assert high - low < 0.1


def test_what_is_found_where_nothing_is_named_is_counted_by_sentence_and_by_entity() -> None:
    found = [[(0, 1, "a")], [], [(0, 1, "a"), (2, 3, "b")], [(0, 1, "a")]]
    assert FalseAlarms.among([True, True, True, False], found) == FalseAlarms(sentences=3, alarmed=2, entities=3)
    assert FalseAlarms.among([], []) == FalseAlarms(0, 0, 0)
