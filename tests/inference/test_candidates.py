"""All candidates, compared with a plain search, and the choice among overlapping ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.inference.arrays import Bools, Floats
from nerd_onnx.inference.candidates import (
    EVIDENCE,
    LEVELS,
    Candidates,
    WordProbabilities,
    _nested_ranges,
    choose,
    find_candidates,
)
from tests.support.calibrations import weighing
from tests.support.profiles import example_count

# Few values, so that many lie on a level; float32, as networks give them.
PROBABILITIES = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 0.31, 0.5, 0.69, 0.7, 0.9, 1.0])
FITTED = weighing(
    [0.5, 0.9, 0.2],
    word_weight=0.2,
    mean=(0.1, -0.6),
    least=(0.6, -0.1),
    fine=(0.2, 0.0),
    rival=(-0.3, 0.2),
    outside=(0.0, 0.4),
    before=(1.5, 0.1),
    after=(0.7, 0.0),
    outside_before=(0.3, -0.2),
    outside_after=(0.1, -0.1),
)


@dataclass(frozen=True)
class Words:
    """The words of some texts, one text after the other, as :func:`find_candidates` takes them."""

    known: WordProbabilities
    parted: Bools
    first_of_text: Bools

    @property
    def of_type(self) -> Floats:
        """Probability of each type. *Shape:* (words, types)."""
        return self.known.of_type

    def candidates(self) -> Candidates:
        """Find all candidates."""
        return find_candidates(self.known, self.parted, self.first_of_text)


def of_one_text(of_type: Floats) -> Words:
    words, types = of_type.shape
    first = np.zeros(words + 1, dtype=np.bool_)
    first[[0, words]] = True
    known = WordProbabilities(of_type, of_type, np.zeros(words, dtype=np.float32))
    return Words(known, np.repeat(first[:, None], types, axis=1), first)


@st.composite
def scored_words(draw: st.DrawFn) -> Words:
    """Words of one text; some of them do not continue an entity."""
    words, types = draw(st.integers(0, 14)), draw(st.integers(1, 3))
    flat = draw(st.lists(PROBABILITIES, min_size=words * types, max_size=words * types))
    cuts = draw(st.lists(st.sampled_from([False, False, False, True]), min_size=words, max_size=words))
    made = of_one_text(np.array(flat, dtype=np.float32).reshape(words, types))
    made.parted[:words] |= np.array(cuts, dtype=np.bool_)[:, None]
    shares = np.random.default_rng(draw(st.integers(0, 9))).random((words, types + 1)).astype(np.float32)
    known = WordProbabilities(made.of_type, made.of_type * shares[:, :types], shares[:, types])
    return replace(made, known=known)


def searched(of_type: Floats, parted: Bools) -> set[tuple[int, int, int]]:
    """Try every range of words: it is a candidate when some threshold separates it from both neighbours."""
    words, types = of_type.shape
    found = set()
    for label in range(types):
        for first in range(words):
            for last in range(first, words):
                inside = of_type[first : last + 1, label]
                if parted[first + 1 : last + 1, label].any():
                    continue
                before = 0.0 if parted[first, label] else of_type[first - 1, label]
                after = 0.0 if parted[last + 1, label] else of_type[last + 1, label]
                if any(inside.min() >= np.float32(t) > max(before, after) for t in LEVELS):
                    found.add((first, last, label))
    return found


@settings(deadline=None, max_examples=example_count(300))
@given(scored_words())
def test_every_run_that_a_level_cuts_out_is_found_once(given_words: Words) -> None:
    of_type, parted, known = given_words.of_type, given_words.parted, given_words.known
    found = given_words.candidates()
    runs = list(zip(found.first.tolist(), found.last.tolist(), found.label.tolist(), strict=True))
    assert len(runs) == len(set(runs))
    assert set(runs) == searched(of_type, parted)
    for i, (first, last, label) in enumerate(runs):
        inside = of_type[first : last + 1, label]
        others = np.delete(of_type, label, axis=1)[first : last + 1]
        starts, ends = first == 0, last == len(of_type) - 1
        by_hand = {
            "mean": inside.mean(),
            "least": inside.min(),
            "fine": known.of_fine[first : last + 1, label].mean(),
            "rival": others.mean(axis=0).max() if others.shape[1] else 0.0,
            "outside": known.outside[first : last + 1].mean(),
            "before": 1.0 if parted[first, label] else 1 - of_type[first - 1, label],
            "after": 1.0 if parted[last + 1, label] else 1 - of_type[last + 1, label],
            "outside_before": 1.0 if starts else known.outside[first - 1],
            "outside_after": 1.0 if ends else known.outside[last + 1],
        }
        assert found.evidence[i].tolist() == pytest.approx([by_hand[name] for name in EVIDENCE], abs=1e-6)
        assert found.mean[i] == pytest.approx(inside.mean(), abs=1e-6)


@settings(deadline=None)
@given(scored_words(), st.integers(0, 2**32 - 1))
def test_what_is_chosen_overlaps_nothing_and_what_is_not_overlaps_something_as_likely(
    given_words: Words, seed: int
) -> None:
    found = given_words.candidates()
    probability = np.random.default_rng(seed).integers(1, 5, len(found)) / 5  # with ties
    chosen = choose(found, probability)
    taken: set[int] = set()
    for i in chosen.tolist():
        words = set(range(found.first[i], found.last[i] + 1))
        assert not words & taken
        taken |= words
    assert (np.diff(found.first[chosen]) > 0).all()
    for i in set(range(len(found))) - set(chosen.tolist()):
        rivals = [j for j in chosen if found.first[j] <= found.last[i] and found.first[i] <= found.last[j]]
        assert max(probability[j] for j in rivals) >= probability[i]


@settings(deadline=None)
@given(st.lists(scored_words().filter(lambda words: words.of_type.shape[1] == 3), min_size=2, max_size=5))
def test_texts_beside_each_other_change_no_bit(texts: list[Words]) -> None:
    def decided(words: Words) -> list[tuple[int, int, int, float]]:
        found = words.candidates()
        probability = FITTED.apply(found)
        kept = choose(found, probability)
        columns = (found.first[kept], found.last[kept], found.label[kept], probability[kept])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    names = ("of_type", "of_fine", "outside")
    known = WordProbabilities(*(np.concatenate([getattr(text.known, name) for text in texts]) for name in names))
    borders = [
        np.concatenate([*(getattr(text, name)[:-1] for text in texts), getattr(texts[-1], name)[-1:]])
        for name in ("parted", "first_of_text")
    ]
    alone, base = [], 0
    for text in texts:
        alone += [(first + base, last + base, label, p) for first, last, label, p in decided(text)]
        base += len(text.of_type)
    assert decided(Words(known, *borders)) == alone


def test_evidence_is_weighed_as_documented() -> None:
    rng = np.random.default_rng(0)
    evidence = rng.uniform(0.01, 0.99, (50, len(EVIDENCE))).astype(np.float32)
    first = np.arange(50) * 10
    last, label = first + rng.integers(0, 9, 50), rng.integers(0, 3, 50)
    candidates = Candidates(first, last, label, evidence)
    logit = FITTED.offsets[label] + 0.2 * np.log(last - first + 1)
    for i in range(len(EVIDENCE)):
        p = evidence[:, i].astype(np.float64)
        logit += FITTED.weights_for[i] * np.log(p) + FITTED.weights_against[i] * np.log(1 - p)
    np.testing.assert_allclose(FITTED.apply(candidates), 1 / (1 + np.exp(-logit)), rtol=1e-9)
    edges = replace(candidates.select(np.arange(2)), evidence=np.repeat([[0.0], [1.0]], len(EVIDENCE), axis=1))
    assert ((FITTED.apply(edges) > 0) & (FITTED.apply(edges) < 1)).all()


def test_of_equal_ones_that_which_begins_and_then_ends_earlier_is_taken() -> None:
    runs = np.array([[3, 4], [2, 3], [2, 5], [7, 9], [9, 9], [8, 8]])
    even = np.full((len(runs), len(EVIDENCE)), 0.5, dtype=np.float32)
    candidates = Candidates(runs[:, 0], runs[:, 1], np.zeros(len(runs), dtype=np.int64), even)
    assert runs[choose(candidates, np.full(len(runs), 0.5))].tolist() == [[2, 3], [7, 9]]
    assert runs[choose(candidates, np.array([0.5, 0.4, 0.4, 0.5, 0.6, 0.5]))].tolist() == [[3, 4], [8, 8], [9, 9]]


def test_a_run_of_any_length_is_one_candidate_beside_its_parts() -> None:
    found = of_one_text(np.tile(np.array([[0.95], [0.6]], dtype=np.float32), (50_000, 1))).candidates()
    assert len(found) == 50_001
    assert len(choose(found, weighing([0.0], mean=(1.0, -1.0)).apply(found))) == 50_000


def test_ranges_of_several_thresholds_are_found_once() -> None:
    """The example in the docstring of the function."""
    probability = np.array([0.2, 0.8, 0.6, 0.2], dtype=np.float32)
    begin, end = _nested_ranges(probability, np.array([False, True, True, True]))
    assert begin.tolist() == [0, 1, 1]
    assert end.tolist() == [4, 2, 3]
