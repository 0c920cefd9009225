"""A rewritten Parquet file is like its input: metadata, order, indexes, filters and physical types."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.layouts import Layout
from tests.support.failures import fails
from tests.support.make_parquet_files import FOLDER, MOMENTS
from tests.support.tables_io import ENTITIES, converted, opened, refused

SPARK_KEY = b"org.apache.spark.sql.parquet.row.metadata"
RUST = FOLDER / "rust.parquet"


def leaves(path: Path) -> dict[str, tuple[str, str]]:
    """Return the physical and the logical type of each leaf column."""
    schema = pq.ParquetFile(path).schema
    columns = [schema.column(i) for i in range(len(schema.names))]
    return {column.path: (column.physical_type, str(column.logical_type)) for column in columns}


def first_chunk(path: Path, column: int = 0) -> Any:
    return pq.read_metadata(path).row_group(0).column(column)


def in_microseconds(path: Path) -> pa.Table:
    return pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()


def without_new(path: Path, table: pa.Table) -> None:
    """Check that a file has a table's columns, and the entities after them."""
    found = in_microseconds(path)
    assert found.column_names == [*table.column_names, "entities"]
    assert found.drop_columns("entities").equals(table)


def test_file_of_spark(tmp_path: Path) -> None:
    """Decimals stay integers and timestamps INT96; timestamps of the years 1 and 9999 keep their values."""
    path = FOLDER / "spark.parquet"
    output = converted(path, tmp_path / "out.parquet")
    without_new(output, in_microseconds(path))
    times = in_microseconds(output)["moment"].to_pylist()
    assert times == MOMENTS

    before, after = leaves(path), leaves(output)
    assert {"INT96", "INT32", "INT64", "FIXED_LEN_BYTE_ARRAY"} <= {physical for physical, _ in before.values()}
    assert {name: after[name] for name in before} == before
    schema = json.loads(pq.read_metadata(output).metadata[SPARK_KEY])
    assert [field["name"] for field in schema["fields"]] == pq.read_schema(output).names


def test_timestamps_of_two_physical_types_keep_their_values(tmp_path: Path) -> None:
    """Pyarrow writes all timestamps as INT96 or none, and INT96 for others would be another type for Spark."""
    path = FOLDER / "spark_ntz.parquet"
    output = converted(path, tmp_path / "out.parquet")
    without_new(output, in_microseconds(path))
    assert leaves(output)["local"] == leaves(path)["local"]


def test_file_of_rust(tmp_path: Path) -> None:
    """Bloom filters, page index, sorting and metadata of the file alone are there again."""
    output = converted(RUST, tmp_path / "out.parquet")
    without_new(output, pq.read_table(RUST))
    assert pq.read_metadata(output).metadata[b"owner"] == b"us"
    assert b"owner" not in (pq.read_schema(output).metadata or {})
    order = pq.read_metadata(RUST).row_group(0).sorting_columns
    assert order
    assert pq.read_metadata(output).row_group(0).sorting_columns == order
    for column in range(4):
        before, after = first_chunk(RUST, column), first_chunk(output, column)
        assert after.bloom_filter_length == before.bloom_filter_length
        assert after.has_column_index == before.has_column_index is True
    assert first_chunk(output, 4).bloom_filter_length is None

    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe(?, ?, ?)"
    # One answer per row group; the name is in the first.
    for value, excluded in {"Ada Lovelace was born in London.": [False, True], "x": [True, True]}.items():
        found = duckdb.execute(probe, [str(output), "text", value]).fetchall()
        assert [answer for (answer,) in found] == excluded


def test_file_of_fastparquet(tmp_path: Path) -> None:
    """Nanoseconds stay, and pandas restores the index."""
    path = FOLDER / "fastparquet.parquet"
    output = converted(path, tmp_path / "out.parquet")
    before, after = pq.read_table(path), pq.read_table(output)
    assert after["time"].equals(before["time"])
    assert after["time"][0].as_py().nanosecond == 1
    frame = after.to_pandas()
    assert frame.index.name == "id"
    assert frame.drop(columns="entities").equals(before.to_pandas())


def test_small_files_keep_less(tmp_path: Path) -> None:
    """What the input has not, the output has not either."""
    path = tmp_path / "in.parquet"
    values = [Decimal("1.20")]
    pq.write_table(pa.table({"text": ["a"], "d": values, "t": [dt.datetime(2020, 1, 1)]}), path)  # noqa: DTZ001
    output = converted(path, tmp_path / "out.parquet")
    assert {name: leaves(output)[name] for name in leaves(path)} == leaves(path)
    chunk = first_chunk(output)
    assert (chunk.bloom_filter_length, chunk.has_column_index) == (None, False)
    assert pq.read_metadata(output).row_group(0).sorting_columns == ()


