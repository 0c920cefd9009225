"""Words to entities, against a plain reference that reads tags one after the other."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.inference.arrays import Floats, ragged_arange
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.candidates import EVIDENCE
from nerd_onnx.inference.decoding import Decoder, Spans, softmax
from nerd_onnx.inference.encoding import EncodedTexts
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.text_borders import TextBorders
from tests.support.calibrations import weighing
from tests.support.profiles import example_count

BILOU = LabelSet(("O", "B-PER", "I-PER", "L-PER", "U-PER", "B-LOC", "I-LOC", "L-LOC", "U-LOC"))
BIO = LabelSet(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
IO = LabelSet(("O", "PER", "LOC"))
FINE = LabelSet.hierarchical(("O", "person-actor", "art-film", "person-other"))


def encoded(words: list[int]) -> EncodedTexts:
    """Make texts of given numbers of one-token words, each word two characters wide with a space after it."""
    total = sum(words)
    number = np.concatenate([np.arange(n) for n in words] or [np.empty(0, np.int64)]).astype(np.int64)
    bounds = np.concatenate(([0], np.cumsum(words))).astype(np.int64)
    return EncodedTexts(
        np.zeros(total, np.int64), number * 3 + 2, bounds, np.arange(total), number * 3, number * 3 + 2, bounds
    )


def plainly(labels: LabelSet) -> ScoreCalibration:
    """Return a calibration that weighs nothing but the mean probability of the words."""
    return weighing([0.0] * len(labels.types), mean=(1.0, -1.0))


def decode(
    labels: LabelSet, logits: Floats, words: list[int], parts: int = 1, calibration: ScoreCalibration | None = None
) -> Spans:
    decoder = Decoder(labels, calibration)
    order = np.random.default_rng(0).permutation(len(logits))
    decisions = [decoder.decide(part, logits[part]) for part in np.array_split(order, parts)]
    return decoder.spans(encoded(words), decisions)


def tags(labels: LabelSet, *names: str) -> Floats:
    logits = np.zeros((len(names), len(labels.names)), np.float32)
    for i, name in enumerate(names):
        logits[i, labels.names.index(name)] = 5
    return logits


def shown(labels: LabelSet, spans: Spans) -> list[tuple[int, int, str]]:
    return [
        (int(s) // 3, int(e) // 3 + 1, labels.types[k])
        for s, e, k in zip(spans.start, spans.end, spans.label, strict=True)
    ]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (BIO, ["B-PER", "I-PER", "O", "B-LOC"], [(0, 2, "PER"), (3, 4, "LOC")]),
        (BIO, ["B-PER", "B-PER", "I-PER"], [(0, 1, "PER"), (1, 3, "PER")]),
        (BIO, ["I-PER", "I-LOC", "I-LOC"], [(0, 1, "PER"), (1, 3, "LOC")]),
        (BIO, ["O", "O"], []),
        (BILOU, ["B-PER", "L-PER", "U-PER", "U-PER"], [(0, 2, "PER"), (2, 3, "PER"), (3, 4, "PER")]),
        (BILOU, ["L-PER", "I-PER", "O"], [(0, 1, "PER"), (1, 2, "PER")]),
        (IO, ["PER", "PER", "LOC", "O", "PER"], [(0, 2, "PER"), (2, 3, "LOC"), (4, 5, "PER")]),
    ],
)
def test_schemes(labels: LabelSet, names: list[str], expected: list[tuple[int, int, str]]) -> None:
    assert shown(labels, decode(labels, tags(labels, *names), [len(names)])) == expected


def test_an_entity_never_crosses_texts() -> None:
    spans = decode(IO, tags(IO, "PER", "PER", "PER"), [0, 2, 0, 1, 0])
    assert list(zip(spans.row.tolist(), spans.start.tolist(), spans.end.tolist(), strict=True)) == [
        (1, 0, 5),
        (3, 0, 2),
    ]


def test_coarse_is_decided_by_the_sum_of_its_fine_types() -> None:
    logits = np.log(np.array([[0.1, 0.26, 0.36, 0.28]], np.float32))
    spans = decode(FINE, logits, [1])
    assert FINE.types[spans.label[0]] == "person"
    assert FINE.fine_types[spans.fine[0]] == "person-other"
    assert spans.score[0] == pytest.approx(0.54, abs=1e-6)


def test_fine_type_is_the_likeliest_over_the_whole_entity() -> None:
    logits = np.log(np.array([[0.05, 0.6, 0.05, 0.3], [0.05, 0.1, 0.05, 0.8]], np.float32))
    spans = decode(FINE, logits, [2])
    assert [FINE.fine_types[k] for k in spans.fine] == ["person-other"]
    assert spans.score[0] == pytest.approx(0.9, abs=1e-6)


def test_fine_types_are_chosen_by_their_weighted_probability_within_the_type() -> None:
    logits = np.log(np.array([[0.05, 0.5, 0.05, 0.4], [0.05, 0.45, 0.05, 0.45]], np.float32))
    for weights, chosen in (([1.0, 1.0, 1.0], "person-actor"), ([1.0, 99.0, 1.2], "person-other")):
        calibration = replace(plainly(FINE), fine_weights=np.array(weights))
        spans = decode(FINE, logits, [2], calibration=calibration)
        assert [FINE.fine_types[k] for k in spans.fine] == [chosen]
        assert FINE.types[spans.label[0]] == "person"


def reference(names: list[str]) -> list[tuple[int, int, str]]:
    """Read tags one after the other, as conlleval does."""
    spans: list[tuple[int, int, str]] = []
    before = ("O", "")
    for i, name in enumerate(names):
        prefix, kind = ("O", "") if name == "O" else (name.split("-", 1) if "-" in name else ("I", name))
        if kind:
            goes_on = before[1] == kind and prefix not in "BUS" and before[0] not in "LUES"
            if goes_on:
                spans[-1] = (spans[-1][0], i + 1, kind)
            else:
                spans.append((i, i + 1, kind))
        before = (prefix, kind)
    return spans


@given(st.sampled_from([BIO, BILOU, IO]), st.lists(st.integers(0, 8), max_size=40), st.integers(1, 5))
@settings(deadline=None)
def test_any_tags_are_read_as_the_reference_reads_them(labels: LabelSet, choice: list[int], parts: int) -> None:
    names = [labels.names[k % len(labels.names)] for k in choice]
    assert shown(labels, decode(labels, tags(labels, *names), [len(names)], parts)) == reference(names)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_a_word_is_decided_alike_alone_and_among_others(rows: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(rows, 67)).astype(np.float32) * 4
    labels = LabelSet.hierarchical(("O", *(f"c{i % 8}-f{i}" for i in range(66))))
    decoder = Decoder(labels)
    together = decoder.decide(np.arange(rows), logits)
    for i in range(rows):
        alone = decoder.decide(np.array([0]), logits[i : i + 1])
        assert alone.cls[0] == together.cls[i]
        assert alone.probability[0] == together.probability[i]
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1, rtol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=10))
def test_ragged_arange(pairs: list[tuple[int, int]]) -> None:
    begins = np.array([b for b, _ in pairs], dtype=np.int64)
    ends = begins + np.array([n for _, n in pairs], dtype=np.int64)
    expected = [i for b, e in zip(begins, ends, strict=True) for i in range(b, e)]
    assert ragged_arange(begins, ends).tolist() == expected


@given(st.sampled_from([BIO, BILOU, IO, FINE]), st.lists(st.integers(0, 8), max_size=40), st.integers(1, 5))
@settings(deadline=None)
def test_sure_words_make_the_same_entities_with_and_without_calibration(
    labels: LabelSet, choice: list[int], parts: int
) -> None:
    logits = 3 * tags(labels, *(labels.names[k % len(labels.names)] for k in choice))
    plain, judged = (decode(labels, logits, [len(choice)], parts, c) for c in (None, plainly(labels)))
    for column in ("row", "start", "end", "label", "fine"):
        np.testing.assert_array_equal(getattr(judged, column), getattr(plain, column))


def test_candidates_get_their_evidence_from_the_labels_of_every_level() -> None:
    labels = LabelSet.hierarchical(("O", "B-PER-a", "I-PER-a", "B-PER-b", "I-PER-b", "B-LOC-c", "I-LOC-c"))
    shares = np.array(
        [
            [0.9, 0.02, 0.01, 0.02, 0.02, 0.02, 0.01],
            [0.2, 0.3, 0.1, 0.2, 0.05, 0.05, 0.1],
            [0.3, 0, 0.4, 0.1, 0, 0, 0.2],
        ]
    )
    decoder = Decoder(labels, finds_candidates=True)
    logits = np.log(np.maximum(shares, 1e-12)).astype(np.float32)
    found = decoder.candidates(encoded([3]), [decoder.decide(np.arange(3), logits)])
    ((i,),) = np.nonzero((found.first == 1) & (found.last == 2) & (found.label == labels.types.index("PER")))
    by_hand = {
        "mean": (0.65 + 0.5) / 2,
        "least": 0.5,
        "fine": (0.4 + 0.4) / 2,  # B- and I- of the likeliest
        "rival": (0.15 + 0.2) / 2,
        "outside": (0.2 + 0.3) / 2,
        "before": 1.0,  # a B- cannot go on with what is before
        "after": 1.0,
        "outside_before": 0.9,
        "outside_after": 1.0,
    }
    assert dict(zip(EVIDENCE, found.evidence[i].tolist(), strict=True)) == pytest.approx(by_hand, abs=1e-6)


def test_without_an_outside_label_nothing_is_told_by_it() -> None:
    labels = LabelSet(("B-PER", "I-PER", "B-LOC", "I-LOC"))
    decoder = Decoder(labels, finds_candidates=True)
    found = decoder.candidates(encoded([2, 3]), [decoder.decide(np.arange(5), np.eye(5, 4, dtype=np.float32))])
    for name in ("outside", "outside_before", "outside_after"):
        assert (found.evidence[:, EVIDENCE.index(name)] == 1).all()


def test_of_two_ways_to_read_an_entity_the_likelier_one_is_taken() -> None:
    logits = np.log(np.array([[0.08, 0.9, 0.02], [0.5, 0.45, 0.05], [0.08, 0.9, 0.02], [0.35, 0.05, 0.6]], np.float32))
    assert shown(IO, decode(IO, logits, [4])) == [(0, 1, "PER"), (2, 3, "PER"), (3, 4, "LOC")]
    sure_of_borders = weighing([0.0, 0.0], before=(8.0, 0.0), after=(8.0, 0.0))
    assert shown(IO, decode(IO, logits, [4], calibration=sure_of_borders)) == [(0, 3, "PER"), (3, 4, "LOC")]


def test_a_doubtful_word_parts_no_entity_whatever_border_it_would_have() -> None:
    sure = [0.01, 0.01, 0.97, 0.005, 0.005]
    borders = weighing([0.0, 0.0], mean=(0.3, -0.3), before=(8.0, 0.0), after=(8.0, 0.0))
    for begins, goes_on in ((0.23, 0.21), (0.21, 0.23)):
        words = np.log(np.array([sure, [0.55, begins, goes_on, 0.005, 0.005], sure], np.float32))
        assert shown(BIO, decode(BIO, words, [3])) == [(0, 1, "PER"), (2, 3, "PER")]
        assert shown(BIO, decode(BIO, words, [3], calibration=borders)) == [(0, 3, "PER")]


@settings(deadline=None, max_examples=example_count(30))
@given(st.sampled_from([BIO, BILOU, IO, FINE]), st.integers(0, 2**32 - 1), st.booleans())
def test_texts_are_decoded_to_the_same_bits_alone_and_among_others(
    labels: LabelSet,
    seed: int,
    calibrated: bool,  # noqa: FBT001
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 60, 12).tolist()
    logits = (rng.normal(size=(sum(lengths), len(labels.names))) * 2).astype(np.float32)
    weights = {name: tuple(rng.normal(0.5, 0.3, 2).tolist()) for name in EVIDENCE}
    fitted = weighing(rng.normal(0, 0.3, len(labels.types)).tolist(), word_weight=0.2, **weights)
    calibration = fitted if calibrated else None
    together = decode(labels, logits, lengths, parts=5, calibration=calibration)
    first = np.concatenate(([0], np.cumsum(lengths)))
    alone = [
        replace(decode(labels, logits[a:b], [b - a], calibration=calibration), row=np.empty(0, np.int64))
        for a, b in pairwise(first.tolist())
    ]
    for column in ("start", "end", "label", "fine", "score"):
        np.testing.assert_array_equal(
            getattr(together, column), np.concatenate([getattr(spans, column) for spans in alone])
        )


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_model_that_knows_nothing_but_outside_finds_nothing(calibrated: bool) -> None:  # noqa: FBT001
    outside = LabelSet(("O",))
    assert (
        len(decode(outside, np.zeros((3, 1), np.float32), [3], calibration=plainly(outside) if calibrated else None))
        == 0
    )


@pytest.mark.parametrize("calibrated", [False, True])
def test_no_words_give_no_entities(calibrated: bool) -> None:  # noqa: FBT001
    calibration = plainly(FINE) if calibrated else None
    assert len(decode(FINE, np.empty((0, 4), np.float32), [0, 0], calibration=calibration)) == 0
    assert len(decode(FINE, tags(FINE, "O", "O"), [2], calibration=calibration)) == 0
    assert len(Spans.concatenate([])) == 0


def bordered(words: int, **given: list[int]) -> EncodedTexts:
    """Return one text with borders at the given words."""
    masks = {name: np.isin(np.arange(words), given.get(name, [])) for name in _BORDERS}
    return replace(encoded([words]), borders=TextBorders(**masks))


_BORDERS = ("separated", "broken", "begins_line", "ends_line", "symbols")


@pytest.mark.parametrize("calibrated", [False, True])
def test_what_the_text_shows_separates_entities(calibrated: bool) -> None:  # noqa: FBT001
    """Where tags mark no beginnings: a tab before 2, a list line before 4, and a wrapped line before 6."""
    text = bordered(8, separated=[0, 2], broken=[4, 6], begins_line=[0, 2, 4, 6], ends_line=[1, 3])
    decoder = Decoder(IO, plainly(IO) if calibrated else None)
    for names, expected in (
        (["PER"] * 8, [(0, 2, "PER"), (2, 4, "PER"), (4, 6, "PER"), (6, 8, "PER")]),
        (["PER"] * 4 + ["O"] + ["PER"] * 3, [(0, 2, "PER"), (2, 4, "PER"), (5, 8, "PER")]),
        (["PER"] * 2 + ["LOC"] * 3 + ["O"] * 3, [(0, 2, "PER"), (2, 4, "LOC"), (4, 5, "LOC")]),
    ):
        spans = decoder.spans(text, [decoder.decide(np.arange(8), 3 * tags(IO, *names))])
        assert shown(IO, spans) == expected


def test_the_borders_of_a_text_end_entities_whatever_the_tags_say() -> None:
    text = bordered(4, separated=[0, 1], broken=[2], begins_line=[0, 1, 2], ends_line=[0, 1])
    decoder = Decoder(BIO)
    logits = tags(BIO, "B-PER", "I-PER", "I-PER", "B-PER")
    spans = decoder.spans(text, [decoder.decide(np.arange(4), logits)])
    assert shown(BIO, spans) == [(i, i + 1, "PER") for i in range(4)]


@pytest.mark.parametrize("calibrated", [False, True])
def test_no_entity_begins_or_ends_with_a_symbol(calibrated: bool) -> None:  # noqa: FBT001
    text = bordered(7, separated=[0], symbols=[0, 2, 4, 6])
    decoder = Decoder(IO, plainly(IO) if calibrated else None)
    spans = decoder.spans(text, [decoder.decide(np.arange(7), 3 * tags(IO, *["PER"] * 5, "O", "PER"))])
    assert shown(IO, spans) == [(1, 4, "PER")]
    assert spans.score[0] == pytest.approx(float(softmax(3 * tags(IO, "PER"))[0, 1]), abs=2e-3)


def test_an_entity_has_no_more_words_than_calibration_saw() -> None:
    logits = 3 * tags(IO, *["PER"] * 6, "O", *["PER"] * 5)
    assert shown(IO, decode(IO, logits, [12], calibration=replace(plainly(IO), maximum_words=5))) == [(7, 12, "PER")]
    assert shown(IO, decode(IO, logits, [12], calibration=replace(plainly(IO), maximum_words=6)))[0] == (0, 6, "PER")
