"""CSV and TSV: read as pyarrow and Python's csv module read them, written so that both read the same texts back."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.csv import CSV
from nerd_onnx.formats.interfaces import RowBatch, WriteOptions
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.tagged_file import tagged_rows
from nerd_onnx.storage.location import Location
from tests.support.failures import fails
from tests.support.tables_io import (
    ENTITIES,
    Writer,
    all_texts,
    converted,
    invalid_utf8,
    opened,
    query,
    read,
    refused,
)

FIELDS = st.none() | st.text(st.sampled_from('ab ä😀,;\t"\n\r|#'), max_size=6) | st.text(max_size=6)
ROWS = st.lists(st.tuples(FIELDS, FIELDS, FIELDS), max_size=8)
# More quotes, delimiters and line ends than letters, and a byte that is no UTF-8.
HOSTILE = st.lists(
    st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"\xff", b"1,Paris\n"]), max_size=40
)


def as_python_writes(rows: Sequence[Sequence[str | None]], **dialect: Any) -> bytes:
    """Return rows as the csv module of Python writes them."""
    content = io.StringIO(newline="")
    csv.writer(content, **dialect).writerows(rows)
    return content.getvalue().encode("utf-8")


def values(batches: list[RowBatch]) -> list[tuple[str | None, ...]]:
    """Return the rows of batches as tuples."""
    return [tuple(row.values()) for rows in batches if rows.table for row in rows.table.to_pylist()]


@given(rows=ROWS, delimiter=st.sampled_from([",", "\t"]), end=st.sampled_from(["\n", "\r\n"]), quotes_all=st.booleans())
def test_what_python_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], delimiter: str, end: str, *, quotes_all: bool
) -> None:
    path = tmp_path_factory.mktemp("read") / ("a.csv" if delimiter == "," else "a.tsv")
    # Python quotes a carriage return only if it is in the line terminator, and without quotes it ends a line.
    assume(quotes_all or "\r" in end or not any("\r" in (field or "") for row in rows for field in row))
    quoting = csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL
    content = [("id", "text", "other"), *rows]
    path.write_bytes(as_python_writes(content, delimiter=delimiter, lineterminator=end, quoting=quoting))
    # Python writes null as an empty text.
    expected = [tuple(field or "" for field in row) for row in rows]
    assert [tuple(field or "" for field in row) for row in values(read(path, batch_rows=3))] == expected


@given(rows=ROWS, name=st.sampled_from(["o.csv", "o.tsv", "o.csv.gz", "o.tsv.zst", "o.csv.xz", "o.tsv.bz2"]))
def test_what_is_written_is_read_by_this_program_and_by_others(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], name: str
) -> None:
    folder = tmp_path_factory.mktemp("written")
    columns = {column: pa.array([row[i] for row in rows], pa.string()) for i, column in enumerate(("id", "text", "n"))}
    pq.write_table(pa.table(columns), folder / "in.parquet")
    output = converted(folder / "in.parquet", folder / name)

    assert [row[:3] for row in values(read(output))] == rows
    if name == "o.csv":
        (header, *found) = csv.reader(io.StringIO(output.read_bytes().decode(), newline=""))
        assert header == ["id", "text", "n", "entities"]
        assert [tuple(row[:3]) for row in found] == [tuple(field or "" for field in row) for row in rows]
        assert [json.loads(row[3] or "null") is None for row in found] == [row[1] is None for row in rows]


@given(content=HOSTILE, sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_any_bytes_give_the_same_rows_in_batches_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], sizes: tuple[int, int]
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "a.csv"
    path.write_bytes(b"id,text\n" + b"".join(content))
    found = []
    for size in sizes:
        batches = read(path, batch_rows=size, lenient=True)
        rejected = [(row.row, row.line, row.reason, row.raw) for rows in batches for row in rows.rejected]
        numbers = [rows.number(i) for rows in batches for i in range(rows.num_rows)]
        assert sorted([*numbers, *(row for row, *_ in rejected)]) == list(range(len(numbers) + len(rejected)))
        found.append((values(batches), rejected))
    assert found[0] == found[1]

    rejected = found[0][1]
    if rejected:
        refused(path, str(fails_as(path)), row=rejected[0][1])
    else:
        assert values(read(path)) == found[0][0]


def fails_as(path: Path) -> str | None:
    """Return the reason of the error that reading a file ends in."""
    with pytest.raises(InputError) as caught:
        read(path)
    return caught.value.reason


@pytest.mark.parametrize(
    ("row", "reason", "fields"),
    [
        (b"2", "field-count", {"found": 1, "expected": 2}),
        (b"2,Rome,x", "field-count", {"found": 3, "expected": 2}),
        (b"2,R\xffme", "not-utf8", {"byte": 4}),
        (b'2,"Rome" x', "bad-quotes", {}),
        (b'2,"Rome', "bad-quotes", {}),
        (b"2,Ro\rme", "stray-carriage-return", {}),
    ],
)
def test_a_row_that_cannot_be_read(write: Writer, row: bytes, reason: str, fields: dict[str, Any]) -> None:
    path = write("a.csv", b'id,text\r\n1,"Par\r\nis"\r\n' + row + b"\r\n3,Berlin\r\n")
    refused(path, reason, row=4, **fields)
    (rows,) = read(path, lenient=True)
    assert all_texts([rows]) == ["Par\r\nis", "Berlin"]
    (rejected,) = rows.rejected
    assert (rejected.row, rejected.line, rejected.raw, rejected.index) == (1, 4, row + b"\r", None)
    assert [rows.place(i) for i in range(2)] == ["line 2", "line 5"]


def test_a_stray_quote_costs_one_row_of_a_million_characters(write: Writer) -> None:
    lines = [b"%d,%s" % (i, b"x" * 100) for i in range(10_000)]
    lines[5] = b'5,"x'
    path = write("a.csv", b"id,text\n" + b"\n".join(lines))
    batches = read(path, lenient=True)
    assert [row.row for rows in batches for row in rows.rejected] == [5]
    assert len(all_texts(batches)) == 9_999


@pytest.mark.slow
def test_a_quoted_field_is_within_the_limit_of_a_line(write: Writer) -> None:
    path = write("a.csv", b'id,text\n1,"' + b"x\n" * 500 + b'"\n2,Paris\n')
    assert all_texts(read(path, line_bytes=2000)) == ["x\n" * 500, "Paris"]
    refused(path, "bad-quotes", {"line_bytes": 200}, row=2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,body\n1,Paris\n", "column-missing"),
        (b"text,text\n1,Paris\n", "column-ambiguous"),
        (b"id;body\n1;Paris\n", "column-missing"),
        (b"id,\xff\n", "not-utf8"),
        (b'id,"text', "bad-quotes"),
        (b"id,text\r1,Paris\r", "stray-carriage-return"),
        (b'id,"\rtext"x\n1,Paris\n', "bad-quotes"),
        (b"id,te\rxt\n1,Paris\n", "stray-carriage-return"),
        ("id,text\n1,Paris\n".encode("utf-16"), "other-format"),
        (b"id,text\n1,Paris\n" * 2 + b"PK\x03\x04", "field-count"),
        (gzip.compress(b"id,text\n1,Paris\n" * 99, mtime=0)[:-9], "damaged-compression"),
    ],
)
def test_a_file_that_cannot_be_read(write: Writer, content: bytes, reason: str) -> None:
    refused(write("a.csv", content), reason)


def test_headers(write: Writer) -> None:
    with opened(write("a.csv", b'\xef\xbb\xbftext,"n, ""x""\ny",,text 2\nParis,1,,\n')) as source:
        assert source.column_names == ["text", 'n, "x"\ny', "", "text 2"]
    assert all_texts(read(write("b.csv", "ORCID,text\n1,Paris\n"))) == ["Paris"]
    assert read(write("c.csv", "text")) == read(write("d.csv", "\n\r\n")) == []
    with opened(write("e.csv.gz", gzip.compress(b"", mtime=0))) as source:
        assert (source.num_rows, source.column_names) == (0, ["text"])


def test_null_and_empty_texts_are_different(write: Writer) -> None:
    path = write("a.csv", 'id,text\n1,\n2,""\n')
    assert all_texts(read(path)) == [None, ""]
    assert converted(path, path.with_name("o.csv")).read_text() == 'id,text,entities\n1,,\n2,"",[]\n'


def test_values_of_other_types_are_those_of_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["Paris"],
            "n": pa.array([1.5], pa.float32()),
            "flag": [True],
            "price": [decimal.Decimal("1.20")],
            "day": [dt.date(2020, 1, 31)],
            "tags": [["a", 'b"c']],
            "one": pa.array(["x"]).dictionary_encode(),
            "none": pa.nulls(1),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    output = converted(tmp_path / "in.parquet", tmp_path / "o.csv")
    (row,) = csv.DictReader(io.StringIO(output.read_text()))
    assert list(row.values())[:-1] == ["Paris", "1.5", "true", "1.20", "2020-01-31", '["a", "b\\"c"]', "x", ""]


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.csv.gz"])
def test_long_rows_have_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They are written in pieces: here all rows are."""
    texts = ['a,b "q"', "", None, "plain", "line\nbreak", "cr\rx", "tab\t", '"', 'é😀 , "']
    lists = [["x,y"], None, [], [None], ['a"b'], *[["z"]] * 4]
    table = pa.table({"text": texts, "list": lists, "n": [None, *range(8)], "empty": [""] * 9})
    pq.write_table(table, tmp_path / "in.parquet")
    expected = converted(tmp_path / "in.parquet", tmp_path / f"short-{name}").read_bytes()
    monkeypatch.setattr("nerd_onnx.formats.csv.writer._LONG_BYTES", -1)
    monkeypatch.setattr("nerd_onnx.formats.csv.writer._PIECE_BYTES", 3)
    assert converted(tmp_path / "in.parquet", tmp_path / name).read_bytes() == expected


