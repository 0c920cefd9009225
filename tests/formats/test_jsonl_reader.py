"""JSON Lines in: raw lines byte for byte, typed columns of one schema, every bad line by its number."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import InputError
from tests.support.failures import fails
from tests.support.profiles import example_count
from tests.support.tables_io import (
    JSON_ROWS,
    JSON_VALUES,
    Writer,
    all_lines,
    all_texts,
    opened,
    read,
    refused,
)


def zstd_frames(content: bytes) -> bytes:
    middle = len(content) // 2
    return zstandard.compress(content[:middle]) + zstandard.compress(content[middle:])


def gzip_members(content: bytes) -> bytes:
    middle = len(content) // 2
    return gzip.compress(content[:middle]) + gzip.compress(content[middle:])


def xz_streams(content: bytes) -> bytes:
    middle = len(content) // 2
    return lzma.compress(content[:middle]) + bytes(8) + lzma.compress(content[middle:])


def bzip2_streams(content: bytes) -> bytes:
    middle = len(content) // 2
    return bz2.compress(content[:middle]) + bz2.compress(content[middle:])


PACKS = [gzip.compress, zstandard.compress, lzma.compress, bz2.compress]
SEVERAL = [gzip_members, zstd_frames, xz_streams, bzip2_streams]


@settings(max_examples=example_count(60), deadline=None)
@given(
    rows=JSON_ROWS,
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", " \n", "\n\n", "\r\n \t\r\n"]),
    last_end=st.booleans(),
    mark=st.booleans(),
    pack=st.sampled_from([bytes, *PACKS, *SEVERAL]),
    batch_rows=st.integers(1, 4),
)
def test_any_rows_come_through_byte_for_byte(
    *,
    rows: list[dict[str, Any]],
    ascii_only: bool,
    end: str,
    last_end: bool,
    mark: bool,
    pack: Callable[[bytes], bytes],
    batch_rows: int,
) -> None:
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    content = end.join(lines) + (end if last_end else "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(pack((b"\xef\xbb\xbf" if mark else b"") + content.encode()))
        batches = read(path, batch_rows=batch_rows)
    assert all_texts(batches) == [row["text"] for row in rows]
    assert [line.rstrip() for line in all_lines(batches)] == [line.encode() for line in lines]
    numbers = [number for batch in batches for number in batch.line_numbers or ()]
    assert numbers == [1 + i * end.count("\n") for i in range(len(rows))]
    assert [rows.first_row for rows in batches] == list(range(0, len(lines), batch_rows))


def test_carriage_return_stays(write: Writer) -> None:
    assert all_lines(read(write("a.jsonl", b'{"text": "a"}\r\n{"text": "b"}'))) == [
        b'{"text": "a"}\r',
        b'{"text": "b"}',
    ]


def test_unicode_line_separators_end_no_line(write: Writer) -> None:
    assert all_texts(read(write("a.jsonl", '{"text": "a\u2028b\x85c"}\n'))) == ["a\u2028b\x85c"]


def test_rows_without_the_field_are_null(write: Writer) -> None:
    batches = read(write("a.jsonl", '{"a": 1}\n{}\n{"text": "b"}\n'))
    assert all_texts(batches) == [None, None, "b"]


def test_field_nowhere_lists_the_keys(write: Writer) -> None:
    path = write("a.jsonl", '{"a": 1}\n{"b": 2, "c": 3}\n')
    refused(path, "column-missing", column="text", found="a, b, c")
    refused(path, "column-missing", {"typed": True}, column="text", found="a, b, c")


def test_many_keys_are_not_all_listed(write: Writer) -> None:
    path = write("a.jsonl", json.dumps({f"key{i}": i for i in range(1000)}))
    assert str(refused(path, "column-missing").fields["found"]).endswith("key19 and 980 more")


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r"a\ud800b", "a\ufffdb"),
        (r"\udc00\ud800", "\ufffd\ufffd"),
        (r"\ud83d\ude00", "😀"),
        (r"\uD83D\uDE00\uDE00", "😀\ufffd"),
    ],
)
def test_surrogates(write: Writer, escaped: str, expected: str) -> None:
    line = f'{{"text": "{escaped}", "other": "{escaped}"}}'
    batches = read(write("a.jsonl", line))
    assert all_texts(batches) == [expected]
    assert all_lines(batches) == [line.encode()]
    typed = read(write("a.jsonl", line), typed=True)[0].table
    assert typed is not None
    assert typed.to_pylist() == [{"text": expected, "other": expected}]


def test_numbers_of_any_length_pass(write: Writer) -> None:
    line = '{"text": "a", "n": ' + "9" * 6000 + "}"
    assert all_lines(read(write("a.jsonl", line))) == [line.encode()]
    refused(write("a.jsonl", line), "number-too-large", {"typed": True}, row=1)


def test_huge_row_is_a_batch_of_its_own(write: Writer) -> None:
    texts = ["a", "b", "c" * 2_000_000, "d", "e"]
    path = write("a.jsonl", "\n".join(json.dumps({"text": text}) for text in texts))
    batches = read(path, batch_bytes=1000)
    assert [rows.num_rows for rows in batches] == [2, 1, 2]
    assert all_texts(batches) == texts


@pytest.mark.parametrize("limit", [0, 1, 3, 9])
@pytest.mark.parametrize("typed", [False, True])
def test_stops_at_the_limit(write: Writer, limit: int, *, typed: bool) -> None:
    path = write("a.jsonl", "".join(f'{{"text": "{i}"}}\n' for i in range(5)) + "broken")
    if limit < 5:
        assert all_texts(read(path, limit=limit, batch_rows=2, typed=typed)) == [str(i) for i in range(limit)]
    else:
        refused(path, "not-json", {"limit": limit, "typed": typed}, row=6)


def test_progress_ends_at_one(write: Writer) -> None:
    path = write("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 50))
    with opened(path) as source:
        assert source.num_rows is None
        list(source.batches())
        assert source.progress() == 1.0


def test_blank_file_has_no_rows(write: Writer) -> None:
    assert read(write("a.jsonl", "\n\r\n  \n")) == read(write("a.jsonl.gz", gzip.compress(b""))) == []


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    ("line", "reason", "fields"),
    [
        (b'{"text": "a"', "not-json", {"character": 13}),
        (b'{"text": "a"} {"text": "b"}', "not-json", {"character": 15}),
        (b"{'text': 'a'}", "not-json", {"character": 2}),
        (b'["text"]', "not-object", {"found": "an array"}),
        (b"null", "not-object", {"found": "null"}),
        (b'"text"', "not-object", {"found": "a string"}),
        (b'{"text": 5}', "not-text", {"column": "text", "found": "a number"}),
        (b'{"text": true}', "not-text", {"column": "text", "found": "a boolean"}),
        (b'{"text": ["a"]}', "not-text", {"column": "text", "found": "an array"}),
        (b'{"text": {}}', "not-text", {"column": "text", "found": "an object"}),
        (b'{"text": "\xff"}', "not-utf8", {"byte": 11}),
        (b'{"text": "\xed\xa0\x80"}', "not-utf8", {"byte": 11}),
        (b'{"text": "a", "b": ' + b"[" * 100_000, "too-deep", {}),
    ],
)
@pytest.mark.parametrize("batch_rows", [1, 100])
def test_bad_line_number_and_reason(
    write: Writer, line: bytes, reason: str, fields: dict[str, Any], batch_rows: int, *, typed: bool
) -> None:
    path = write("a.jsonl", b'{"text": "fine"}\n\n{"text": "fine"}\n' + line + b'\n{"text": "fine"}\n')
    refused(path, reason, {"typed": typed, "batch_rows": batch_rows}, row=4, **fields)


@pytest.mark.parametrize("pack", [*PACKS, *SEVERAL])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("typed", [False, True])
def test_cut_stream(write: Writer, pack: Callable[[bytes], bytes], kept: float, *, typed: bool) -> None:
    content = "".join(json.dumps({"text": os.urandom(30).hex()}) + "\n" for _ in range(3000)).encode()
    packed = pack(content)
    err = refused(write("a.jsonl.gz", packed[: int(len(packed) * kept)]), "damaged-compression", {"typed": typed})
    assert int(err.fields["row"]) < 3000


@pytest.mark.parametrize("pack", PACKS)
def test_damaged_stream(write: Writer, pack: Callable[[bytes], bytes]) -> None:
    packed = bytearray(pack(b'{"text": "abc"}\n' * 1000))
    packed[len(packed) // 2 :] = b"\xaa" * (len(packed) - len(packed) // 2)
    refused(write("a.jsonl.zst", bytes(packed)), "damaged-compression")


def test_file_of_a_large_zstd_window(write: Writer) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(b'{"text": "abc"}\n') + packer.flush()
    assert all_texts(read(write("a.jsonl.zst", packed))) == ["abc"]


def typed_table(write: Writer, *lines: str, **options: Any) -> pa.Table:
    batches = read(write("a.jsonl", "\n".join(lines)), typed=True, **options)
    tables = [rows.table for rows in batches if rows.table is not None]
    assert all(rows.lines is None for rows in batches)
    return pa.Table.from_batches(tables)


def test_typed_one_schema_for_all_rows(write: Writer) -> None:
    rows = [
        '{"text": "a", "i": 1, "d": "2020-01-01T00:00:00Z", "nothing": null, "empty": {}, "e": [{}, {}]}',
        '{"i": 2.5, "s": {"x": 1}, "l": [], "b": true}',
        '{"text": null, "big": 18446744073709551615, "s": {"y": ["q"], "x": null}, "l": [{"z": 1}, null]}',
    ]
    table = typed_table(write, *rows, batch_rows=1)
    expected = pa.schema(
        [
            ("text", pa.string()),
            ("i", pa.float64()),
            ("d", pa.string()),
            ("nothing", pa.null()),
            ("empty", pa.null()),
            ("e", pa.list_(pa.field("element", pa.null()))),
            ("s", pa.struct([("x", pa.int64()), ("y", pa.list_(pa.field("element", pa.string())))])),
            ("l", pa.list_(pa.field("element", pa.struct([("z", pa.int64())])))),
            ("b", pa.bool_()),
            ("big", pa.uint64()),
        ]
    )
    assert table.schema.equals(expected, check_metadata=True)
    third = table.slice(2, 1).to_pylist()[0]
    assert third["s"] == {"x": None, "y": ["q"]}
    assert third["l"] == [{"z": 1}, None]
    assert third["big"] == 2**64 - 1
    assert table["e"].to_pylist() == [[None, None], None, None]
    assert table["d"].to_pylist() == ["2020-01-01T00:00:00Z", None, None]


@settings(max_examples=example_count(40), deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": st.none() | st.text()}, optional={
    "i": st.none() | st.integers(-(2**63), 2**63 - 1),
    "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "s": st.none() | st.text(),
    "l": st.none() | st.lists(st.none() | st.booleans()),
    "o": st.none() | st.fixed_dictionaries({"a": st.text()}),
}), min_size=1))  # fmt: skip
def test_typed_uniform_rows_lose_nothing(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        batches = read(path, typed=True, batch_rows=3)
    found = [row for batch in batches if batch.table is not None for row in batch.table.to_pylist()]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    assert found == [{key: row.get(key) for key in keys} for row in rows]


@pytest.mark.parametrize(
    ("first", "second", "reason", "fields"),
    [
        ('"a"', "1", "mixed-types", {"column": "x", "found": "integer", "expected": "string"}),
        ("1", '"a"', "mixed-types", {"column": "x", "found": "string", "expected": "integer"}),
        ("true", "1.5", "mixed-types", {"column": "x", "found": "number", "expected": "boolean"}),
        ('{"y": [1]}', '{"y": [{}]}', "mixed-types", {"column": "x.y[]", "found": "object", "expected": "integer"}),
        ("-1", str(2**64 - 1), "number-too-large", {"column": "x"}),
        ("1.5", str(2**60), "number-too-large", {"column": "x"}),
        ("1", str(2**64), "number-too-large", {"column": "x"}),
        ("null", "[" * 200 + "]" * 200, "too-deep", {"maximum": 100}),
    ],
)
def test_typed_mixed_types(write: Writer, first: str, second: str, reason: str, fields: dict[str, Any]) -> None:
    path = write("a.jsonl", f'{{"text": "a", "x": {first}}}\n\n{{"text": "b", "x": {second}}}\n')
    refused(path, reason, {"typed": True}, row=3, **fields)
    assert all_texts(read(path)) == ["a", "b"]


def typed_rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    tables = [rows.table for rows in read(path, typed=True, **options) if rows.table is not None]
    return [row for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ('"a"', "1", ['"a"', "1"]),
        ("true", "1.5", ["true", "1.5"]),
        ('"1"', "null", ["1", None]),  # not mixed
        ('"é\\n\\""', '{"k": [1, null]}', ['"é\\n\\""', '{"k": [1, null]}']),
        ('{"y": [1]}', '{"y": [{}, null]}', [{"y": ["1"]}, {"y": ["{}", None]}]),
        ('[1, "a", [2]]', "[]", [["1", '"a"', "[2]"], []]),
        ('{"a": {}, "b": 1}', '{"a": {}, "b": "c"}', [{"a": None, "b": "1"}, {"a": None, "b": '"c"'}]),
        ("{}", "1", ["{}", "1"]),
        ("-1", str(2**64 - 1), ["-1", str(2**64 - 1)]),
        ("1.5", str(2**60), ["1.5", str(2**60)]),
        ("1", str(2**64), ["1", str(2**64)]),
        ("NaN", '"a"', ["NaN", '"a"']),
        ("-Infinity", "false", ["-Infinity", "false"]),
    ],
)
def test_mixed_types_as_json_text(write: Writer, first: str, second: str, expected: list[Any]) -> None:
    lines = [f'{{"text": "a", "x": {value}, "n": {i}}}\n' for i, value in enumerate((first, second))]
    for rows, found in ((lines, expected), (lines[::-1], expected[::-1])):
        for size in (1, 2):
            table = typed_table(write, *rows, mixed_as_json=True, batch_rows=size)
            assert table["x"].to_pylist() == found
            assert table.schema.field("n").type == pa.int64()
    path = write("a.jsonl", '{"text": "a", "x": 1}\n{"text": "b", "x": ' + "[" * 200 + "]" * 200 + "}\n")
    refused(path, "too-deep", {"typed": True, "mixed_as_json": True}, row=2, maximum=100)


@settings(max_examples=example_count(40), deadline=None)
@given(values=st.lists(JSON_VALUES), size=st.integers(1, 4))
def test_json_text_loses_nothing(values: list[Any], size: int) -> None:
    values = [*values, 1, "y"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text("\n".join(json.dumps({"text": "a", "x": value}) for value in values), encoding="utf-8")
        found = [row["x"] for row in typed_rows(path, batch_rows=size, mixed_as_json=True)]
    assert [text if text is None else json.loads(text) for text in found] == values


def test_a_rejected_row_leaves_no_trace_in_the_types(write: Writer) -> None:
    """Also where its other fields were the first ones of their name, in objects and arrays."""
    bad = '{"text": "b", "new": {"k": "s"}, "list": ["s"], "o": {"p": "s", "q": "s"}, "x": "s"}'
    good = '{"text": "a", "x": 2, "new": 1, "list": [1], "o": {"p": 1}}'
    path = write("a.jsonl", '{"text": "a", "x": 1, "o": {}}\n' + bad + "\n" + good + "\n")
    (rows,) = read(path, typed=True, lenient=True)
    assert [(rejected.row, rejected.line) for rejected in rows.rejected] == [(1, 2)]
    assert rows.table is not None
    assert rows.table.to_pylist() == [
        {"text": "a", "x": 1, "o": {"p": None}, "new": None, "list": None},
        {"text": "a", "x": 2, "o": {"p": 1}, "new": 1, "list": [1]},
    ]


def test_typed_keys_that_are_data(write: Writer) -> None:
    rows = [json.dumps({"text": "a", "by_user": {f"u{i}-{j}": 1 for j in range(3000)}}) for i in range(5)]
    refused(write("a.jsonl", "\n".join(rows)), "too-many-keys", {"typed": True}, column="by_user", maximum=10_000)


def test_typed_text_always_null(write: Writer) -> None:
    assert typed_table(write, '{"text": null}').schema == pa.schema({"text": pa.string()})


def test_typed_no_rows(write: Writer) -> None:
    with opened(write("a.jsonl", "\n"), typed=True) as source:
        assert source.schema == pa.schema({"text": pa.string()})
        assert source.num_rows == 0
        assert list(source.batches()) == []


@pytest.mark.slow
def test_typed_file_changed_between_the_passes(write: Writer) -> None:
    line = '{"text": "a", "n": "1"}\n'
    path = write("a.jsonl", line * 200_000)
    with opened(path, typed=True) as source, path.open("r+") as file:
        file.write(line.replace('"1"', " 1 ") * 200_000)
        file.flush()
        with fails(InputError, "changed-while-read", file=path):
            list(source.batches())


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e309", "1.8e308", "123456789.5e999", "9" * 400 + ".0"])
@pytest.mark.parametrize("place", ["{}", "[{}]", '{{"deep": [0.5, {}]}}'])
def test_a_number_that_no_double_holds_is_no_infinity(write: Writer, number: str, place: str) -> None:
    good, bad = '{"text": "a", "n": null}', f'{{"text": "b", "n": {place.format(number)}}}'
    path = write("a.jsonl", f"{good}\n{bad}\n{good}")
    refused(path, "number-too-large", {"typed": True}, row=2, found=number)
    (batch,) = read(path, typed=True, lenient=True)
    assert batch.texts.to_pylist() == ["a", "a"]
    assert [(rejected.row, rejected.line) for rejected in batch.rejected] == [(1, 2)]
    # Raw lines are carried as they are, because nothing interprets their numbers.
    assert all_lines(read(path))[1] == bad.encode()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("1e-400", 0.0),  # the nearest double
        ("5e-324", 5e-324),
        ("-0", 0),
        ("-0.0", -0.0),
        # Not JSON, but many programs write them, and a double holds them.
        ("Infinity", float("inf")),
        ("-Infinity", -float("inf")),
        ("18446744073709551615", (1 << 64) - 1),
        ("-9223372036854775808", -(1 << 63)),
    ],
)
def test_the_limits_of_numbers(write: Writer, number: str, expected: float) -> None:
    value = typed_table(write, f'{{"text": "a", "n": {number}}}')["n"][0].as_py()
    assert (value, str(value)) == (expected, str(expected))


def test_nan_stays_nan(write: Writer) -> None:
    assert str(typed_table(write, '{"text": "a", "n": NaN}')["n"][0].as_py()) == "nan"


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "9" * 400])
def test_whole_numbers_beyond_64_bits_are_rejected(write: Writer, number: str) -> None:
    path = write("a.jsonl", f'{{"text": "a", "n": {number}}}')
    refused(path, "number-too-large", {"typed": True}, row=1)