def test_order_ends_before_a_replaced_column(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"entities": ["x"], "text": ["a"], "n": [1]})
    order = [pq.SortingColumn(2, descending=True), pq.SortingColumn(1), pq.SortingColumn(0)]
    pq.write_table(table, path, sorting_columns=order)
    output = converted(path, tmp_path / "out.parquet", replace=True)
    new = len(list(ENTITIES.type.value_type))
    assert pq.read_metadata(output).row_group(0).sorting_columns == (
        pq.SortingColumn(new + 1, descending=True),
        pq.SortingColumn(new),
    )


def test_long_layout_keeps_the_type_of_the_key(tmp_path: Path) -> None:
    layout = Layout(ENTITIES, "long", key="moment")
    output = converted(FOLDER / "spark.parquet", tmp_path / "out.parquet", layout=layout)
    assert leaves(output)["moment"] == ("INT96", "None")
    assert in_microseconds(output)["moment"].to_pylist()[0].year == 9999


@pytest.mark.parametrize("version", ["1.0", "2.4", "2.6"])
@pytest.mark.parametrize("store_schema", [True, False])
def test_types_of_older_files_are_not_taken_for_lost(tmp_path: Path, version: str, store_schema: bool) -> None:  # noqa: FBT001 - a parameter
    """Old versions of the format name fewer types; an Arrow schema in the file adds some."""
    numbers = pa.array([86_400_000_000_000])  # a day in nanoseconds, so that coarser units hold it
    kinds = ["uint8", "uint32", "uint64", "timestamp[ns]", "timestamp[s]", "duration[s]"]
    columns = {kind: (numbers if "[" in kind else pa.array([1])).cast(pa.type_for_alias(kind)) for kind in kinds}
    columns |= {"day": pa.array([dt.date(2020, 1, 1)], pa.date64()), "clock": pa.array([dt.time(1)], pa.time64("ns"))}
    columns |= {"zone": numbers.cast(pa.timestamp("ns", "Europe/Paris")), "price": pa.array([Decimal("1.20")])}
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a"], **columns}), path, version=version, store_schema=store_schema)
    without_new(converted(path, tmp_path / "out.parquet"), pq.read_table(path))


def duckdb_file(folder: Path, columns: str) -> Path:
    path = folder / "in.parquet"
    duckdb.execute(f"COPY (SELECT 'Ada' AS text, {columns}) TO '{path}'")
    return path


def test_times_in_utc_stay_so(tmp_path: Path) -> None:
    path = duckdb_file(tmp_path, "'12:00:00+00'::timetz AS z")
    output = converted(path, tmp_path / "out.parquet")
    assert leaves(output)["z"] == leaves(path)["z"]
    found = duckdb.execute(f"SELECT typeof(z), z = '12:00:00+00'::timetz FROM '{output}'").fetchall()  # noqa: S608
    assert found == [("TIME WITH TIME ZONE", True)]


