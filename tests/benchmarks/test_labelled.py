"""Labelled sentences as input files, and the counts and scores of the peers' entities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.inputs.labelled import (
    f1_by_label,
    labels_changed,
    read_answers,
    read_labelled,
    texts_changed,
    write_inputs,
)
from nerd_export.scoring.bootstrap import micro_f1
from nerd_export.scoring.f1 import Span, span_counts, span_scores
from nerd_onnx.inference.bundle import Bundle

GOLD: list[list[Span]] = [[(0, 5, "person"), (9, 12, "art")], [], [(0, 3, "person")]]
FOUND: list[list[Span]] = [[(0, 5, "person"), (9, 12, "person")], [(1, 2, "art")], [(0, 3, "person")]]


def test_counts_agree_with_the_projects_scores() -> None:
    counts = span_counts(GOLD, FOUND)
    assert counts.tolist() == [[1, 2, 2], [0, 1, 0], [1, 1, 1]]
    assert micro_f1(counts.sum(axis=0)) == pytest.approx(span_scores(GOLD, FOUND).f1)
    assert micro_f1(np.zeros(3, dtype=np.int64)) == 0


def test_f1_by_label() -> None:
    assert f1_by_label(GOLD, FOUND) == {
        "art": {"f1": 0.0, "expected": 1},
        "person": {"f1": pytest.approx(0.8), "expected": 2},
    }


def test_labels_changed_counts_words() -> None:
    places = [[(0, 5), (6, 8), (9, 12)], [(0, 1), (1, 2)], [(0, 3)]]
    assert labels_changed(GOLD, GOLD, places) == 0
    assert labels_changed(GOLD, FOUND, places) == 2 / 6


def test_texts_changed_counts_texts() -> None:
    assert texts_changed(GOLD, FOUND) == 2


def test_answers_of_one_level_and_of_two_are_read_alike(tmp_path: Path) -> None:
    file = tmp_path / "answers.parquet"
    one_level = [[{"start": 0, "end": 5, "label": "person-actor"}], []]
    pq.write_table(pa.table({"entities": one_level}), file)

    assert read_answers(file, "fine") == [[(0, 5, "person-actor")], []]
    assert read_answers(file, "coarse") == [[(0, 5, "person")], []]
    two_levels = [[{"start": 0, "end": 5, "label": "person", "fine_label": "person-actor"}], None]
    pq.write_table(pa.table({"entities": two_levels}), file)

    assert read_answers(file, "fine") == [[(0, 5, "person-actor")], []]
    assert read_answers(file, "coarse") == [[(0, 5, "person")], []]


def test_sentences_become_texts_words_and_a_shuffle(tmp_path: Path, tiny_bundle: Path) -> None:
    file = tmp_path / "test.parquet"
    tokens = [["Ada", "Lovelace", ",", "again"], ["no", "one"]]
    tags = [["person-actor", "person-actor", "O", "O"], ["O", "O"]]
    pq.write_table(pa.table({"tokens": tokens, "ner_tags": tags, "fine_ner_tags": tags}), file)
    labelled = read_labelled(file, Bundle.load(tiny_bundle).labels)

    assert labelled.texts == ["Ada Lovelace, again", "no one"]
    assert labelled.words["coarse"] == [[(0, 2, "person")], []]
    assert labelled.characters["fine"] == [[(0, 12, "person-actor")], []]
    assert len(read_labelled(file, Bundle.load(tiny_bundle).labels, 1).texts) == 1

    files = write_inputs(labelled, [1, 0], tmp_path)

    assert pq.read_table(files["shuffled"])["text"].to_pylist() == ["no one", "Ada Lovelace, again"]
    assert pq.read_table(files["words"])["tokens"].to_pylist() == tokens
