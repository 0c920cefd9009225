"""JSON Lines out: raw lines keep every byte, typed rows have one documented form."""

from __future__ import annotations

import bz2
import datetime as dt
import decimal
import gzip
import json
import lzma
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.json_values import dumped, dumped_lists, json_values
from nerd_onnx.formats.jsonl import writer
from nerd_onnx.formats.jsonl.writer import JsonLinesWriter
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.storage.location import Location
from tests.support.failures import fails
from tests.support.profiles import example_count
from tests.support.tables_io import ENTITIES, JSON_ROWS, converted, invalid_utf8, opened

SPACE = st.text(st.sampled_from(" \t"), max_size=2)


def lines_of(path: Path) -> list[bytes]:
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content
    return content.split(b"\n")[:-1]


def tag(folder: Path, content: bytes | str, **options: Any) -> list[bytes]:
    path = folder / "in.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return lines_of(converted(path, folder / "out.jsonl", overwrite=True, **options))


def unfit(folder: Path, content: str, layout: Layout) -> Mapping[int, str]:
    path = folder / "in.jsonl"
    path.write_text(content)
    with (
        opened(path) as source,
        JsonLinesWriter(
            Location.of(folder / "out.jsonl"),
            source_name=str(path),
            source_schema=None,
            layout=layout,
            replace=False,
            overwrite=True,
        ) as writer,
    ):
        return writer.unfit(next(source.batches()))


@settings(max_examples=example_count(60), deadline=None)
@given(
    rows=JSON_ROWS, ascii_only=st.booleans(), end=st.sampled_from(["\n", "\r\n"]), space=st.tuples(SPACE, SPACE, SPACE)
)
def test_only_the_new_field_is_added(
    rows: list[dict[str, Any]], *, ascii_only: bool, end: str, space: tuple[str, str, str]
) -> None:
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    lines = [f"{space[0]}{line[:-1]}{space[1]}}}{space[2]}" for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        found = tag(Path(folder), end.join(lines) + end)
    assert len(found) == len(rows)
    for before, after, row in zip(lines, found, rows, strict=True):
        text = after.decode()
        value = json.loads(text)["entities"]
        assert (value is None) == (row["text"] is None)
        assert json.loads(text) == {**row, "entities": value}
        body, _, rest = f"{before}{end}".removesuffix("\n").rpartition("}")
        added = f', "entities": {json.dumps(value, ensure_ascii=False)}'
        assert text == f"{body.rstrip()}{added}}}{rest}"


def test_documented_form(tmp_path: Path) -> None:
    found = tag(tmp_path, '{"text":"Łódź is"}\n{ }\n{"a":1}\n{"text":""}\r\n')
    entity = '{"start": 0, "end": 3, "label": "person", "score": 0.0, "text": "Łód"}'
    assert [line.decode() for line in found] == [
        f'{{"text":"Łódź is", "entities": [{entity}]}}',
        '{"entities": null}',
        '{"a":1, "entities": null}',
        '{"text":"", "entities": []}\r',
    ]


def test_scores_have_the_digits_of_a_float32(tmp_path: Path) -> None:
    found = tag(tmp_path, '{"text": "a"}\n' * 11)
    scores = [json.loads(line)["entities"][0]["score"] for line in found]
    assert scores == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    "line",
    [
        '{"entities": 1, "text": "a"}',
        '{"text": "a", "entities" : null}',
        '{"text": "a", "\\u0065ntities": [{"x": "}"}]}',
        '{"text": "a", "n": 1.50, "entities": {"entities": 2} }',
    ],
)
def test_field_that_exists(tmp_path: Path, line: str) -> None:
    assert unfit(tmp_path, '{"text": "b"}\n\n' + line + "\n", Layout(ENTITIES)) == {1: "already has a field 'entities'"}


def test_field_that_is_replaced_in_its_place(tmp_path: Path) -> None:
    found = tag(
        tmp_path,
        '{ "entities" :{"x": "}"}, "n":1.50,"text": null}\n{"entities":1,"entities": 2,"text":null}',
        replace=True,
    )
    assert found == [b'{ "entities" :null, "n":1.50,"text": null}', b'{"entities":null,"entities": null,"text":null}']


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "entities"}',
        '{"text": "a", "b": {"entities": 1}}',
        '{"text": "a", "b": ["entities", {"entities": 1}], "c": "\\"entities\\": \\u00e9"}',
    ],
)
def test_field_that_only_seems_to_exist(tmp_path: Path, line: str) -> None:
    assert json.loads(tag(tmp_path, line)[0]).keys() == {*json.loads(line), "entities"}