@pytest.mark.parametrize(
    ("columns", "lost"),
    [
        ("interval '1 month' AS i", "i"),
        ("struct_pack(i := interval '1 month') AS s", "s.i"),
        ("{'a': 1}::variant AS v", "v"),
        ("'12:00:00+00'::timetz AS z, '12:00:00'::time AS t", "t"),
    ],
)
def test_type_that_would_be_lost_ends_the_run(tmp_path: Path, columns: str, lost: str) -> None:
    path = duckdb_file(tmp_path, columns)
    with fails(OutputError, "type-would-be-lost", column=lost):
        converted(path, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [path]
    # The column is not in the output.
    converted(path, tmp_path / "long.parquet", layout=Layout(ENTITIES, "long"))


@pytest.mark.parametrize(("name", "column"), [("variant", "v"), ("geometry", "place"), ("geography", "place")])
def test_types_of_spark_that_would_be_lost(tmp_path: Path, name: str, column: str) -> None:
    with fails(OutputError, "type-would-be-lost", column=column):
        converted(FOLDER / f"spark_{name}.parquet", tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


def damaged(folder: Path, **options: Any) -> Path:
    """Make a file of two row groups and change a value in the second."""
    table = pa.table({"n": range(20), "text": [f"value-{i:04}" for i in range(20)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=10, compression="NONE", use_dictionary=False, **options)
    content = bytearray(buffer.getvalue())
    # The first occurrence is in a page, the others in statistics.
    content[content.index(b"value-0017") + len("value-")] = ord("9")
    path = folder / "in.parquet"
    path.write_bytes(content)
    return path


def test_wrong_checksum_names_the_column(tmp_path: Path) -> None:
    path = damaged(tmp_path, write_page_checksum=True)
    refused(path, "wrong-checksum", row_group=1, column="text")


def test_wrong_checksum_in_the_first_row_group(tmp_path: Path) -> None:
    path = damaged(tmp_path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index(b"value-0003")] ^= 1
    path.write_bytes(content)
    refused(path, "wrong-checksum", row_group=0, column="text")


def test_file_without_checksums_is_read(tmp_path: Path) -> None:
    with opened(damaged(tmp_path)) as source:
        assert sum(rows.num_rows for rows in source.batches()) == 20


def test_rewritten_files_have_checksums(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["Ada Lovelace"]}), path, compression="NONE", use_dictionary=False)
    output = converted(path, tmp_path / "out.parquet")
    content = bytearray(output.read_bytes())
    content[content.index(b"Ada Lovelace")] ^= 1
    output.write_bytes(content)
    refused(output, "wrong-checksum", column="text")


# Microseconds that INT96 holds: its days are counted from 4713 BC.
MICROSECONDS = st.integers(-62135596800 * 10**6, 2**63 - 2 * 10**6)


def int96_file(path: Path, columns: dict[str, pa.Array]) -> Path:
    table = pa.table({"text": ["a"] * len(next(iter(columns.values()))), **columns})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, row_group_size=2)
    return path


@given(micro=st.lists(st.none() | MICROSECONDS, min_size=1, max_size=5))
def test_any_microseconds_are_read_as_they_are(micro: list[int | None], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("int96")
    times = pa.array(micro, pa.timestamp("us"))
    nested = pa.array([[{"t": value}] for value in micro], pa.list_(pa.struct([("t", pa.timestamp("us"))])))
    output = converted(int96_file(folder / "in.parquet", {"t": times, "n": nested}), folder / "out.parquet")
    found = in_microseconds(output)
    assert found["t"].combine_chunks().equals(times)
    assert [row[0]["t"] for row in found["n"].cast(pa.list_(pa.struct([("t", pa.int64())]))).to_pylist()] == micro


@given(nano=st.lists(st.none() | st.integers(-(2**63) + 2 * 10**9, 2**63 - 2 * 10**9), min_size=1, max_size=5))
def test_any_nanoseconds_are_read_as_they_are(nano: list[int | None], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("int96")
    times = pa.array(nano, pa.timestamp("ns"))
    output = converted(int96_file(folder / "in.parquet", {"t": times}), folder / "out.parquet")
    assert pq.read_table(output)["t"].combine_chunks().equals(times)


FAR = 253402300799 * 10**6  # the end of the year 9999


@pytest.mark.parametrize(
    ("columns", "place"),
    [
        ({"far": pa.array([0, 0, 0, FAR], pa.timestamp("us")), "fine": pa.array([1] * 4, pa.timestamp("ns"))}, 1),
        ({"far": pa.array([FAR] * 4, pa.timestamp("us")), "fine": pa.array([0, 0, 0, 1], pa.timestamp("ns"))}, 0),
    ],
)
def test_timestamps_that_fit_in_no_type(tmp_path: Path, columns: dict[str, pa.Array], place: int) -> None:
    path = int96_file(tmp_path / "in.parquet", columns)
    refused(path, "timestamp-outside", row_group=place, column="far")


def test_timestamps_beyond_all_types(tmp_path: Path) -> None:
    """The day is the last one that fits in 32 bits; pyarrow reads another one in microseconds, without an error."""
    path = tmp_path / "in.parquet"
    buffer = io.BytesIO()
    table = pa.table({"text": ["a"], "far": pa.array([12345], pa.timestamp("us"))})
    pq.write_table(table, buffer, use_deprecated_int96_timestamps=True, compression="NONE", use_dictionary=False)
    value = np.array([12345 * 1000], "<i8").tobytes() + np.array([2440588], "<i4").tobytes()
    assert buffer.getvalue().count(value) == 1
    path.write_bytes(buffer.getvalue().replace(value, value[:8] + np.array([2**31 - 1], "<i4").tobytes()))
    refused(path, "timestamp-outside", row_group=0, column="far")


def test_damaged_int96_column(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    table = pa.table({"text": ["a"] * 999, "t": pa.array(range(999), pa.timestamp("us"))})
    pq.write_table(table, buffer, use_deprecated_int96_timestamps=True, write_page_checksum=True)
    content = bytearray(buffer.getvalue())
    chunk = pq.read_metadata(buffer).row_group(0).column(1)
    content[chunk.data_page_offset + 40] ^= 0xFF
    path = tmp_path / "in.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        opened(path)
    assert caught.value.reason in ("damaged-parquet", "wrong-checksum")
