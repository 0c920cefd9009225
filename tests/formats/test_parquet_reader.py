"""Parquet in: every row once and in order, every column as it is, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.tables_io import (
    Writer,
    all_texts,
    invalid_utf8,
    opened,
    parquet_bytes,
    read,
    refused,
)

TEXTS = ["one", None, "", "zwei ß", "😀 three", "four\r\n"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_text_types(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(TEXTS)
    column = values.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else values.cast(kind)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": range(len(TEXTS)), "text": column}), path)
    batches = read(path, batch_rows=4)
    assert all_texts(batches) == TEXTS
    for rows in batches:
        assert rows.texts.type in (pa.string(), pa.large_string())
        assert rows.table is not None
        assert rows.table.schema.equals(pq.read_schema(path), check_metadata=True)


def test_groups_rows_and_bytes_bound_the_batches(tmp_path: Path) -> None:
    texts = ["x" * (i % 50) for i in range(200)]
    texts[70] = "y" * 10_000
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=60)
    batches = read(path, batch_rows=25, batch_bytes=400)
    assert all_texts(batches) == texts
    assert [rows.first_row for rows in batches] == np.cumsum([0, *(r.num_rows for r in batches[:-1])]).tolist()
    assert [rows.row_group for rows in batches if rows.last_in_group] == [0, 1, 2, 3]
    for rows in batches:
        size = sum(len(text or "") for text in rows.texts.to_pylist())
        assert rows.num_rows <= 25
        assert size <= 400 or rows.num_rows == 1
    assert [rows.num_rows for rows in batches if "y" in str(rows.texts[0])] == [1]


@pytest.mark.parametrize("limit", [0, 1, 60, 61, 150, 1000])
def test_limit(tmp_path: Path, limit: int) -> None:
    texts = [str(i) for i in range(150)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=60)
    with opened(path, limit=limit, batch_rows=7) as source:
        assert source.num_rows == min(limit, 150)
        batches = list(source.batches())
        assert source.progress() == 1.0
    assert all_texts(batches) == texts[:limit]
    assert not batches or batches[-1].last_in_group


def test_progress_rises_to_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 100}), tmp_path / "a.parquet")
    with opened(tmp_path / "a.parquet", batch_rows=10) as source:
        shares = [source.progress() for _ in source.batches()]
    assert shares == pytest.approx([i / 10 for i in range(1, 11)])


def test_no_rows_and_no_groups(tmp_path: Path) -> None:
    schema = pa.schema({"text": pa.string()})
    pq.write_table(schema.empty_table(), tmp_path / "rows.parquet")
    pq.ParquetWriter(tmp_path / "groups.parquet", schema).close()
    assert pq.read_metadata(tmp_path / "groups.parquet").num_row_groups == 0
    assert read(tmp_path / "rows.parquet") == read(tmp_path / "groups.parquet") == []


def test_empty_group_between_others(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for part in (table, table.schema.empty_table(), table):
            writer.write_table(part)
    assert all_texts(read(tmp_path / "a.parquet")) == ["a", "a"]


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{i:07d} " * 500 for i in range(8000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10_000)
    before = pa.total_allocated_bytes()
    with opened(path, batch_bytes=1 << 18) as source:
        highest = max(pa.total_allocated_bytes() - before for _ in source.batches())
    assert highest < 12 << 20 < sum(map(len, texts)) // 2


def test_invalid_utf8_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    ids = pa.array(range(8))
    pq.write_table(pa.table({"id": ids, "text": pa.concat_arrays([pa.array(["a"] * 4), invalid_utf8()])}), path)
    refused(path, "not-utf8", row=6, column="text")
    refused(path, "not-utf8", {"batch_rows": 3}, row=6)


def test_wrong_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table([pa.array([1]), pa.array([b"x"], pa.binary(1)), pa.array(["a"]), pa.array(["a"])], list("nbtt")), path
    )
    refused(path, "column-missing", column="text", found="n, b, t, t")
    refused(path, "not-text", {"text_column": "n"}, column="n", found="int64")
    refused(path, "not-text", {"text_column": "b"}, column="b", found="fixed_size_binary[1]")
    refused(path, "column-ambiguous", {"text_column": "t"}, column="t", found=2)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated(write: Writer, kept: float) -> None:
    whole = parquet_bytes(pa.table({"text": [f"text {i}" for i in range(1000)]}))
    refused(write("a.parquet", whole[: int(len(whole) * kept)]), "not-parquet")


def test_damaged_inside(write: Writer) -> None:
    whole = bytearray(parquet_bytes(pa.table({"text": [f"text {i}" for i in range(1000)]})))
    whole[10:2000] = bytes(1990)
    refused(write("a.parquet", bytes(whole)), "damaged-parquet", row_group=0)


def test_message_of_an_error_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise pa.ArrowInvalid

    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    monkeypatch.setattr(pq, "ParquetFile", refuse)
    assert str(refused(tmp_path / "a.parquet", "not-parquet")).endswith(": ArrowInvalid")


def test_other_content(write: Writer) -> None:
    refused(write("a.parquet", b"hello"), "not-parquet")
