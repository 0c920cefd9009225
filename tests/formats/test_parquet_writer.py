"""Parquet out: all other columns, types, metadata, row groups and compression as they were."""

from __future__ import annotations

import datetime as dt
import decimal
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import OutputError
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.parquet import writer
from tests.support.failures import fails
from tests.support.profiles import example_count
from tests.support.tables_io import ENTITIES, METADATA, converted, opened, words_as_entities

TEXT = st.text(max_size=6)
INT8 = st.integers(-128, 127)
# Each type with values for it; those that Parquet itself would turn into another type are left out.
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.dictionary(pa.int8(), pa.string()), TEXT),
    (pa.dictionary(pa.int32(), pa.string(), ordered=True), TEXT),
    (pa.binary(), st.binary(max_size=4)),
    (pa.large_binary(), st.binary(max_size=4)),
    (pa.binary_view(), st.binary(max_size=4)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.bool_(), st.booleans()),
    (pa.int8(), INT8),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float16(), st.sampled_from([0.5, -2.0])),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.decimal128(9, 2), st.sampled_from([decimal.Decimal("1.20"), decimal.Decimal("-0.01")])),
    (pa.date32(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.timestamp("us"), st.datetimes()),
    (pa.timestamp("ns", "Europe/Paris"), st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2030, 1, 1))),  # noqa: DTZ001
    (pa.duration("ms"), st.integers(0, 10**6)),
    (pa.null(), st.none()),
    (pa.list_(pa.field("element", pa.int8())), st.lists(st.none() | INT8, max_size=3)),
    (pa.large_list(pa.field("element", pa.string_view())), st.lists(TEXT, max_size=3)),
    (pa.list_(pa.field("element", pa.float32()), 2), st.lists(st.just(1.5), min_size=2, max_size=2)),
    (pa.list_(pa.field("element", pa.dictionary(pa.int32(), pa.string()))), st.lists(TEXT, max_size=3)),
    (pa.struct([("a", pa.int8()), ("b.c", pa.list_(pa.field("element", pa.string())))]),
     st.fixed_dictionaries({"a": INT8, "b.c": st.lists(TEXT, max_size=2)})),
    (pa.map_(pa.string(), pa.int8()), st.dictionaries(TEXT, INT8, max_size=2).map(lambda d: list(d.items()))),
    (pa.uuid(), st.uuids().map(lambda value: value.bytes)),
    (pa.json_(), st.just('{"a": 1}')),
]  # fmt: skip
CODECS = ["NONE", "SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD"]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draw tables of mixed types, with metadata on schema and fields and a text column somewhere among them."""
    rows = draw(st.integers(0, 12))
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=4))
    place = draw(st.integers(0, len(kinds)))
    kinds.insert(place, draw(st.sampled_from(KINDS[:5])))
    columns, fields = [], []
    for i, (kind, values) in enumerate(kinds):
        drawn = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        metadata = draw(st.none() | st.just({"unit": "m"}))
        columns.append(array_of(drawn, kind))
        fields.append(pa.field("text" if i == place else f"column.{i}", kind, metadata=metadata))
    metadata = draw(st.sampled_from([None, {"pandas": '{"columns": []}', "é": "ß"}]))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata))


def array_of(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        codes = pa.array(values, pa.string()).dictionary_encode()
        return pa.DictionaryArray.from_arrays(
            codes.indices.cast(kind.index_type), codes.dictionary, ordered=kind.ordered
        )
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def codecs_of(path: Path) -> dict[str, str]:
    group = pq.read_metadata(path).row_group(0)
    return {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}


@settings(max_examples=example_count(120), deadline=None)
@given(table=tables(), batch_rows=st.integers(1, 5), group_rows=st.integers(1, 6), data=st.data())
def test_any_table_comes_back_with_one_column_more(
    table: pa.Table, batch_rows: int, group_rows: int, data: st.DataObject
) -> None:
    codecs = {name: data.draw(st.sampled_from(CODECS)) for name in table.schema.names}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.parquet"
        pq.write_table(table, path, row_group_size=group_rows, compression=codecs)
        output = converted(path, Path(folder) / "out.parquet", source={"batch_rows": batch_rows})
        before, after = pq.ParquetFile(path), pq.ParquetFile(output)
        expected, found = whole(before), whole(after)
        metadata = {
            **(expected.schema.metadata or {}),
            **{key.encode(): value.encode() for key, value in METADATA.items()},
        }
        assert found.schema.equals(expected.schema.append(ENTITIES).with_metadata(metadata), check_metadata=True)
        assert found.drop_columns("entities").equals(expected.replace_schema_metadata(metadata))
        texts = expected["text"].cast(pa.string()).combine_chunks()
        assert found["entities"].combine_chunks().is_null().equals(texts.is_null())
        assert group_sizes(output) == [size for size in group_sizes(path) if size]
        if table.num_rows:
            added = {path: codec for path, codec in codecs_of(output).items() if path.startswith("entities.")}
            assert set(added.values()) == {"ZSTD"}
            assert codecs_of(output) == codecs_of(path) | added


def whole(file: pq.ParquetFile) -> pa.Table:
    """Read a file group by group: pyarrow cannot read lists of dictionaries from two groups at once."""
    groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    return pa.concat_tables(groups) if groups else file.read()


def group_sizes(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_replaced_column_keeps_its_place(tmp_path: Path, place: int) -> None:
    names = ["text", "n"]
    names.insert(place, "entities")
    values = {"text": ["abc"], "n": [[1]], "entities": ["old"]}
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({name: values[name] for name in names}), path, compression="GZIP")
    with fails(OutputError, "column-exists", column="entities"):
        converted(path, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [path]
    output = converted(path, tmp_path / "out.parquet", replace=True)
    found = pq.read_table(output)
    assert found.schema.names == names
    assert found["entities"].to_pylist()[0][0]["text"] == "abc"
    assert {codec for name, codec in codecs_of(output).items() if not name.startswith("entities")} == {"GZIP"}


def test_large_row_groups_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": [f"{i:05d}" for i in range(100)]}), path, row_group_size=60)
    monkeypatch.setattr(writer, "GROUP_ROWS", 25)
    output = converted(path, tmp_path / "rows.parquet", source={"batch_rows": 10})
    assert group_sizes(output) == [30, 30, 30, 10]
    output = converted(path, tmp_path / "bytes.parquet", source={"batch_rows": 10}, group_bytes=1)
    assert group_sizes(output) == [10] * 10


def test_rows_of_lines_are_gathered_into_groups(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "abc", "n": 1}\n' * 50)
    output = converted(path, tmp_path / "out.parquet", source={"batch_rows": 7})
    assert group_sizes(output) == [50]
    assert set(codecs_of(output).values()) == {"ZSTD"}
    assert pq.read_table(output)["n"].to_pylist() == [1] * 50


def test_dictionaries_stay_dictionaries_in_the_file(tmp_path: Path) -> None:
    """Pyarrow writes plain strings from where batches of one row group have different dictionaries."""
    words = pa.array([f"word number {i // 100}" for i in range(1000)]).dictionary_encode()
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": words}), path)
    output = converted(path, tmp_path / "out.parquet", source={"batch_rows": 50})
    sizes = [pq.read_metadata(p).row_group(0).column(0).total_uncompressed_size for p in (path, output)]
    assert sizes[1] < 1.5 * sizes[0]


def test_no_rows_and_no_groups(tmp_path: Path) -> None:
    schema = pa.schema({"text": pa.string_view()})
    pq.ParquetWriter(tmp_path / "in.parquet", schema).close()
    output = converted(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pq.read_metadata(output).num_row_groups == 0
    assert pq.read_schema(output).equals(schema.append(ENTITIES))


def test_type_that_parquet_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    wrong = pa.field("entities", pa.struct([]))
    with fails(OutputError, "no-parquet-type"):
        converted(path, tmp_path / "out.parquet", layout=Layout(wrong))
    assert list(tmp_path.iterdir()) == [path]


def test_raw_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}')
    with pytest.raises(ValueError, match="typed=True"):
        converted(tmp_path / "in.jsonl", tmp_path / "out.parquet", source={"typed": False})


def test_entities_can_be_read_as_written(tmp_path: Path) -> None:
    texts = ["Ada Lovelace", None, "", "😀b"]
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": [uuid.UUID(int=i).bytes for i in range(4)], "text": texts}), path)
    found = pq.read_table(converted(path, tmp_path / "out.parquet"))["entities"].combine_chunks()
    assert found.equals(words_as_entities(pa.array(texts)))
    assert [None if row is None else len(row) for row in found.to_pylist()] == [1, None, 0, 1]
    scores = [entity["score"] for row in found.to_pylist() for entity in row or ()]
    assert np.array(scores, np.float32).tolist() == [0.0, 1.0]


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    first, second = (converted(path, tmp_path / name) for name in ("1.parquet", "2.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_from_standard_input_keeps_the_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path, compression="BROTLI")
    with path.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        with opened("-") as source:
            assert source.codecs == ("BROTLI",)
        assert not file.closed
