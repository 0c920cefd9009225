"""Training on files that are labelled for different types, at different levels, and with their own shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nerd_export.cli.train import FileWithShare, train_command
from nerd_export.config import TrainConfig
from nerd_export.data.checks import Sentence
from nerd_export.data.examples import write_examples
from nerd_export.data.partial_tags import PartialTag, Targets
from nerd_export.data.prepare import LabelledFile, prepare
from nerd_export.data.training_data import TrainingData
from nerd_export.training.features import IGNORED
from nerd_export.training.loss import Mix, mixed_loss
from nerd_export.training.metrics import Metrics
from nerd_onnx.errors import OptionError, TrainingDataError
from nerd_onnx.inference.labels import LabelSet
from tests.support.failures import fails
from tests.support.models import FINE_LABELS

LABELS = LabelSet.hierarchical(FINE_LABELS)  # O, location-GPE, location-island, person-actor, person-other
PERSON = frozenset({"person"})
OUTSIDE_OF_PERSON = PartialTag("O", PERSON, is_coarse=True)
ANY_PERSON = PartialTag("person", PERSON, is_coarse=True)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("tag", "allowed"),
    [
        (OUTSIDE_OF_PERSON, [1, 1, 1, 0, 0]),
        (ANY_PERSON, [0, 0, 0, 1, 1]),
        (PartialTag("O", None, is_coarse=True), [1, 0, 0, 0, 0]),
        (PartialTag("O", frozenset({"person", "location", "event"}), is_coarse=False), [1, 0, 0, 0, 0]),
        (PartialTag("location-island", PERSON, is_coarse=False), [0, 0, 1, 0, 0]),
    ],
)
def test_a_partial_tag_allows_the_labels_that_it_leaves_open(tag: PartialTag, allowed: list[int]) -> None:
    assert tag.allowed(LABELS).tolist() == [bool(value) for value in allowed]


def test_a_coarse_tag_keeps_its_prefix() -> None:
    labels = LabelSet.hierarchical(("O", "B-person-actor", "I-person-actor", "B-person-other", "I-person-other"))
    assert PartialTag("B-person", None, is_coarse=True).allowed(labels).tolist() == [False, True, False, True, False]


def test_a_tag_without_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="event"):
        PartialTag("event", None, is_coarse=True).allowed(LABELS)


def loss_of(logits: Any, targets: list[int], numbers: Targets, **mix: Any) -> Any:
    options = Mix(class_of_label=LABELS.class_of_label.tolist(), allowed=numbers.allowed, **mix)
    return mixed_loss(logits, torch.tensor([targets]), None, None, options)


@given(st.integers(0, 100), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_loss_of_a_partial_tag_is_that_of_the_summed_probability(seed: int, coarse: float) -> None:
    numbers = Targets(LABELS, [OUTSIDE_OF_PERSON, ANY_PERSON])
    torch.manual_seed(seed)
    logits = torch.randn(1, 3, 5)
    p = logits.softmax(-1)[0]
    found = loss_of(
        logits, [numbers.ids[OUTSIDE_OF_PERSON], numbers.ids[ANY_PERSON], IGNORED], numbers, coarse_share=coarse
    )
    expected = -(p[0, :3].sum().log() + p[1, 3:].sum().log()) / 2
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_an_o_of_persons_never_teaches_against_a_location() -> None:
    numbers = Targets(LABELS, [OUTSIDE_OF_PERSON])
    logits = torch.tensor([[[0.0, 2.0, 1.0, 3.0, 0.5]]], requires_grad=True)
    loss_of(logits, [numbers.ids[OUTSIDE_OF_PERSON]], numbers).backward()
    assert logits.grad is not None
    # A step against the gradient raises what may be right, and lowers the persons.
    assert (logits.grad[0, 0, :3] < 0).all()
    assert (logits.grad[0, 0, 3:] > 0).all()


def test_a_teacher_fills_what_a_tag_leaves_open_and_contradicts_none() -> None:
    numbers = Targets(LABELS, [OUTSIDE_OF_PERSON])
    logits = torch.zeros(1, 2, 5, requires_grad=True)
    # Of the first word the teacher says person, of the second location or, less likely, person.
    soft = torch.tensor([[[0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.6, 0.0, 0.4, 0.0]]])
    mix = Mix(soft_share=1.0, class_of_label=LABELS.class_of_label.tolist(), allowed=numbers.allowed)
    target = numbers.ids[OUTSIDE_OF_PERSON]
    mixed_loss(logits, torch.tensor([[target, target]]), None, soft, mix).backward()
    assert logits.grad is not None
    assert not logits.grad[0, 0].any()
    assert logits.grad[0, 1].argmin() == 1
    assert logits.grad[0, 1, 3] > 0


def test_shares_say_how_often_a_sentence_is_written() -> None:
    def sentences(word: str, share: float) -> list[Sentence]:
        return [Sentence((f"{word}{i}",), ("O",), share=share) for i in range(400)]

    given = sentences("half", 0.5) + sentences("once", 1.0) + sentences("more", 2.25)
    texts = [example.text for example in write_examples(given, TrainConfig())]
    counts = {word: sum(text.startswith(word) for text in texts) for word in ("half", "once", "more")}
    assert 150 < counts["half"] < 250
    assert counts["once"] == 400
    assert 850 < counts["more"] < 950
    assert texts == [example.text for example in write_examples(given, TrainConfig())]


def test_sentences_of_different_sets_are_not_joined() -> None:
    given = [Sentence(("a",), ("O",)), Sentence(("b",), ("O",), known=PERSON), Sentence(("c",), ("O",), known=PERSON)]
    examples = write_examples(given, TrainConfig(join_share=1.0))
    assert [example.text for example in examples] == ["a", "b c", "c"]


FINE: list[dict[str, Any]] = [
    {
        "tokens": ["Ada", "met", "Bob", "on", "Malta"],
        "fine_ner_tags": ["person-actor", "O", "person-other", "O", "location-island"],
    },
    {"tokens": ["Rome", "fell"], "fine_ner_tags": ["location-GPE", "O"]},
]
COARSE: list[dict[str, Any]] = [
    {"tokens": ["@", "Ada", "loves", "Rome"], "ner_tags": ["O", "B-person", "O", "O"], "known_types": ["person"]},
    {"tokens": ["Bob", "Dy", "left", "it"], "ner_tags": ["B-person", "I-person", "O", None], "known_types": ["person"]},
]


def files(folder: Path) -> tuple[Path, Path]:
    return write_jsonl(folder / "wiki.jsonl", FINE), write_jsonl(folder / "tweets.jsonl", COARSE)


def prepared(
    train: list[LabelledFile], validation: list[LabelledFile], **options: Any
) -> tuple[TrainingData, list[str]]:
    notes: list[str] = []
    config = TrainConfig(**{"level": "fine", "null_tags": "unknown", **options})
    data = prepare(config, train, validation, None, drop_bad_rows=False, drop_shared=False, note=notes.append)
    return data, notes


def test_files_of_both_levels_and_schemes_become_one_set(tmp_path: Path) -> None:
    wiki, tweets = files(tmp_path)
    both = [LabelledFile(wiki), LabelledFile(tweets, share=0.5)]
    data, notes = prepared(both, [LabelledFile(tweets)])
    assert data.labels.names == ("O", "location-GPE", "location-island", "person-actor", "person-other")
    first, second = data.train[2:]
    assert first.targets() == [OUTSIDE_OF_PERSON, ANY_PERSON, OUTSIDE_OF_PERSON, OUTSIDE_OF_PERSON]
    assert second.targets() == [ANY_PERSON, ANY_PERSON, OUTSIDE_OF_PERSON, None]
    assert [s.share for s in data.train] == [1.0, 1.0, 0.5, 0.5]
    assert data.train[0].targets()[0] == "person-actor"
    assert any(str(tweets) in text for text in notes)


def test_known_types_of_a_file_are_those_of_the_option(tmp_path: Path) -> None:
    wiki, tweets = files(tmp_path)
    data, _ = prepared([LabelledFile(wiki), LabelledFile(tweets, known=frozenset({"location"}))], [LabelledFile(wiki)])
    assert data.train[2].known == frozenset({"location"})
    assert data.train[0].known is None


def test_a_coarse_file_with_a_type_that_no_fine_file_has_is_refused(tmp_path: Path) -> None:
    wiki, _ = files(tmp_path)
    other = write_jsonl(tmp_path / "other.jsonl", [{"tokens": ["Oscar"], "ner_tags": ["B-event"]}])
    with fails(TrainingDataError, "faulty-rows", problem="unknown-tag"):
        prepared([LabelledFile(wiki), LabelledFile(other)], [LabelledFile(wiki)])


def test_fine_tags_need_one_file_that_has_them(tmp_path: Path) -> None:
    _, tweets = files(tmp_path)
    with fails(TrainingDataError, "column-missing", column="fine_ner_tags"):
        prepared([LabelledFile(tweets)], [LabelledFile(tweets)])


@pytest.mark.parametrize("known", ["person", [1], {"a": 1}])
def test_known_types_must_be_a_list_of_names(tmp_path: Path, known: object) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"tokens": ["Ada"], "ner_tags": ["person"], "known_types": known}])
    with fails(TrainingDataError, "faulty-rows", problem="not-known-types"):
        prepared([LabelledFile(bad)], [LabelledFile(bad)], level="coarse")


def test_a_file_may_hold_several_splits(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {**row, "split": split} for row, split in zip(FINE, ("train", "validation"), strict=True)
    ]
    both = LabelledFile(write_jsonl(tmp_path / "both.jsonl", rows))
    data, _ = prepared([both, LabelledFile(files(tmp_path)[0])], [both])
    assert [s.tokens for s in data.train] == [("Ada", "met", "Bob", "on", "Malta")] + [tuple(r["tokens"]) for r in FINE]
    assert [s.tokens for s in data.validation] == [("Rome", "fell")]


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"words": row["tokens"], "my_tags": row["fine_ner_tags"]} for row in FINE]
    file = LabelledFile(write_jsonl(tmp_path / "own.jsonl", rows))
    data, _ = prepared([file], [file], words_column="words", tags_column="my_tags")
    assert data.train[0].tags == tuple(FINE[0]["fine_ner_tags"])


def test_predictions_of_types_that_a_set_does_not_know_are_left_out() -> None:
    numbers = Targets(LABELS, [OUTSIDE_OF_PERSON, ANY_PERSON])
    ids = numbers.ids
    targets = np.array([[ids[ANY_PERSON], ids[OUTSIDE_OF_PERSON], ids[OUTSIDE_OF_PERSON], IGNORED]])
    location, person = LABELS.names.index("location-GPE"), LABELS.names.index("person-actor")
    decided = np.array([[[label, LABELS.class_of_label[label]] for label in (person, location, 0, person)]])
    metrics = Metrics(LABELS, numbers, ["tweets"])
    scores = metrics(SimpleNamespace(label_ids=(targets, np.array([0])), predictions=decided))
    assert scores["f1"] == scores["f1_of_tweets"] == scores["precision"] == 1.0


def test_a_mixture_is_trained_and_scored_by_set(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    wiki, tweets = files(tmp_path)
    output = tmp_path / "model"
    result = CliRunner().invoke(
        train_command,
        [
            "--model", str(checkpoint("bert")), "--level", "fine", "--null-tags", "unknown", "--epochs", "2",
            "--train-file", str(wiki), "--train-file", f"{tweets}=2", "--group-by-length", "--coarse-share", "0.3",
            "--validation-file", str(wiki), "--validation-file", str(tweets), "--output", str(output),
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table = json.loads((output / "training.json").read_text("utf-8"))["table"]
    assert [set(row["f1_by_set"]) for row in table] == [{"wiki.jsonl", "tweets.jsonl"}] * 2
    for row in table:
        assert row["f1"] == pytest.approx(np.mean(list(row["f1_by_set"].values())))
        assert np.isfinite(row["validation_loss"])
    assert "| F1 by validation set | epoch 1.00 | epoch 2.00 |" in result.output


def test_shares_are_read_from_the_end_of_the_name(tmp_path: Path) -> None:
    named = tmp_path / "a=2"
    named.write_text("")
    assert FileWithShare().convert(str(named), None, None) == (named, 1.0)
    assert FileWithShare().convert(f"{named}=0.5", None, None) == (named, 0.5)
    assert FileWithShare().convert("k=v/x.jsonl", None, None) == (Path("k=v/x.jsonl"), 1.0)
    with pytest.raises(click.BadParameter):
        FileWithShare().convert("x.jsonl=0", None, None)


def test_known_types_of_a_file_that_is_not_there_are_a_mistake(tmp_path: Path) -> None:
    wiki, _ = files(tmp_path)
    result = CliRunner().invoke(
        train_command,
        ["--train-file", str(wiki), "--validation-file", str(wiki), "--known-types", "x.jsonl=person",
         "--output", str(tmp_path / "o")],
    )  # fmt: skip
    assert isinstance(result.exception, OptionError)
    assert result.exception.reason == "unknown-file"