def test_duckdb_reads_the_entities_as_json(write: Writer) -> None:
    output = converted(write("a.csv", 'id,text\n1,"Paris, ""x"""\n2,\n'), Path(write("o", "")).with_name("o.csv"))
    found = query(f"SELECT id, text, (entities->0->>'text') FROM read_csv('{output}', header = true)")  # noqa: S608
    assert found.fetchall() == [(1, 'Paris, "x"', "Par"), (2, None, None)]


@pytest.mark.parametrize("name", ["o.csv", "o.tsv.gz"])
def test_a_tagged_file_is_read_like_json_lines(write: Writer, name: str) -> None:
    source = write("a.jsonl", '{"text": "Münster\\n"}\n{"text": null}\n{"text": ""}\n')
    expected = converted(source, source.with_name("o.jsonl"))
    output = converted(source, source.with_name(name))
    for found, row in zip(tagged_rows(str(output)), tagged_rows(str(expected)), strict=True):
        assert (found.number, found.text, found.entities) == (row.number, row.text, row.entities)
    with fails(InputError, "not-entities", row=2):
        list(tagged_rows(str(write("b.csv", "text,entities\nParis,none\n"))))


def test_an_existing_column_is_replaced_in_its_place(write: Writer) -> None:
    path = write("a.csv", "entities,text\nold,Paris\n")
    with fails(OutputError, "column-exists", column="entities"):
        converted(path, path.with_name("o.csv"))
    output = converted(path, path.with_name("o.csv"), replace=True)
    assert output.read_text().startswith('entities,text\n"[{""start"": 0')