@given(st.lists(st.none() | st.lists(st.none() | st.text(), max_size=9), max_size=9), st.text(), st.integers(1, 4))
@settings(deadline=None)
def test_pieces_are_the_whole(lists: list[list[str | None] | None], text: str, size: int) -> None:
    with patch.multiple("nerd_onnx.formats.json_values", _PIECE_ITEMS=size, _PIECE_CHARACTERS=size):
        found = ["".join(value) for value in dumped_lists(pa.array([None, *lists], pa.list_(pa.string())).slice(1))]
        assert found == [json.dumps(value, ensure_ascii=False) for value in lists]
        assert "".join(dumped(text)) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("name", ['a"b', "a/b", "é", "a\\b", ""])
def test_any_name(tmp_path: Path, name: str) -> None:
    field = pa.field(name, ENTITIES.type)
    (line,) = tag(tmp_path, '{"text": "abc"}', layout=Layout(field))
    assert json.loads(line)[name][0]["text"] == "abc"
    assert list(unfit(tmp_path, json.dumps({"text": "a", name: 1}).replace("/", "\\/"), Layout(field))) == [0]


def test_compressed_outputs_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "abc"}\n' * 1000)
    plain = converted(path, tmp_path / "plain.jsonl").read_bytes()
    for suffix, unpack in (
        ("gz", gzip.decompress),
        ("xz", lzma.decompress),
        ("bz2", bz2.decompress),
        ("zst", lambda b: zstandard.ZstdDecompressor().stream_reader(b).read()),
    ):
        first, second = (converted(path, tmp_path / f"{i}.jsonl.{suffix}").read_bytes() for i in range(2))
        assert first == second
        assert unpack(first) == plain


def test_no_rows(tmp_path: Path) -> None:
    assert tag(tmp_path, "\n") == []
    assert gzip.decompress(converted(tmp_path / "in.jsonl", tmp_path / "out.jsonl.gz").read_bytes()) == b""


DAY = dt.date(2020, 2, 29)
MOMENT = dt.datetime(2020, 2, 29, 23, 59, 58, 123456)  # noqa: DTZ001 - Arrow counts it as UTC
PAIRS = pa.map_(pa.int8(), pa.date32())
CASES: list[tuple[pa.DataType, Any, Any]] = [
    (pa.string_view(), "é", "é"),
    (pa.large_string(), "", ""),
    (pa.bool_(), True, True),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.float16(), 1.1, 1.1),
    (pa.float32(), 0.98, 0.98),
    (pa.float32(), float("inf"), None),
    (pa.float64(), 0.1, 0.1),
    (pa.float64(), float("nan"), None),
    (pa.decimal128(9, 2), decimal.Decimal("1.20"), "1.20"),
    (pa.decimal128(3, -2), decimal.Decimal(1200), "1200"),
    (pa.date32(), DAY, "2020-02-29"),
    (pa.date64(), DAY, "2020-02-29"),
    (pa.time32("s"), dt.time(1, 2, 3), "01:02:03"),
    (pa.time64("ns"), dt.time(1, 2, 3), "01:02:03.000000000"),
    (pa.timestamp("s"), MOMENT.replace(microsecond=0), "2020-02-29T23:59:58"),
    (pa.timestamp("us"), MOMENT, "2020-02-29T23:59:58.123456"),
    (pa.timestamp("ns"), 1, "1970-01-01T00:00:00.000000001"),
    (pa.timestamp("ms", "Asia/Tokyo"), -1, "1969-12-31T23:59:59.999Z"),
    (pa.duration("s"), 90, "PT90S"),
    (pa.duration("us"), -1500000, "-PT1.500000S"),
    (pa.binary(), b"\xff\x00", "/wA="),
    (pa.binary(2), b"ab", "YWI="),
    (pa.null(), None, None),
    (pa.list_(pa.float32()), [0.1, None], [0.1, None]),
    (pa.list_(pa.date32(), 2), [DAY, None], ["2020-02-29", None]),
    (pa.large_list(pa.list_(pa.int8())), [[1], [], None], [[1], [], None]),
    (pa.struct([("d", pa.date32()), ("x", pa.struct([("y", pa.int8())]))]), {"d": DAY}, {"d": "2020-02-29", "x": None}),
    (pa.map_(pa.string(), pa.float32()), [("a", 0.1)], {"a": 0.1}),
    (pa.map_(pa.string(), pa.int8()), [("a", 1), ("a", 2)], [("a", 1), ("a", 2)]),
    (PAIRS, [(1, DAY)], [(1, "2020-02-29")]),
    (pa.dictionary(pa.int8(), pa.string()), "a", "a"),
    (pa.uuid(), uuid.UUID(int=5).bytes, "00000000-0000-0000-0000-000000000005"),
    (pa.json_(), '{"a": 1}', '{"a": 1}'),
]


