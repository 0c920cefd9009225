"""What a text shows limits entities in every way of decoding: lines, tabs and lengths, whatever the tags say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.decoding import LONGEST_WITHOUT_CALIBRATION, Decoder
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.labels import LabelSet
from tests.support.calibrations import weighing
from tests.support.models import train_tokenizer
from tests.support.profiles import example_count

IO = LabelSet(("O", "PER", "LOC"))
BIO = LabelSet(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
BILOU = LabelSet(("O", "B-PER", "I-PER", "L-PER", "U-PER", "B-LOC", "I-LOC", "L-LOC", "U-LOC"))
SCHEMES = {"IO": IO, "BIO": BIO, "BILOU": BILOU}
PIECES = ["Anna", "Bob", "a@b.c", "Jean-Pierre", ":", "\U0001f600", " ", " ", "\n", "\r\n", "\t", "\n\n", "\n \n"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, TextEncoder]:
    """Return an encoder that joins touching words, and one that does not."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, "bert")
    return {joins: TextEncoder(folder / "tokenizer.json", joins_touching=joins) for joins in (False, True)}


def calibration_of(labels: LabelSet) -> ScoreCalibration:
    return weighing([0.0] * len(labels.types), mean=(1.0, -1.0))


def entities(
    encoder: TextEncoder, labels: LabelSet, texts: list[str], tags: list[int], *, calibrated: bool
) -> list[list[str]]:
    """
    Return the entities of texts.

    :param tags: index of the tag of each word; they are repeated if there are more words
    """
    encoded = encoder.encode(texts)
    words = np.arange(len(encoded.word_token))
    logits = np.zeros((len(words), len(labels.names)), np.float32)
    logits[words, np.resize(tags, len(words)) % len(labels.names)] = 9
    decoder = Decoder(labels, calibration_of(labels) if calibrated else None)
    spans = decoder.spans(encoded, [decoder.decide(words, logits)])
    found: list[list[str]] = [[] for _ in texts]
    for row, start, end in zip(spans.row.tolist(), spans.start.tolist(), spans.end.tolist(), strict=True):
        found[row].append(texts[row][start:end])
    return found


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    texts=st.lists(st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join), min_size=1, max_size=3),
    tags=st.lists(st.integers(0, 8), min_size=1, max_size=30),
)
@settings(max_examples=example_count(60), deadline=None)
def test_no_entity_crosses_two_line_breaks_or_a_tab(
    encoders: dict[bool, TextEncoder], scheme: str, texts: list[str], tags: list[int], *, joins: bool, calibrated: bool
) -> None:
    found = entities(encoders[joins], SCHEMES[scheme], texts, tags, calibrated=calibrated)
    for entity in (entity for row in found for entity in row):
        assert len(re.findall(r"\r\n|\n|\r", entity)) <= 1
        assert "\t" not in entity


GOES_ON = {"IO": [1], "BIO": [2], "BILOU": [2]}  # PER, I-PER


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna Bob\nBob Anna\nAnna", ["Anna Bob", "Bob Anna", "Anna"]),
        ("Anna\tBob", ["Anna", "Bob"]),
        ("Anna\n\nBob", ["Anna", "Bob"]),
        ("Anna Bob", ["Anna Bob"]),
        (" ".join(["Anna"] * 40), [" ".join(["Anna"] * 40)]),
        (" ".join(["Anna"] * (LONGEST_WITHOUT_CALIBRATION + 1)), []),
    ],
)
def test_tags_that_go_on_end_where_the_text_shows_it(
    encoders: dict[bool, TextEncoder], scheme: str, text: str, expected: list[str], *, calibrated: bool
) -> None:
    found = entities(encoders[False], SCHEMES[scheme], [text, text], GOES_ON[scheme], calibrated=calibrated)
    assert found == [expected, expected]


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_name_in_a_wrapped_sentence_stays_one(encoders: dict[bool, TextEncoder], *, calibrated: bool) -> None:
    text = "met Anna\nBob and"
    for labels, tags in ((IO, [0, 1, 1, 0]), (BIO, [0, 1, 2, 0]), (BILOU, [0, 1, 3, 0])):
        assert entities(encoders[False], labels, [text], tags, calibrated=calibrated) == [["Anna\nBob"]]


def test_the_longest_entity_without_a_calibration(encoders: dict[bool, TextEncoder]) -> None:
    longest = " ".join(["Anna"] * LONGEST_WITHOUT_CALIBRATION)
    assert entities(encoders[False], BIO, [longest], [2], calibrated=False) == [[longest]]


def test_a_part_of_a_line_begins_where_its_tags_say(encoders: dict[bool, TextEncoder]) -> None:
    """Bob begins no line, so the line break after him is one inside of his name."""
    found = entities(encoders[False], BIO, ["Anna Bob\nBob met"], [1, 1, 2, 0], calibrated=False)
    assert found == [["Anna", "Bob\nBob"]]