def test_the_long_layout(write: Writer) -> None:
    path = write("a.csv", "id,text\n7,Paris\n8,\n9,Rom\n")
    output = converted(path, path.with_name("o.csv"), layout=Layout(ENTITIES, "long", key="id"))
    assert output.read_text() == "id,start,end,label,score,text\n7,0,3,person,0.0,Par\n9,0,3,person,1.0,Rom\n"


def test_a_text_that_is_no_utf8_is_left_out_of_a_file_of_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": invalid_utf8()}), tmp_path / "in.parquet")
    with opened(tmp_path / "in.parquet", typed=True, lenient=True) as source:
        (rows,) = source.batches()
    with CSV.open_writer(Location(str(tmp_path / "o.csv")), options_for(source)) as output:  # type: ignore[misc]
        assert list(output.unfit(rows)) == [2]


def options_for(source: Any) -> Any:
    """Return usual options of a writer."""
    return WriteOptions(source, Layout(ENTITIES), {}, replace=False, overwrite=False)


@pytest.mark.parametrize(
    ("content", "cheap", "whole"),
    [
        (b"id,text\n", True, True),
        (b'id,text\n1,"a\nb"\n', True, True),
        (b"id,text\n1,a", False, False),
        (b'id,text\n1,"a\n', True, False),
        (b"", True, False),
        (gzip.compress(b"id,text\n" + b"1,Paris\n" * 99, mtime=0)[:-9], True, False),
    ],
)
def test_a_finished_output_is_looked_at(write: Writer, content: bytes, *, cheap: bool, whole: bool) -> None:
    path = write("o.csv.gz", content)
    for verify, is_complete in ((False, cheap), (True, whole)):
        if is_complete:
            CSV.check_complete(Location(str(path)), verify)  # type: ignore[misc]
        else:
            with fails(OutputError, "incomplete-output", file=path):
                CSV.check_complete(Location(str(path)), verify)  # type: ignore[misc]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
@pytest.mark.parametrize("quoted", [False, True])
def test_the_delimiter_is_the_one_that_gives_the_text_column(tmp_path: Path, delimiter: str, *, quoted: bool) -> None:
    """Quoted fields may have the other delimiters."""
    others = "".join({",", ";", "|", "\t"} - {delimiter})
    content = io.StringIO(newline="")
    writing = csv.writer(content, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else 0)
    writing.writerows([["a b", "text", f"x{others}"], ["1", f"Paris{others}{delimiter}\n", "y"], ["2", "Rome", ""]])
    path = tmp_path / "a.csv"
    path.write_text(content.getvalue())
    (rows,) = read(path)
    assert all_texts([rows]) == [f"Paris{others}{delimiter}\n", "Rome"]
    assert rows.table is not None
    assert rows.table.schema.names == ["a b", "text", f"x{others}"]

    output = converted(path, tmp_path / "o.csv")
    assert output.read_text().startswith("a b,text,")
    refused(path, "column-missing", {"text_column": "body"}, column="body")


def test_a_name_may_have_another_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;more\nParis;Rome\n")
    assert all_texts(read(tmp_path / "a.csv", text_column="text;more")) == ["Paris;Rome"]
    assert all_texts(read(tmp_path / "a.csv")) == ["Paris"]
