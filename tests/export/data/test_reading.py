"""Reading and checking labelled data: every format, and every problem with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_export.config import TrainConfig
from nerd_export.data.checks import Findings, Sentence, check_split
from nerd_export.data.corpus import read_file
from nerd_export.data.prepare import LabelledFile, load_split, prepare
from nerd_export.data.training_data import TrainingData
from nerd_onnx.errors import TrainingDataError
from tests.support.failures import fails

ROWS = [
    {"tokens": ["Ada", "met", "Bob"], "ner_tags": ["person", "O", "person"]},
    {"tokens": ["Rome", "."], "ner_tags": ["location", "O"]},
]
EXPECTED = [Sentence(tuple(r["tokens"]), tuple(r["ner_tags"])) for r in ROWS]


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_conll(path: Path, rows: list[dict[str, Any]]) -> Path:
    body = "\n".join("".join(f"{w} NN {t}\n" for w, t in zip(r["tokens"], r["ner_tags"], strict=True)) for r in rows)
    path.write_text("-DOCSTART- -X- O\n\n" + body, "utf-8")
    return path


def write_class_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    import datasets

    names = ["O", "person", "location"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    integers = [{**row, "ner_tags": [names.index(tag) for tag in row["ner_tags"]]} for row in rows]
    datasets.Dataset.from_list(integers, features=features).to_parquet(str(path))
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.parquet", write_parquet),
        ("a.jsonl", write_jsonl),
        ("a.conll", write_conll),
        ("b.parquet", write_class_labels),
    ],
)
def test_every_format_gives_the_same_sentences(tmp_path: Path, name: str, write: Any) -> None:
    findings = Findings()
    assert check_split(read_file(write(tmp_path / name, ROWS), "ner_tags"), None, findings) == EXPECTED
    assert findings == Findings()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": None, "ner_tags": ["O"]}, "list-missing"),
        ({"tokens": ["a"], "ner_tags": None}, "list-missing"),
        ({"tokens": ["a", None], "ner_tags": ["O", "O"]}, "token-missing"),
        ({"tokens": ["a"], "ner_tags": [None]}, "tag-missing"),
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "lengths-differ"),
        ({"tokens": ["a", " "], "ner_tags": ["O", "O"]}, "not-word"),
        ({"tokens": ["a"], "ner_tags": ["planet"]}, "unknown-tag"),
        ({"tokens": ["a"], "ner_tags": [7]}, "tag-not-named"),
        ({"tokens": ["a"], "ner_tags": [0.0]}, "not-tag"),
        ({"tokens": ["a"], "ner_tags": [True]}, "not-tag"),
        ({"tokens": ["a", "b"], "ner_tags": ["O", ""]}, "not-tag"),
        ({"tokens": ["a"], "ner_tags": [" "]}, "not-tag"),
        ({"tokens": "a", "ner_tags": "O"}, "not-lists"),
    ],
)
def test_faulty_rows_are_named_with_their_place(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    findings = Findings()
    split = read_file(write_jsonl(tmp_path / "a.jsonl", [*ROWS, row]), "ner_tags")
    assert check_split(split, ("O", "person", "location"), findings) == EXPECTED
    assert len(findings.problems) == 1
    assert (findings.problems[0].where, findings.problems[0].reason) == (f"{tmp_path / 'a.jsonl'}, line 3", reason)
    with fails(TrainingDataError, "faulty-rows", found=1, problem=reason):
        findings.raise_problems()


@pytest.mark.parametrize("tag", [0.0, True, ""])
def test_tags_that_name_nothing_are_problems_where_any_name_may_occur(tmp_path: Path, tag: object) -> None:
    findings = Findings()
    split = read_file(write_jsonl(tmp_path / "a.jsonl", [*ROWS, {"tokens": ["a"], "ner_tags": [tag]}]), "ner_tags")
    assert check_split(split, None, findings) == EXPECTED
    assert findings.problems[0].reason == "not-tag"


def test_empty_sentences_are_left_out_and_told(tmp_path: Path) -> None:
    findings = Findings()
    split = read_file(write_jsonl(tmp_path / "a.jsonl", [{"tokens": [], "ner_tags": []}, *ROWS]), "ner_tags")
    assert check_split(split, None, findings) == EXPECTED
    assert "1 empty sentence(s)" in findings.notes[0]
    assert "line 1" in findings.notes[0]


def test_an_empty_split_is_a_problem(tmp_path: Path) -> None:
    findings = Findings()
    (tmp_path / "a.jsonl").write_text("")
    check_split(read_file(tmp_path / "a.jsonl", "ner_tags"), None, findings)
    assert findings.problems[0].reason == "no-sentence"


@pytest.mark.parametrize(
    ("name", "content", "reason", "fields"),
    [
        ("a.jsonl", b'{"tokens": ["a"], "ner_tags": ["O"]}\n{"tokens": [', "not-json", {"row": 2}),
        ("a.jsonl", b"[1]\n", "not-object", {"row": 1}),
        ("a.jsonl", b'{"tokens": ["a"]}\n', "column-missing", {"row": 1, "column": "ner_tags", "found": "tokens"}),
        ("a.jsonl", b'{"tokens": ["\xff"]}\n', "not-utf8", {}),
        ("a.conll", b"Ada person\nmet\n", "tag-missing", {"row": 2}),
        ("a.parquet", b"PAR1 cut off", "not-parquet", {}),
        ("a.xlsx", b"", "unknown-format", {"found": ".xlsx"}),
    ],
)
def test_unreadable_files_say_where_and_why(
    tmp_path: Path, name: str, content: bytes, reason: str, fields: dict[str, Any]
) -> None:
    (tmp_path / name).write_bytes(content)
    with fails(TrainingDataError, reason, file=tmp_path / name, **fields):
        read_file(tmp_path / name, "ner_tags")


def test_a_missing_file_or_split_is_named(tmp_path: Path) -> None:
    with fails(TrainingDataError, "missing-file", file=tmp_path / "gone.parquet"):
        read_file(tmp_path / "gone.parquet", "ner_tags")
    with fails(TrainingDataError, "missing-split", file=tmp_path, found="validation"):
        load_split(str(tmp_path), "", "validation", "coarse")


def ready(
    folder: Path, level: str = "coarse", *, drop_bad: bool = False, drop_shared: bool = False
) -> tuple[TrainingData, list[str]]:
    notes: list[str] = []
    config = TrainConfig(dataset=str(folder), level=level)  # type: ignore[arg-type]
    data = prepare(config, (), (), None, drop_bad_rows=drop_bad, drop_shared=drop_shared, note=notes.append)
    return data, notes


def test_sentences_in_both_splits_are_told_and_dropped_on_request(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "dev.jsonl", ROWS[1:])
    data, notes = ready(tmp_path)
    assert len(data.train) == 2
    assert "1 sentence(s) are in train and validation, such as 'Rome .'" in notes[0]
    data, _ = ready(tmp_path, drop_shared=True)
    assert list(data.train) == EXPECTED[:1]


def test_bad_rows_stop_or_are_left_out_on_request(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [*ROWS, {"tokens": ["a"], "ner_tags": []}])
    write_jsonl(tmp_path / "validation.jsonl", [{"tokens": ["Oslo"], "ner_tags": ["location"]}])
    with fails(TrainingDataError, "faulty-rows", problem="lengths-differ"):
        ready(tmp_path)
    data, notes = ready(tmp_path, drop_bad=True)
    assert list(data.train) == EXPECTED
    assert "left out" in notes[0]


def test_tags_only_validation_has_are_unknown(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "validation.jsonl", [{"tokens": ["Oslo"], "ner_tags": ["city"]}])
    with fails(TrainingDataError, "faulty-rows", problem="unknown-tag"):
        ready(tmp_path)


def test_fine_level_gives_two_levels(tmp_path: Path) -> None:
    rows = [{"tokens": ["Ada"], "fine_ner_tags": ["person-actor"]}, {"tokens": ["x"], "fine_ner_tags": ["O"]}]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "validation.jsonl", rows[:1])
    data, _ = ready(tmp_path, "fine")
    assert data.labels.names == ("O", "person-actor")
    assert data.labels.types == ("person",)


def test_rows_beyond_the_first_are_not_looked_at_but_for_their_labels(tmp_path: Path) -> None:
    bad = {"tokens": ["a"], "ner_tags": []}
    write_jsonl(tmp_path / "a.jsonl", ROWS[:1])
    write_jsonl(tmp_path / "b.jsonl", [ROWS[1], bad, {"tokens": ["Everest"], "ner_tags": ["mountain"]}])
    write_jsonl(tmp_path / "c.jsonl", [bad])
    validation = write_jsonl(tmp_path / "v.jsonl", [{"tokens": ["K2"], "ner_tags": ["mountain"]}])
    files = [LabelledFile(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "c.jsonl")]

    def first(rows: int) -> TrainingData:
        config = TrainConfig(max_train_samples=rows)
        return prepare(
            config, files, [LabelledFile(validation)], None, drop_bad_rows=False, drop_shared=False, note=lambda _: None
        )

    assert list(first(1).train) == EXPECTED[:1]
    data = first(2)
    assert list(data.train) == EXPECTED
    assert "mountain" in data.labels.names
    with fails(TrainingDataError, "faulty-rows", found=1, problem="lengths-differ"):
        first(3)
