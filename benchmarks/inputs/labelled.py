"""Labelled sentences as input files for the peers, and the entities that the peers find in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.paths import shown
from nerd_export.data.checks import Sentence, sound_sentences
from nerd_export.data.corpus import TAG_COLUMNS, read_file
from nerd_export.data.plain_text import plain_text
from nerd_export.scoring.bootstrap import micro_f1
from nerd_export.scoring.evaluation import gold_spans
from nerd_export.scoring.f1 import Rows, Span, counts_by_type
from nerd_onnx.inference.labels import LabelSet, coarse_type


@dataclass(frozen=True)
class Labelled:
    """
    Labelled sentences, both as words and as plain text.

    :param source: name of the file
    :param sentences: words and tags
    :param texts: each sentence as normal text, with the spaces that a person writes
    :param places: by text, the character range of each word
    :param words: by level (``coarse``, ``fine``), the gold entities with offsets in words
    :param characters: the same with offsets in characters
    """

    source: str
    sentences: Sequence[Sentence]
    texts: Sequence[str]
    places: Sequence[Sequence[tuple[int, int]]]
    words: Mapping[str, Rows]
    characters: Mapping[str, Rows]


def labelled_file(shared: Path, split: str) -> Path:
    """Return the path of the labelled sentences of a split."""
    return shared / "few_nerd" / f"{split}.parquet"


def read_sentences(path: Path, labels: LabelSet, limit: int | None = None) -> list[Sentence]:
    """
    Return labelled sentences at the model's finest level.

    :param limit: maximum number of sentences, from the start of the file
    :raises TrainingDataError: if the file is damaged or has invalid rows
    """
    level = "fine" if labels.has_fine_level else "coarse"
    # The first ones and not a sample: reports with the same limit then score the same sentences.
    return sound_sentences(read_file(path, TAG_COLUMNS[level]))[:limit]


def read_labelled(path: Path, labels: LabelSet, limit: int | None = None) -> Labelled:
    """
    Return labelled sentences with their gold entities at every level of the model.

    :param limit: maximum number of sentences, from the start of the file
    :raises TrainingDataError: if the file is damaged or has invalid rows
    """
    sentences = read_sentences(path, labels, limit)
    plain = [plain_text(sentence.tokens) for sentence in sentences]
    levels = {"coarse": False} | ({"fine": True} if labels.has_fine_level else {})

    words = {level: [gold_spans(s, labels, fine=fine) for s in sentences] for level, fine in levels.items()}
    characters = {
        level: [
            [(places[b][0], places[e - 1][1], name) for b, e, name in spans]
            for spans, (_, places) in zip(rows, plain, strict=True)
        ]
        for level, rows in words.items()
    }

    return Labelled(shown(path), sentences, [t for t, _ in plain], [p for _, p in plain], words, characters)


def write_inputs(labelled: Labelled, order: Sequence[int], folder: Path) -> dict[str, Path]:
    """
    Write the input files of the peers: ``raw`` texts, the same texts ``shuffled``, and ``words``.

    :param order: for each row of ``shuffled``, its row in ``raw``
    :return: the files by name
    """
    columns = {
        "raw": {"text": list(labelled.texts)},
        "shuffled": {"text": [labelled.texts[i] for i in order]},
        "words": {"tokens": [list(sentence.tokens) for sentence in labelled.sentences]},
    }
    files = {name: folder / f"labelled.{name}.parquet" for name in columns}

    for name, column in columns.items():
        pq.write_table(pa.table(column), files[name])

    return files


def read_answers(file: Path, level: str) -> Rows:
    """
    Return a peer's entities at one level, by text.

    A peer with one level of labels has fine labels such as ``person-actor``: the coarse label is before the hyphen.
    """
    rows: list[list[dict[str, Any]]] = pq.read_table(file, columns=["entities"])["entities"].to_pylist()
    return [[(e["start"], e["end"], _label(e, level)) for e in entities or ()] for entities in rows]


def _label(entity: Mapping[str, Any], level: str) -> str:
    fine = entity.get("fine_label")
    if level == "fine":
        return str(fine or entity["label"])
    return str(entity["label"] if fine else coarse_type(entity["label"]))


def f1_by_label(expected: Rows, found: Rows) -> dict[str, dict[str, float]]:
    """Return F1 and the number of expected entities of each label."""
    totals = counts_by_type(expected, found)
    return {name: {"f1": float(micro_f1(counts)), "expected": int(counts[2])} for name, counts in totals.items()}


def labels_changed(one: Rows, other: Rows, places: Iterable[Sequence[tuple[int, int]]]) -> float:
    """Return the share of words with another label, 0 to 1. A word has the label of its first character."""
    changed = words = 0
    for spans, others, ranges in zip(one, other, places, strict=True):
        # Words of the data and not tokens, because each peer has tokens of its own.
        starts = [begin for begin, _ in ranges]
        changed += sum(a != b for a, b in zip(_labels(spans, starts), _labels(others, starts), strict=True))
        words += len(starts)

    return changed / max(1, words)


def _labels(spans: Sequence[Span], starts: Sequence[int]) -> list[str | None]:
    # A linear search is enough: a sentence has few entities.
    return [next((name for begin, end, name in spans if begin <= start < end), None) for start in starts]


def texts_changed(one: Rows, other: Rows) -> int:
    """Return the number of texts whose entities differ."""
    return sum(a != b for a, b in zip(one, other, strict=True))
