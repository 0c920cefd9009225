"""Calibration of scores: fitted, measured on other text, recorded and used."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nerd_export.conversion.model_card import scores_section
from nerd_export.data.checks import Sentence
from nerd_export.scoring.evaluation import Judged, joined, judged_candidates
from nerd_export.scoring.measures import calibration, calibration_of
from nerd_export.scoring.score_calibration import PRECISIONS, f1_threshold, fitted_calibration
from nerd_onnx.inference.arrays import Bools, Doubles, Ints
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.candidates import EVIDENCE, Candidates, choose
from nerd_onnx.inference.decoding import choose_fine
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.tagger import Tagger
from tests.support.models import sample_texts

TYPES = ("art", "person")
LABELS = LabelSet.hierarchical(("O", "art-film", "art-music", "person-actor", "person-other"))
RARER = np.array([1.0, 1.0, 0.2, 1.0])  # in the text than in what the network was trained on, by fine type
TOLD = {"mean": (0.3, 1.5), "least": (0.4, 0.5), "before": (0.2, 2.0), "after": (0.3, 2.0)}  # weight, usual log odds


def overconfident(sentences: int, seed: int) -> Judged:
    """One candidate per sentence. The probabilities of words are too high, for art more than for persons."""
    rng = np.random.default_rng(seed)
    label = (rng.random(sentences) < 0.7).astype(np.int64)
    words = rng.integers(1, 6, sentences)
    evidence = rng.random((sentences, len(EVIDENCE))).astype(np.float32)  # of which most tells nothing
    logit = np.where(label == 1, -0.2, -1.5) + 0.3 * np.log(words)
    for name, (weight, middle) in TOLD.items():
        odds = rng.normal(middle, 1.5, sentences)
        evidence[:, EVIDENCE.index(name)] = 1 / (1 + np.exp(-odds))
        logit += weight * odds
    right = rng.random(sentences) < 1 / (1 + np.exp(-logit))
    first = np.arange(sentences, dtype=np.int64) * 10
    candidates = Candidates(first, first + words - 1, label, evidence)
    fine = rng.dirichlet(np.full(4, 0.5), sentences).astype(np.float32)
    true = fine * RARER * (LABELS.type_of_fine_type[None, :] == label[:, None])
    fine_type = (true.cumsum(axis=1) < true.sum(axis=1, keepdims=True) * rng.random((sentences, 1))).sum(axis=1)
    return Judged(candidates, np.arange(sentences), right, int(right.sum() * 1.1), fine, np.where(right, fine_type, -1))


def fit(*judged: Judged) -> dict[str, Any]:
    splits = dict(zip(("validation", "test"), judged, strict=False))
    record = fitted_calibration(splits, LABELS, ["validation"], dict.fromkeys(splits, 0.123456))
    assert record is not None
    return record


def applied(record: dict[str, Any], judged: Judged) -> tuple[Doubles, Ints, Bools]:
    fitted = ScoreCalibration.from_description(record, LABELS)
    return fitted.apply(judged.candidates), judged.candidates.label, judged.right


def test_fitted_scores_hold_on_text_they_were_not_fitted_on() -> None:
    test = overconfident(4000, 2)
    record = fit(overconfident(4000, 1), test)
    assert calibration_of(test.candidates.mean.astype(np.float64), test.right).error > 0.08
    assert record["expected_calibration_error"]["test"] < 0.03
    assert record["expected_calibration_error"]["validation, 5-fold"] < 0.03
    assert record["before"] == {"validation": 0.12346, "test": 0.12346}
    probability, _, right = applied(record, test)
    assert calibration_of(probability, right).error == pytest.approx(
        record["expected_calibration_error"]["test"], abs=1e-5
    )


def test_the_fit_is_that_of_what_is_true() -> None:
    record = fit(overconfident(40_000, 4))
    for name in EVIDENCE:
        weight, _ = TOLD.get(name, (0.0, 0.0))
        assert record["weights_for"][name] == pytest.approx(weight, abs=0.06), name
        assert record["weights_against"][name] == pytest.approx(-weight, abs=0.06), name
    assert record["word_weight"] == pytest.approx(0.3, abs=0.1)
    assert record["offsets"]["person"] - record["offsets"]["art"] == pytest.approx(1.3, abs=0.15)


def test_thresholds_give_the_precision_they_promise_where_it_can_be_had() -> None:
    judged = overconfident(3000, 3)
    record = fit(judged)
    fitted = ScoreCalibration.from_description(record, LABELS)
    probability, label, right = applied(record, judged)
    probability = probability.astype(np.float32)  # as scores are
    assert any(np.isin(fitted.least_scores(0.8), probability))  # a threshold is the score of an entity, which has it
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
    record = fit(overconfident(6000, 6))
    other = overconfident(6000, 7)
    probability, _, right = applied(record, other)

    def f1(least: float) -> float:
        kept = probability >= least
        return float(2 * right[kept].sum() / (kept.sum() + other.expected))

    best = max(map(f1, np.linspace(0, 1, 201)))
    assert f1(record["f1_threshold"]) > best - 0.006
    assert f1(record["f1_threshold"]) > f1(0.0) + 0.005
    # Lipton et al., 2014: the best threshold is half of the best F1.
    assert best / 2 - 0.06 < record["f1_threshold"] < best / 2 + 0.06


def test_of_candidates_that_overlap_only_the_likelier_one_counts() -> None:
    judged = overconfident(8000, 9)
    twice = np.repeat(np.arange(8000), 2)
    doubled = judged.select(twice)
    second = np.arange(16_000) % 2 == 1
    doubled.candidates.evidence[second, EVIDENCE.index("least")] = 1e-6
    doubled = replace(doubled, right=doubled.right & ~second, expected=judged.expected)
    record, alone = fit(doubled), fit(judged)
    assert record["fitted_on"]["candidates"] == 16_000
    for wish in ("0.85", "0.9"):
        for name in TYPES:
            assert record["thresholds"][wish][name] == pytest.approx(alone["thresholds"][wish][name], abs=0.05)
    assert record["f1_threshold"] == pytest.approx(alone["f1_threshold"], abs=0.1)


def test_the_threshold_does_not_fall_among_equal_scores() -> None:
    probability = np.array([0.9] * 4 + [0.5] * 10)
    right = np.array([True] * 4 + [True] + [False] * 9)
    # Rounded down; 8/9 of F1; with all of the others 10/19.
    assert f1_threshold(probability, right, expected=5) == 0.9


def test_the_threshold_lies_in_the_stretch_of_the_best_one() -> None:
    probability = np.linspace(0.99, 0.01, 40)
    right = np.array([True] * 10 + [False] * 8 + [True] * 5 + [False] * 17)
    f1 = 2 * np.cumsum(right) / (np.arange(1, 41) + 16)
    assert np.flatnonzero(f1 > f1.max() - 1e-9).tolist() == [9, 22]  # two peaks, and a valley between them
    assert 0 <= probability[9] - f1_threshold(probability, right, expected=16) < 0.001


def test_the_threshold_is_half_of_the_best_f1_where_the_range_of_it_is_wide() -> None:
    probability = np.concatenate([np.full(4000, 0.95), [0.9, 0.1], np.full(3000, 0.02)])
    right = np.array([True] * 4000 + [True, False] + [False] * 3000)
    best = 2 * 4001 / (4001 + 5000)
    found = f1_threshold(probability, right, expected=5000)  # the middle would be 0.5
    assert found == pytest.approx(best / 2, abs=1e-3)


def test_rounding_the_threshold_takes_in_no_worse_entities() -> None:
    probability = np.array([0.9] * 100 + [0.6004] * 40 + [0.6001] * 400)
    right = np.array([True] * 100 + [True] * 16 + [False] * 24 + [False] * 400)
    least = f1_threshold(probability, right, expected=200)
    assert 0.6001 < least <= 0.6004


def test_the_limit_of_words_follows_from_the_longest_entity() -> None:
    judged = overconfident(2000, 5)
    assert fit(judged)["maximum_words"] == 20
    found = judged.candidates
    longer = replace(judged, candidates=replace(found, last=found.last + np.where(judged.right, 25, 60)))
    record = fit(longer)
    assert record["maximum_words"] == 60  # twice the longest of those that are right, 30
    assert ScoreCalibration.from_description(record, LABELS).maximum_words == 60


def test_too_little_or_nothing_to_learn_from_gives_no_calibration() -> None:
    few, all_right = overconfident(50, 1), overconfident(500, 1)
    for judged in (few, replace(all_right, right=np.ones(500, dtype=np.bool_))):
        assert fitted_calibration({"validation": judged}, LABELS, ["validation"], {}) is None


def test_fine_types_weigh_as_frequent_as_they_are() -> None:
    judged = overconfident(20_000, 10)
    record = fit(judged)
    found = np.array([record["fine_weights"][name] for name in LABELS.fine_types])
    assert found[0] / found[1] == pytest.approx(1.0, abs=0.1)
    assert found[2] / found[3] == pytest.approx(0.2, abs=0.03)
    other = overconfident(20_000, 11)
    told = fit(judged, other)["fine_types_right"]
    assert told["validation, 5-fold"]["with"] > told["validation, 5-fold"]["without"] + 0.02
    known, of_type = other.fine_type >= 0, LABELS.type_of_fine_type[None, :] == other.candidates.label[:, None]
    shares = [
        (np.where(of_type, other.fine * weights, -1).argmax(axis=1) == other.fine_type)[known].mean()
        for weights in (1.0, found, RARER)
    ]
    assert shares[1] > shares[0] + 0.02
    assert shares[1] == pytest.approx(shares[2], abs=0.003)
    assert told["validation, 5-fold"]["with"] == pytest.approx(shares[1], abs=0.01)
    assert told["test"] == {"without": pytest.approx(shares[0], abs=1e-5), "with": pytest.approx(shares[1], abs=1e-5)}


def test_the_card_says_what_the_weights_of_fine_types_brought() -> None:
    card = "".join(scores_section(fit(overconfident(20_000, 10), overconfident(20_000, 11))))
    assert re.search(
        r"`fine_weights`.*: validation, 5-fold \d\d\.\d% \(\d\d\.\d%\), test \d\d\.\d% \(\d\d\.\d%\)\.", card
    )


def test_candidates_are_judged_at_both_levels(tiny_bundle: Path) -> None:
    tagger = Tagger.load(tiny_bundle)
    labels = tagger.labels
    words = [[word for word in text.split() if word.isascii() and word.isalpha()] for text in sample_texts()]
    words = [row for row in words if len(row) > 2]
    found = tagger.tag_words(words)
    tags = [["O"] * len(row) for row in words]
    for row, start, end, fine in zip(found.row, found.start, found.end, found.fine, strict=True):
        tags[row][start:end] = [labels.fine_types[fine]] * int(end - start)

    def judged(rows: list[list[str]]) -> Judged:
        sentences = zip(words, rows, strict=True)
        return judged_candidates(tagger, [Sentence(tuple(w), tuple(t), frozenset()) for w, t in sentences])

    own = judged(tags)
    known = own.fine_type >= 0
    assert known.sum() > 50
    assert not known[~own.right].any()
    chosen = choose_fine(labels, own.candidates.label, own.fine, None)
    assert (chosen == own.fine_type)[known & (own.candidates.words == 1)].all()
    np.testing.assert_allclose(  # what the fine types of a type have together is what the type has
        np.where(labels.type_of_fine_type[None, :] == own.candidates.label[:, None], own.fine, 0).sum(axis=1),
        own.candidates.mean * own.candidates.words,
        rtol=1e-4,
    )
    other = {"person-actor": "person-other", "person-other": "person-actor", "location-GPE": "location-island"}
    other["location-island"] = "location-GPE"
    swapped = judged([[other.get(tag, tag) for tag in row] for row in tags])
    np.testing.assert_array_equal(swapped.right, own.right)
    names = np.array([*labels.fine_types, "O"])
    assert all(other[a] == b for a, b in zip(names[own.fine_type[known]], names[swapped.fine_type[known]], strict=True))
    halves = judged([[other.get(tag, tag) if i % 2 else tag for i, tag in enumerate(row)] for row in tags])
    np.testing.assert_array_equal(halves.right, own.right)  # neighbours of one type are one entity of it
    assert (halves.fine_type[own.candidates.words > 1] < 0).all()  # but of no fine type
    tagger.close()


def test_fine_types_weigh_alike_where_nothing_is_to_be_gained_or_there_are_none() -> None:
    judged = overconfident(1000, 12)
    sure = np.eye(4, dtype=np.float32)[np.maximum(judged.fine_type, 0)]
    record = fit(replace(judged, fine=sure))
    assert set(record["fine_weights"].values()) == {1.0}
    assert record["fine_types_right"] == {"validation, 5-fold": {"without": 1.0, "with": 1.0}}
    assert "fine_weights" not in "".join(scores_section(record))
    coarse_only = fit(replace(judged, fine_type=np.full(1000, -1)))
    assert (set(coarse_only["fine_weights"].values()), coarse_only["fine_types_right"]) == ({1.0}, {})
    none = replace(judged, fine=np.empty((1000, 0), dtype=np.float32), fine_type=np.full(1000, -1))
    without = LabelSet(("O", *TYPES))
    flat = fitted_calibration({"v": none}, without, ["v"], {"v": 0.1})
    assert flat is not None
    assert "fine_weights" not in flat
    assert ScoreCalibration.from_description(flat, without).fine_weights is None


def test_evidence_that_is_always_the_same_has_no_say() -> None:
    judged = overconfident(2000, 8)
    judged.candidates.evidence[:, EVIDENCE.index("before")] = 1
    record = fit(judged)
    assert record["weights_for"]["before"] == record["weights_against"]["before"] == 0


def test_the_error_is_that_of_the_reliability_table() -> None:
    judged = overconfident(2000, 5)
    spans = [[(0, 5, "art")]] * 2000
    gold = [row if right else [] for row, right in zip(spans, judged.right, strict=True)]
    scores = judged.candidates.mean.astype(np.float64)
    found = calibration(gold, spans, [[score] for score in scores])
    assert found == calibration_of(scores, judged.right)
    by_hand = sum(one.entities * abs(one.mean_score - one.right) for one in found.bins) / 2000
    assert found.error == pytest.approx(by_hand)


def sentences_of(tagger: Tagger) -> list[Sentence]:
    words = [[word for word in text.split() if word.isascii() and word.isalpha()] for text in sample_texts()]
    rows = [row for row in words if len(row) > 2]
    found = tagger.tag_words(rows)
    tags = [["O"] * len(row) for row in rows]
    for row, start, end, fine in zip(found.row, found.start, found.end, found.fine, strict=True):
        tags[row][start:end] = [tagger.labels.fine_types[fine]] * int(end - start)
    return [Sentence(tuple(w), tuple(t), frozenset()) for w, t in zip(rows, tags, strict=True)]


def test_files_that_are_joined_are_as_one_file(tiny_bundle: Path) -> None:
    with contextlib.closing(Tagger.load(tiny_bundle)) as tagger:
        sentences = sentences_of(tagger)
        whole = judged_candidates(tagger, sentences)
        parts = [judged_candidates(tagger, part) for part in (sentences[:7], sentences[7:8], sentences[8:])]
    found = joined(parts)
    assert found.expected == whole.expected

    def as_rows(judged: Judged) -> list[tuple[Any, ...]]:
        columns = (judged.candidates.label, judged.candidates.words, judged.right, judged.fine_type)
        return sorted(
            zip(*(column.tolist() for column in columns), map(bytes, judged.candidates.evidence), strict=True)
        )

    assert as_rows(found) == as_rows(whole)
    # What overlaps in one file overlaps in the joined one, and nothing else does.
    chosen = [as_rows(one.select(choose(one.candidates, one.candidates.mean))) for one in (found, whole)]
    assert chosen[0] == chosen[1]
    # A fold never has a part of a sentence.
    assert len(set(found.row.tolist())) == len(set(whole.row.tolist()))


def test_candidates_that_a_file_says_nothing_about_are_left_out(tiny_bundle: Path) -> None:
    with contextlib.closing(Tagger.load(tiny_bundle)) as tagger:
        labels, sentences = tagger.labels, sentences_of(tagger)
        whole = judged_candidates(tagger, sentences)
        persons = judged_candidates(tagger, [replace(s, known=frozenset({"person"})) for s in sentences])
        unknown = judged_candidates(tagger, [replace(s, unknown=frozenset(range(len(s.tags)))) for s in sentences])
    person = labels.types.index("person")
    assert set(persons.candidates.label.tolist()) == {person}
    assert len(persons.right) == (whole.candidates.label == person).sum()
    assert persons.right.sum() == whole.right[whole.candidates.label == person].sum()
    assert 0 < persons.expected < whole.expected
    assert (len(unknown.right), unknown.expected) == (0, 0)
