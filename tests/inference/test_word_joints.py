"""Entities that are parts of one written word are one entity, where the model begins one at every piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nerd_onnx.errors import OptionError
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.decoding import Decoder
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.options import TagOptions
from nerd_onnx.tagger import Tagger
from tests.support.calibrations import weighing
from tests.support.failures import fails
from tests.support.models import train_tokenizer

PII = LabelSet(("O", "B-EMAIL", "I-EMAIL", "B-PER", "I-PER"))
OF_LETTER = {"E": "B-EMAIL", "e": "I-EMAIL", "P": "B-PER", "p": "I-PER", ".": "O"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, "bert")
    return folder / "tokenizer.json"


def entities(
    file: Path, text: str, tags: str, *, joins: bool, calibration: ScoreCalibration | None = None
) -> list[str]:
    """Return the entities of a text: one letter of ``tags`` is the tag of one word."""
    encoded = TextEncoder(file, joins_touching=joins).encode(["Paris", text, "Paris"])
    logits = np.zeros((len(tags) + 2, len(PII.names)), np.float32)
    for i, tag in enumerate(f"P{tags}P"):
        logits[i, PII.names.index(OF_LETTER[tag])] = 9
    decoder = Decoder(PII, calibration)
    spans = decoder.spans(encoded, [decoder.decide(np.arange(len(logits)), logits)])
    assert spans.score.min() > 0.9
    assert spans.row.tolist()[:: max(1, len(spans) - 1)] == [0, 2]
    inside = spans.select(spans.row == 1)
    return [f"{PII.types[k]} {text[s:e]}" for s, e, k in zip(inside.start, inside.end, inside.label, strict=True)]


CASES = [
    ("to maria.s@example.com now", ".EEEEEEE.", ["EMAIL maria.s@example.com"]),
    ("to a@b.com c@d.com", ".EEEEEEEEEE", ["EMAIL a@b.com", "EMAIL c@d.com"]),
    ("Anna Bob", "PP", ["PER Anna", "PER Bob"]),
    ("Jean-Pierre", "P.P", ["PER Jean-Pierre"]),
    ("O'Brien's", "P.P..", ["PER O'Brien"]),
    ("O\u2019Brien", "P.p", ["PER O\u2019Brien"]),
    ("Anna - Bob", "P.P", ["PER Anna", "PER Bob"]),
    ("Anna/Bob", "P.P", ["PER Anna", "PER Bob"]),
    ("Anna-a@b.c", "P.EEEEE", ["PER Anna", "EMAIL a@b.c"]),
    ("\u6771\u4eac", "PP", ["PER \u6771", "PER \u4eac"]),
    ("Anna-", "P.", ["PER Anna"]),
]


@pytest.mark.parametrize(("text", "tags", "expected"), CASES)
def test_parts_of_a_written_word_are_one_entity(file: Path, text: str, tags: str, expected: list[str]) -> None:
    assert entities(file, text, tags, joins=True) == expected


def test_the_scheme_is_read_as_it_is(file: Path) -> None:
    assert entities(file, "a@b.com", "EEEEE", joins=False) == [f"EMAIL {part}" for part in ("a", "@", "b", ".", "com")]
    assert entities(file, "Jean-Pierre", "P.P", joins=False) == ["PER Jean", "PER Pierre"]


def test_candidates_go_on_over_a_joint(file: Path) -> None:
    given = {"calibration": weighing([0.0, 0.0], mean=(1.0, -1.0))}
    assert entities(file, "to a@b.com Bob Bob", ".EEEEEPP", joins=True, **given) == [
        "EMAIL a@b.com",
        "PER Bob",
        "PER Bob",
    ]
    assert len(entities(file, "to a@b.com Bob Bob", ".EEEEEPP", joins=False, **given)) == 7


def test_the_fine_label_of_joined_parts_is_that_of_the_parts(file: Path) -> None:
    labels = LabelSet.hierarchical(("O", "person-actor", "person-other"))
    encoded = TextEncoder(file, joins_touching=True).encode(["Jean-Pierre"])
    logits = 5 * np.array([[0, 0, 1], [1, 0, 0], [0, 0, 1]], np.float32)
    decoder = Decoder(labels)
    spans = decoder.spans(encoded, [decoder.decide(np.arange(3), logits)])
    assert (spans.start.tolist(), spans.end.tolist()) == ([0], [11])
    assert [labels.fine_types[k] for k in spans.fine] == ["person-other"]


def test_the_option_and_what_a_model_has_by_itself(tiny_bundle: Path) -> None:
    assert Tagger.load().join == "scheme"  # its word rule is treebank
    assert Tagger.load(tiny_bundle).join == "touching"
    assert Tagger.load(tiny_bundle, join="scheme").join == "scheme"
    with fails(OptionError, "bad-value", option="join", found="letters"):
        TagOptions(join="letters")  # type: ignore[arg-type]