@pytest.mark.parametrize(
    ("kind", "value", "expected"), CASES, ids=lambda case: str(case) if isinstance(case, pa.DataType) else ""
)
def test_json_values(kind: pa.DataType, value: Any, expected: Any) -> None:
    column = pa.array([None, value, None, value], kind)
    assert json_values(column) == [None, expected, None, expected]
    assert json_values(column.slice(1, 2)) == [expected, None]
    assert json_values(column.slice(0, 0)) == []


def test_type_without_a_json_form() -> None:
    with pytest.raises(TypeError, match="no JSON form"):
        json_values(pa.array([(1, 2, 3)], pa.month_day_nano_interval()))
    with pytest.raises(TypeError, match="the same name"):
        json_values(pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]))


def test_parquet_becomes_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    schema = pa.schema(
        [("when", pa.timestamp("ms")), ("text", pa.dictionary(pa.int8(), pa.string())), ("v", pa.float32())]
    )
    pq.write_table(pa.table({"when": [0, None], "text": ["Łódź", None], "v": [0.98, None]}, schema), path)
    found = lines_of(converted(path, tmp_path / "out.jsonl"))
    entity = '{"start": 0, "end": 3, "label": "person", "score": 0.0, "text": "Łód"}'
    assert [line.decode() for line in found] == [
        f'{{"when": "1970-01-01T00:00:00.000", "text": "Łódź", "v": 0.98, "entities": [{entity}]}}',
        '{"when": null, "text": null, "v": null, "entities": null}',
    ]


@settings(max_examples=example_count(25), deadline=None)
@given(JSON_ROWS)
def test_lines_to_parquet_to_lines(rows: list[dict[str, Any]]) -> None:
    rows = [{"text": row["text"], "n": i, "s": {"keys": list(row)}} for i, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        direct = [json.loads(line) for line in tag(folder, "\n".join(map(json.dumps, rows)))]
        through = converted(converted(folder / "in.jsonl", folder / "a.parquet"), folder / "b.jsonl", replace=True)
        assert [json.loads(line) for line in lines_of(through)] == direct


def test_column_that_exists_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"entities": [1], "text": ["abc"]}), path)
    with fails(OutputError, "column-exists", column="entities"):
        converted(path, tmp_path / "out.jsonl")
    (line,) = lines_of(converted(path, tmp_path / "out.jsonl", replace=True))
    assert list(json.loads(line)) == ["entities", "text"]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table([pa.array(["a"]), pa.array([1]), pa.array([2])], ["text", "n", "n"]), path)
    with fails(OutputError, "column-ambiguous", column="n"):
        converted(path, tmp_path / "out.jsonl")
    assert converted(path, tmp_path / "out.parquet").is_file()


def test_other_column_of_invalid_utf8(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["a"] * 4, "other": invalid_utf8()}), path)
    with fails(InputError, "not-utf8", file=path, row=0, column="other"):
        converted(path, tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == [path]
    assert converted(path, tmp_path / "out.parquet").is_file()


@pytest.mark.parametrize("replace", [True, False])
def test_a_line_is_read_once_however_many_names_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool
) -> None:
    labels = ["art", "location", "person"]
    read: list[str] = []
    members = writer.members_of

    def counted(text: str) -> Any:
        read.append(text)
        return members(text)

    monkeypatch.setattr(writer, "members_of", counted)
    line = '{"text": "Rome", "person": 1, "art": 2, "person": {"art": 3}}'
    (tmp_path / "in.jsonl").write_text(line + "\n")
    layout = Layout(ENTITIES, "wide", labels)
    if not replace:
        assert unfit(tmp_path, line + "\n", layout) == {0: "already has a field 'person'"}
    else:
        (out,) = lines_of(converted(tmp_path / "in.jsonl", tmp_path / "o.jsonl", layout=layout, replace=True))
        assert json.loads(out) == {"text": "Rome", "person": json.loads(out)["person"], "art": [], "location": []}
        assert out.count(b'"person"') == 2
        assert len(json.loads(out)["person"]) == 1
    assert read == [line]
