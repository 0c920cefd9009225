"""Texts with marked spans as training data, CoNLL files with comments, and tags that are spelled in other ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_export.cli.train import train_command
from nerd_export.config import TrainConfig
from nerd_export.data.checks import Sentence, misspelled, sound_sentences
from nerd_export.data.corpus import MissingColumnError, read_file
from nerd_export.data.examples import write_examples
from nerd_export.data.span_data import sentences_of
from nerd_export.scoring.evaluation import text_of
from nerd_export.scoring.f1 import spans_of
from nerd_onnx.errors import OptionError, TrainingDataError
from nerd_onnx.formats.tagged_file import TaggedRow
from tests.support.failures import fails
from tests.support.models import make_checkpoint
from tests.support.profiles import example_count

ROW = TaggedRow(0, "", ())
TEXT = "Ada Byron left London. She wrote\nto Mr. Babbage\u2019s friend \U0001f600 in Turin."
SPANS = [(0, 9, "person"), (15, 21, "location"), (40, 47, "person"), (62, 67, "location")]


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def tagged(path: Path, column: str = "entities", **more: Any) -> Path:
    spans = [{"start": start, "end": end, "label": label, **more} for start, end, label in SPANS]
    return jsonl(path, {"text": TEXT, column: spans})


def found_spans(sentence: Sentence) -> list[tuple[str, str]]:
    """Return text and label of each entity, by the places of its words."""
    text, places = text_of(sentence)
    return [(text[places[a][0] : places[b - 1][1]], label) for a, b, label in spans_of(sentence.tags, "IOB2")]


EXPECTED = [(TEXT[start:end], label) for start, end, label in SPANS]


@pytest.mark.parametrize("column", ["entities", "spans", "labels", "label"])
def test_what_nerd_tag_and_annotation_tools_write_can_be_trained_on(tmp_path: Path, column: str) -> None:
    sentences = sound_sentences(read_file(tagged(tmp_path / "a.jsonl", column), "ner_tags"))
    assert [s.text for s in sentences] == ["Ada Byron left London.", "She wrote", TEXT[33:]]
    assert [one for s in sentences for one in found_spans(s)] == EXPECTED


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"body": "Ada left", "marked": [{"start": 0, "end": 3, "label": "person"}]})
    (sentence,) = sound_sentences(read_file(path, "marked", "body"))
    assert found_spans(sentence) == [("Ada", "person")]


def test_the_text_is_trained_on_as_it_was_written(tmp_path: Path) -> None:
    sentences = sound_sentences(read_file(tagged(tmp_path / "a.jsonl"), "ner_tags"))
    for share in (0.0, 1.0):
        texts = [example.text for example in write_examples(sentences, TrainConfig(plain_share=share))]
        assert texts == [s.text for s in sentences]
    upper = write_examples(sentences, TrainConfig(upper_share=1.0))
    assert [example.text for example in upper] == [str(s.text).upper() for s in sentences]
    for example, sentence in zip(upper, sentences, strict=True):
        assert [example.text[a:b] for a, b in example.spans] == [word.upper() for word in sentence.tokens]
    joined = write_examples(sentences, TrainConfig(join_share=1.0))
    assert joined[0].text == "Ada Byron left London. She wrote"
    for example in joined:
        assert all(example.text[a:b].strip() == example.text[a:b] for a, b in example.spans)


def test_fine_labels_are_read_where_spans_have_them(tmp_path: Path) -> None:
    path = tagged(tmp_path / "a.jsonl", fine_label="person-other")
    sentences = sound_sentences(read_file(path, "fine_ner_tags"))
    assert {tag for s in sentences for tag in s.tags} == {"O", "B-person-other", "I-person-other"}
    with pytest.raises(MissingColumnError):
        read_file(tagged(tmp_path / "b.jsonl"), "fine_ner_tags")


def test_spans_that_overlap_or_lie_outside_are_refused(tmp_path: Path) -> None:
    ada = {"start": 0, "end": 3, "label": "person"}
    with fails(TrainingDataError, "spans-overlap", row=1, start=2):
        read_file(
            jsonl(tmp_path / "a.jsonl", {"text": "Ada B.", "spans": [ada, {**ada, "start": 2, "end": 5}]}), "ner_tags"
        )
    with fails(TrainingDataError, "entity-outside-text", row=1):
        read_file(jsonl(tmp_path / "b.jsonl", {"text": "Ada", "spans": [{**ada, "end": 9}]}), "ner_tags")
    with fails(TrainingDataError, "entity-text-differs", row=1):
        read_file(jsonl(tmp_path / "c.jsonl", {"text": "Ada", "spans": [{**ada, "text": "Bob"}]}), "ner_tags")


@st.composite
def marked_texts(draw: st.DrawFn) -> tuple[str, list[tuple[int, int, str | None]]]:
    text = draw(st.text(st.sampled_from("ab Z.!?\n\t'\u2019-\u00df\u6771\U0001f600"), max_size=60))
    ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pairs = zip(ends[::2], ends[1::2], strict=False)
    return text, [(a, b, draw(st.sampled_from(["person", "location", None]))) for a, b in pairs]


@settings(max_examples=example_count(300))
@given(marked_texts())
def test_every_word_and_every_span_with_a_word_is_kept(case: tuple[str, list[tuple[int, int, str | None]]]) -> None:
    text, marked = case
    sentences = sentences_of(text, marked, ROW)
    letters = [char for s in sentences for word in s.words for char in word]
    assert letters == [char for char in text if not char.isspace()]
    for sentence in sentences:
        assert [sentence.text[a:b] for a, b in sentence.places] == sentence.words
    # Each span is a run of words within one sentence.
    expected = ["".join(text[a:b].split()) for a, b, label in marked if label and text[a:b].strip()]
    tags = [(Sentence(tuple(s.words), tuple(t or "O" for t in s.tags)), s) for s in sentences]
    found = ["".join(s.words[a:b]) for one, s in tags for a, b, _ in spans_of(one.tags, "IOB2")]
    assert found == expected


@pytest.mark.slow
def test_a_model_keeps_its_labels_where_corrections_have_only_some(tmp_path: Path) -> None:
    labels = ("O", "location-GPE", "location-island", "person-actor", "person-other")
    base = make_checkpoint(tmp_path / "base", "bert", labels)
    corrected = tagged(tmp_path / "a.jsonl")
    arguments = ["--train-file", str(corrected), "--validation-file", str(corrected), "--keep-labels"]

    def run(*more: str) -> Any:
        return CliRunner().invoke(train_command, [*arguments, *more])

    (base / "training.json").unlink(missing_ok=True)
    refused = run("--model", str(base), "--level", "fine", "--output", str(tmp_path / "x"))
    assert isinstance(refused.exception, OptionError)  # its folder does not say that its labels have two levels
    assert refused.exception.reason == "other-labels"
    done = run("--model", "default", "--level", "fine", "--output", str(tmp_path / "o"), "--epochs", "1")
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "o" / "config.json").read_text("utf-8"))["id2label"]) == 67


CONLL = "# newdoc id = 7\n# sent_id = 1\nAda B-PER\nleft O\n\n# text = Rome fell\nRome B-LOC\n# O\n"


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_comments_before_a_sentence_are_no_words(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.conll"
    path.write_text(
        "\n".join(
            line if line.startswith("# ") and "=" in line else line.replace(" ", separator)
            for line in CONLL.split("\n")
        )
    )
    assert [s.tokens for s in sound_sentences(read_file(path, "ner_tags"))] == [("Ada", "left"), ("Rome", "#")]


def test_a_number_sign_can_be_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("# O\n1 O\n\n# O\nMetoo B-event\n")
    assert [s.tokens for s in sound_sentences(read_file(path, "ner_tags"))] == [("#", "1"), ("#", "Metoo")]


def test_a_line_with_another_number_of_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("Ada NNP B-PER\nleft O\n")
    with fails(TrainingDataError, "columns-differ", row=2, found=2, expected=3):
        read_file(path, "ner_tags")


@pytest.mark.parametrize(
    "tags",
    [("B_PER", "I_PER"), ("PER-B", "PER-I"), ("1", "0", "7"), ("o", "B-PER"), ("B_PER", "B-PER"), ("PER-B", "B-PER")],
)
def test_spellings_that_would_become_types_are_refused(tags: tuple[str, ...], tmp_path: Path) -> None:
    assert misspelled(("O", *tags)) is not None
    path = jsonl(tmp_path / "a.jsonl", {"tokens": ["a"] * len(tags), "ner_tags": list(tags)})
    with fails(TrainingDataError, "faulty-rows", problem="misspelled-tag"):
        sound_sentences(read_file(path, "ner_tags"))


@pytest.mark.parametrize(
    "tags", [("vitamin-B", "protein"), ("B_cell", "T_cell"), ("person", "U-boat"), ("B-PER", "I-PER"), ()]
)
def test_other_names_are_types(tags: tuple[str, ...]) -> None:
    assert misspelled(("O", *tags)) is None
