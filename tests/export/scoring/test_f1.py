"""Scores against an independent count, and the traps of Few-NERD's IO tags."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_export.scoring.f1 import Scores, span_scores, spans_of, to_bio, word_scores

TAGS = st.lists(st.sampled_from(["O", "art-other", "building-other", "art-film", "person"]), min_size=1, max_size=12)
PAIRS = st.lists(
    st.tuples(TAGS, TAGS).map(lambda p: (p[0][: min(map(len, p))], p[1][: min(map(len, p))])), min_size=1, max_size=8
)


def count(tags: list[str]) -> set[tuple[int, int, str]]:
    """Return sequences of one name in IO tags, without any of the code under test."""
    found, i = set(), 0
    while i < len(tags):
        j = i
        while j < len(tags) and tags[j] == tags[i]:
            j += 1
        if tags[i] != "O":
            found.add((i, j, tags[i]))
        i = j
    return found


@given(PAIRS)
@settings(deadline=None)
def test_scores_agree_with_an_independent_count(pairs: list[tuple[list[str], list[str]]]) -> None:
    gold, guess = [count(g) for g, _ in pairs], [count(p) for _, p in pairs]
    correct = sum(len(g & p) for g, p in zip(gold, guess, strict=True))
    n_gold, n_guess = sum(map(len, gold)), sum(map(len, guess))
    precision = correct / n_guess if n_guess else 0.0
    recall = correct / n_gold if n_gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    words = sum(len(g) for g, _ in pairs)
    by_words = word_scores([to_bio(g) for g, _ in pairs], [to_bio(p) for _, p in pairs])
    assert (by_words.precision, by_words.recall, by_words.f1) == pytest.approx((precision, recall, f1))
    assert by_words.accuracy is not None
    bio_equal = sum(a == b for g, p in pairs for a, b in zip(to_bio(g), to_bio(p), strict=True))
    assert by_words.accuracy == pytest.approx(bio_equal / words)
    by_spans = span_scores([spans_of(g) for g, _ in pairs], [spans_of(p) for _, p in pairs])
    assert (by_spans.precision, by_spans.recall, by_spans.f1) == pytest.approx((precision, recall, f1))


def test_neighbouring_types_that_end_alike_stay_apart() -> None:
    assert to_bio(["art-other", "building-other", "building-other"]) == [
        "B-art-other",
        "B-building-other",
        "I-building-other",
    ]


def test_coarse_level_joins_neighbours_of_one_coarse_type() -> None:
    assert to_bio(["art-film", "art-other", "O", "person"], coarse=True) == ["B-art", "I-art", "O", "B-person"]


def test_coarse_level_keeps_the_borders_of_bio() -> None:
    assert to_bio(["B-art-film", "B-art-other", "I-art-other"], coarse=True) == ["B-art", "B-art", "I-art"]


@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), max_size=20))
def test_bio_is_read_and_written_alike(tags: list[str]) -> None:
    bio = to_bio(tags, "IOB2")
    assert spans_of(bio, "IOB2") == spans_of(tags, "IOB2")
    assert to_bio(bio, "IOB2") == bio


def test_no_entities_anywhere() -> None:
    assert word_scores([["O", "O"]], [["O", "O"]]) == Scores(0.0, 0.0, 0.0, 1.0)
    assert Scores.from_counts(0, 0, 0) == Scores(0.0, 0.0, 0.0)
