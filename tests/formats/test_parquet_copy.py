"""Parquet with columns added to a copy: everything up to the footer stays, and pyarrow reads what it read before."""

from __future__ import annotations

import decimal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import OutputError, UnreadableFileError
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.open_output import open_writer
from nerd_onnx.formats.parquet import copying_writer
from tests.formats.test_parquet_writer import CODECS, tables, whole
from tests.support.failures import fails
from tests.support.profiles import example_count
from tests.support.tables_io import (
    ENTITIES,
    METADATA,
    column_chunks,
    converted,
    copy,
    footer_length,
    opened,
    query,
    with_entities,
    words_as_entities,
)

ROWS = 60
# What a file of TABLE may be written with.
WAYS: dict[str, dict[str, Any]] = {
    **{codec: {"compression": codec} for codec in CODECS},
    "plain": {"use_dictionary": False},
    "encodings": {
        "use_dictionary": False,
        "column_encoding": {"n": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY", "x": "BYTE_STREAM_SPLIT"},
    },
    "second pages": {"data_page_version": "2.0"},
    "page index": {"write_page_index": True, "max_rows_per_page": 7},
    "checksums": {"write_page_checksum": True},
    "bloom filters": {"bloom_filter_options": {"n": {"ndv": 100}, "text": True}},
    "sorted": {"sorting_columns": [pq.SortingColumn(1, descending=True), pq.SortingColumn(0)]},
    "decimals as integers": {"store_decimal_as_integer": True},
    "timestamps as INT96": {"use_deprecated_int96_timestamps": True},
    "first format": {"version": "1.0"},
    "no Arrow schema": {"store_schema": False},
    "no statistics": {"write_statistics": False},
}


def some_table() -> pa.Table:
    """Make columns of types that rewriting changes, with nulls, and metadata."""
    texts = [None if i % 7 == 3 else f"word {i % 9} 😀" for i in range(ROWS)]
    kinds = {
        "n": pa.array(range(ROWS), pa.int16()),
        "text": pa.array(texts),
        "price": pa.array([decimal.Decimal(i) / 4 for i in range(ROWS)], pa.decimal128(7, 2)),
        "time": pa.array([None if i == 5 else i * 10**15 for i in range(ROWS)], pa.timestamp("ns", "UTC")),
        "x": pa.array(np.linspace(-1, 1, ROWS)),
        "three": pa.array([bytes([i, 0, 1]) for i in range(ROWS)], pa.binary(3)),
        "deep.er": pa.array([[{"a": [i], "b": None}] * (i % 3) for i in range(ROWS)]),
        "word": pa.array([f"w{i % 4}" for i in range(ROWS)]).dictionary_encode(),
        "big": pa.array(texts, pa.large_string()),
    }
    return pa.table(kinds).replace_schema_metadata({"owner": "us", "é": "ß"})


def written(path: Path, groups: tuple[int, ...] = (ROWS,), **options: Any) -> Path:
    """Write the table in row groups of given sizes; the file gets metadata of its own."""
    table, first = some_table(), 0
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        for size in groups:
            writer.write_table(table.slice(first, size))
            first += size
        writer.add_key_value_metadata({"of the file": "only"})
    return path


def check_copied(path: Path, output: Path) -> None:
    """Check all bytes before the footer, each column chunk as pyarrow sees it, and the other facts of the footer."""
    before, after = path.read_bytes(), output.read_bytes()
    end = len(before) - footer_length(before)
    assert after[:end] == before[:end]

    for old, new in zip(column_chunks(path), column_chunks(output), strict=True):
        assert list(new)[: len(old)] == list(old)
        assert {name: new[name] for name in old} == old

    old, new = pq.read_metadata(path), pq.read_metadata(output)
    assert (new.num_rows, new.created_by, new.format_version) == (old.num_rows, old.created_by, old.format_version)
    for i in range(old.num_row_groups):
        assert new.row_group(i).num_rows == old.row_group(i).num_rows
        assert new.row_group(i).sorting_columns == old.row_group(i).sorting_columns
        assert new.row_group(i).total_byte_size >= old.row_group(i).total_byte_size
    assert {**(old.metadata or {}), **(new.metadata or {})}.keys() == (new.metadata or {}).keys()


def entities_of(table: pa.Table) -> list[Any]:
    """Return the entities that a file of this table must get. Scores begin anew in each batch."""
    found: list[Any] = words_as_entities(table["text"].cast(pa.string()).combine_chunks()).to_pylist()
    return [row and [{**entity, "score": None} for entity in row] for row in found]


def without_scores(column: pa.ChunkedArray) -> list[Any]:
    return [row and [{**entity, "score": None} for entity in row] for row in column.to_pylist()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("groups", [(ROWS,), (0, 25, 0, 0, 35, 0)], ids=["one group", "empty groups"])
def test_all_ways_of_writing_stay(tmp_path: Path, way: str, groups: tuple[int, ...]) -> None:
    path = written(tmp_path / "in.parquet", groups, **WAYS[way])
    output = with_entities(path, tmp_path / "out.parquet", source={"batch_rows": 10})
    check_copied(path, output)
    before, after = pq.read_table(path), pq.read_table(output)
    metadata = {**(before.schema.metadata or {}), **{k.encode(): v.encode() for k, v in METADATA.items()}}
    assert after.schema.equals(before.schema.append(ENTITIES).with_metadata(metadata), check_metadata=True)
    assert after.drop_columns("entities").equals(before)
    assert without_scores(after["entities"]) == entities_of(before)
    assert pq.read_metadata(output).metadata[b"of the file"] == b"only"
    assert list(tmp_path.iterdir()) in ([path, output], [output, path])


@settings(max_examples=example_count(60), deadline=None)
@given(table=tables(), batch_rows=st.integers(1, 5), sizes=st.lists(st.integers(0, 4), max_size=4))
def test_any_table_is_copied(table: pa.Table, batch_rows: int, sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, first = Path(folder) / "in.parquet", 0
        with pq.ParquetWriter(path, table.schema) as writer:
            for size in sizes:
                writer.write_table(table.slice(first, size))
                first += size
        output = with_entities(path, Path(folder) / "out.parquet", source={"batch_rows": batch_rows})
        check_copied(path, output)
        before, after = whole(pq.ParquetFile(path)), whole(pq.ParquetFile(output))
        assert after.schema.equals(before.schema.append(ENTITIES).with_metadata(after.schema.metadata), True)  # noqa: FBT003
        assert after.drop_columns("entities").equals(before.replace_schema_metadata(after.schema.metadata))
        assert without_scores(after["entities"]) == entities_of(before)


def test_no_rows_and_no_groups(tmp_path: Path) -> None:
    for name, groups in {"no groups": (), "an empty group": (0,)}.items():
        path = written(tmp_path / f"{name}.parquet", groups)
        output = with_entities(path, tmp_path / f"{name}.out.parquet")
        check_copied(path, output)
        assert pq.read_table(output).num_rows == 0
        assert pq.read_schema(output).names == [*pq.read_schema(path).names, "entities"]


def test_several_columns_and_the_reasons(tmp_path: Path) -> None:
    path = written(tmp_path / "in.parquet", (40, 20))
    layout = Layout(ENTITIES, "wide", ("person", "location"))
    reasons = pa.field("entities_error", pa.string())
    with opened(path, typed=True, added_columns=("person", "location", "entities_error")) as source:
        assert source.copied is not None
        with open_writer(
            str(tmp_path / "out.parquet"),
            format="parquet",
            source=source,
            layout=layout,
            entities_metadata=METADATA,
            replace=False,
            overwrite=False,
            reasons_field=reasons,
        ) as writer:
            for rows in source.batches():
                why = pa.array([None if i % 2 else f"row {i}" for i in range(rows.num_rows)])
                writer.write(rows, words_as_entities(rows.texts), why)

    check_copied(path, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.names[-3:] == ["person", "location", "entities_error"]
    assert [row is None for row in found["person"].to_pylist()] == [i % 7 == 3 for i in range(ROWS)]
    assert set(map(str, found["location"].to_pylist())) == {"None", "[]"}
    assert found["entities_error"].to_pylist()[:3] == ["row 0", None, "row 2"]


@pytest.mark.parametrize("has_index", [False, True])
def test_a_large_group_stays_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_index: bool) -> None:  # noqa: FBT001
    """Its new values are encoded in pieces; the index of their pages must lead to the right rows."""
    path = written(tmp_path / "in.parquet", (45, 15), write_page_index=has_index)
    monkeypatch.setattr(copying_writer, "PIECE_ROWS", 20)
    output = with_entities(path, tmp_path / "out.parquet", source={"batch_rows": 10})
    check_copied(path, output)
    found = pq.read_table(output)
    expected = entities_of(pq.read_table(path))
    assert without_scores(found["entities"]) == expected

    chunks = column_chunks(output)[0]
    start = chunks["entities.list.element.start"][0]
    assert start["num_values"] == 45
    indexed = pq.read_metadata(output).row_group(0).column(len(chunks) - 1)
    assert (indexed.has_column_index, indexed.has_offset_index) == (has_index, has_index)

    # Both skip pages by the index; each wanted row is found with its own entities.
    texts = [row and row[0]["text"] for row in expected]
    for n in (0, 19, 21, 44, 59):
        (row,) = query(f"SELECT entities[1].text FROM '{output}' WHERE n = {n}").fetchall()  # noqa: S608
        assert row == (texts[n],)
        lazy = pl.scan_parquet(output).filter(pl.col("n") == n).select("entities").collect()
        assert [row and row[0]["text"] for row in lazy["entities"].to_list()] == [texts[n]]


def test_pieces_take_limited_memory(tmp_path: Path) -> None:
    """A piece ends at a size of its texts, too."""
    path = written(tmp_path / "in.parquet")
    output = with_entities(path, tmp_path / "out.parquet", source={"batch_rows": 10}, group_bytes=1)
    check_copied(path, output)
    assert without_scores(pq.read_table(output)["entities"]) == entities_of(pq.read_table(path))
    assert column_chunks(output)[0]["entities.list.element.label"][0]["statistics"] is None


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "in.parquet")
    first, second = (with_entities(path, tmp_path / name) for name in ("1.parquet", "2.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_a_copy_of_a_copy(tmp_path: Path) -> None:
    path = written(tmp_path / "in.parquet")
    first = with_entities(path, tmp_path / "1.parquet")
    other = Layout(pa.field("again", ENTITIES.type))
    second = with_entities(first, tmp_path / "2.parquet", layout=other)
    check_copied(first, second)
    found = pq.read_table(second)
    assert found["again"].equals(found["entities"])


def test_from_standard_input_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = written(tmp_path / "in.parquet")
    with path.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        with_entities("-", Path("-"), format="parquet", source={"format": "parquet"})
    (tmp_path / "out.parquet").write_bytes(capfdbinary.readouterr().out)
    check_copied(path, tmp_path / "out.parquet")


def test_an_existing_column_is_never_copied_under(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a"], "entities": [1]}), path)
    with opened(path, typed=True, added_columns=("entities",)) as source:
        assert (source.copied, source.rewritten_because) == (None, "a column is replaced")
        with fails(OutputError, "column-exists", column="entities"):
            copy(source, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [path]


def test_type_that_parquet_cannot_hold(tmp_path: Path) -> None:
    path = written(tmp_path / "in.parquet")
    with fails(OutputError, "cannot-write"):
        with_entities(path, tmp_path / "out.parquet", layout=Layout(pa.field("entities", pa.struct([]))))
    assert list(tmp_path.iterdir()) == [path]


def test_columns_with_similar_names(tmp_path: Path) -> None:
    """Pyarrow selects columns by the beginnings of their paths."""
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text.en": ["x", "y"], "text": ["abc", None], "a": [{"text": "z"}] * 2}), path)
    output = with_entities(path, tmp_path / "out.parquet")
    check_copied(path, output)
    assert [row and row[0]["text"] for row in pq.read_table(output)["entities"].to_pylist()] == ["abc", None]


def test_a_column_larger_than_its_texts_does_not_shrink_batches(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"image": [bytes(9000)] * 100, "text": ["abc"] * 100}), path, compression="NONE")
    with opened(path, typed=True, batch_bytes=10_000, added_columns=("entities",)) as source:
        assert [rows.num_rows for rows in source.batches()] == [100]


def test_rows_that_the_file_lacks_are_never_written(tmp_path: Path) -> None:
    path = written(tmp_path / "in.parquet")
    with opened(path, typed=True, batch_rows=10, added_columns=("entities",)) as source:
        source.batches = lambda: iter(())  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="rows written"):
            copy(source, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(
        pa.table({"text": ["a"] * 10, "x": [bytes(20_000)] * 10}), path, compression="NONE", use_dictionary=False
    )
    with opened(path, typed=True, added_columns=("entities",)) as source:
        batches = list(source.batches())
        source.batches = lambda: iter(batches)  # type: ignore[method-assign]
        with path.open("r+b") as file:
            file.truncate(1000)
        with fails(UnreadableFileError, "file-cut", file=str(path)):
            copy(source, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [path]


def test_rewritten_files_have_the_same_rows(tmp_path: Path) -> None:
    """The two ways agree on what pyarrow itself can keep."""
    path = written(tmp_path / "in.parquet", (40, 20))
    copied = pq.read_table(with_entities(path, tmp_path / "copied.parquet"))
    rewritten = pq.read_table(converted(path, tmp_path / "rewritten.parquet"))
    assert copied.equals(rewritten)
