"""All runs of words that may be an entity, against a plain search, and the choice among those that overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.inference.arrays import Bools, Floats
from nerd_onnx.inference.calibration import EVIDENCE, ScoreCalibration
from nerd_onnx.inference.candidates import LEVELS, Candidates, choose, find_candidates

# Few values, so that many lie on a level; float32, as networks give them.
PROBABILITIES = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 0.31, 0.5, 0.69, 0.7, 0.9, 1.0])
FITTED = ScoreCalibration((0.1, 0.6, 0.2, 0.3), (-0.4, 0.9, 1.5, 0.7), 0.2, np.array([-3.0, -2.5, -3.5]), {})


@st.composite
def scored_words(draw: st.DrawFn) -> tuple[Floats, Bools]:
    words, types = draw(st.integers(0, 14)), draw(st.integers(1, 3))
    flat = draw(st.lists(PROBABILITIES, min_size=words * types, max_size=words * types))
    cuts = draw(st.lists(st.sampled_from([False, False, False, True]), min_size=words, max_size=words))
    parted = np.zeros((words + 1, types), dtype=np.bool_)
    parted[:words] |= np.array(cuts, dtype=np.bool_)[:, None]
    parted[[0, words]] = True
    return np.array(flat, dtype=np.float32).reshape(words, types), parted


def searched(of_type: Floats, parted: Bools) -> set[tuple[int, int, int]]:
    """Try every range of words: it is a candidate when some level parts it from both neighbours."""
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


@settings(deadline=None, max_examples=300)
@given(scored_words())
def test_every_run_that_a_level_cuts_out_is_found_once(given_words: tuple[Floats, Bools]) -> None:
    of_type, parted = given_words
    found = find_candidates(of_type, parted)
    runs = list(zip(found.first.tolist(), found.last.tolist(), found.label.tolist(), strict=True))
    assert len(runs) == len(set(runs))
    assert set(runs) == searched(of_type, parted)
    for i, (first, last, label) in enumerate(runs):
        inside = of_type[first : last + 1, label]
        assert found.mean[i] == pytest.approx(inside.mean(), abs=1e-6)
        assert found.least[i] == inside.min()
        before = 1.0 if parted[first, label] else 1 - of_type[first - 1, label]
        after = 1.0 if parted[last + 1, label] else 1 - of_type[last + 1, label]
        assert (found.before[i], found.after[i]) == (pytest.approx(before), pytest.approx(after))


@settings(deadline=None)
@given(scored_words(), st.integers(0, 2**32 - 1))
def test_what_is_chosen_overlaps_nothing_and_what_is_not_overlaps_something_as_likely(
    given_words: tuple[Floats, Bools], seed: int
) -> None:
    found = find_candidates(*given_words)
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
@given(st.lists(scored_words().filter(lambda words: words[0].shape[1] == 3), min_size=2, max_size=5))
def test_texts_beside_each_other_change_no_bit(texts: list[tuple[Floats, Bools]]) -> None:
    def decided(of_type: Floats, parted: Bools) -> list[tuple[int, int, int, float]]:
        found = find_candidates(of_type, parted)
        probability = FITTED.apply(found)
        kept = choose(found, probability)
        columns = (found.first[kept], found.last[kept], found.label[kept], probability[kept])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    together = decided(
        np.concatenate([of_type for of_type, _ in texts]),
        np.concatenate([*(parted[:-1] for _, parted in texts), np.ones((1, 3), dtype=np.bool_)]),
    )
    alone, base = [], 0
    for of_type, parted in texts:
        alone += [(first + base, last + base, label, p) for first, last, label, p in decided(of_type, parted)]
        base += len(of_type)
    assert together == alone


def test_evidence_is_weighed_as_documented() -> None:
    rng = np.random.default_rng(0)
    evidence = {name: rng.uniform(0.01, 0.99, 50).astype(np.float32) for name in EVIDENCE}
    first = np.arange(50) * 10
    last, label = first + rng.integers(0, 9, 50), rng.integers(0, 3, 50)
    candidates = Candidates(first, last, label, **evidence)
    logit = FITTED.offsets[label] + 0.2 * np.log(last - first + 1)
    for name, slope, share in zip(EVIDENCE, FITTED.slopes, FITTED.shares, strict=True):
        p = evidence[name].astype(np.float64)
        logit += slope * np.log(p / (1 - p)) + share * p
    np.testing.assert_allclose(FITTED.apply(candidates), 1 / (1 + np.exp(-logit)), rtol=1e-9)
    edges = candidates.select(np.arange(2))
    sure = Candidates(edges.first, edges.last, edges.label, *np.array([[0, 1]] * 4, dtype=np.float32))
    assert np.isfinite(FITTED.apply(sure)).all()


def test_of_equal_ones_that_which_begins_and_then_ends_earlier_is_taken() -> None:
    runs = np.array([[3, 4], [2, 3], [2, 5], [7, 9], [9, 9], [8, 8]])
    even = np.full(len(runs), 0.5, dtype=np.float32)
    candidates = Candidates(runs[:, 0], runs[:, 1], np.zeros(len(runs), dtype=np.int64), even, even, even, even)
    assert runs[choose(candidates, np.full(len(runs), 0.5))].tolist() == [[2, 3], [7, 9]]
    assert runs[choose(candidates, np.array([0.5, 0.4, 0.4, 0.5, 0.6, 0.5]))].tolist() == [[3, 4], [8, 8], [9, 9]]


def test_a_run_of_any_length_is_one_candidate_beside_its_parts() -> None:
    of_type = np.tile(np.array([[0.95], [0.6]], dtype=np.float32), (50_000, 1))
    parted = np.zeros((100_001, 1), dtype=np.bool_)
    parted[[0, -1]] = True
    found = find_candidates(of_type, parted)
    assert len(found) == 50_001
    fitted = ScoreCalibration((1.0, 0, 0, 0), (0, 0, 0, 0), 0.0, np.zeros(1), {})
    assert len(choose(found, fitted.apply(found))) == 50_000
