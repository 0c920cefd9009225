"""Types of CSV columns: found by all values or named, the same however a file is read, and as others read them."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import InputError, NerdError, OptionError
from nerd_onnx.formats.column_types import ColumnTypes
from nerd_onnx.formats.typed_text import KindSearch, converted, kind_named
from tests.support.commands import Run
from tests.support.failures import fails
from tests.support.profiles import example_count
from tests.support.tables_io import Writer, opened, query, read, refused
from tests.support.tables_io import converted as converted_file

AUTO = ColumnTypes(is_auto=True)
NUMBERS = ("0", "7", "-12", "007", "+5", "1.5", "-.5", "1.", "2e3", "1e400", "9007199254740993", "9" * 20, " 7 ")
TIMES = ("2020-02-29", "2021-02-29", "2020-01-01 10:00", "2020-01-01T10:00:00", "2020-01-01T10:00:00.5Z")
VALUES = st.sampled_from([*NUMBERS, *TIMES, "", '""', "nan", "true", "False", "Anna"])


def named(**types: str) -> dict[str, Any]:
    return {"column_types": ColumnTypes(named=tuple(sorted(types.items())))}


def found(*values: str | None) -> str:
    """Return the name of the type that values have."""
    search = KindSearch()
    search.add(pa.array(values, pa.string()))
    return "text" if search.found is None else search.found.name


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("1", "-2", None, "", " 3 ", "9223372036854775807"), "int64"),
        (("1", "007"), "text"),
        (("+5",), "text"),
        (("9223372036854775808",), "text"),
        (("0x1F",), "text"),
        (("1_000",), "text"),
        (("1", "1.5", "-2e3", ".5", "1.", "-0"), "float64"),
        (("9007199254740993", "1.5"), "text"),
        (("1e400",), "text"),
        # What programs write that have doubles, with the shortest digits, 17, 19 or all; then what no double holds.
        (("0.30000000000000004", "0.10000000000000001", "1.000000000000000056e-01", "5e-324"), "float64"),
        (("1." + "0" * 400, "0.1000000000000000055511151231257827021181583404541015625"), "float64"),
        (("12345678901234567.89",), "text"),
        (("0.1234567890123456789",), "text"),
        (("1e-400",), "text"),
        (("00.5",), "text"),
        (("1.5", "nan"), "text"),
        (("inf",), "text"),
        (("true", "FALSE"), "bool"),
        (("0", "1"), "int64"),
        (("true", "1"), "text"),
        (("2020-02-29", "0001-01-01"), "date"),
        (("2021-02-29",), "text"),
        (("0000-01-01",), "text"),
        (("2020-01-01 10:00", "2020-01-01T10:00:00.123456"), "timestamp"),
        (("2020-01-01 10:00:00.1234567",), "text"),
        (("2020-01-01", "2020-01-01 10:00"), "text"),
        (("2020-01-01 24:00",), "text"),
        (("2020-01-01T10:00Z", "2020-01-01 10:00:00+05:30"), "timestamptz"),
        (("2020-01-01T10:00Z", "2020-01-01T10:00"), "text"),
        ((None, ""), "text"),
        ((), "text"),
        (("12:30",), "text"),
        (("NA", "1"), "text"),
    ],
)
def test_the_type_of_values(values: tuple[str | None, ...], expected: str) -> None:
    assert found(*values) == expected


@given(st.lists(VALUES, max_size=12), st.integers(0, 12))
@settings(max_examples=example_count(200), deadline=None)
def test_the_type_depends_on_no_block_and_no_order(values: list[str], cut: int) -> None:
    search = KindSearch()
    for part in (values[cut:], [], values[:cut]):
        search.add(pa.array(part, pa.string()))
    assert ("text" if search.found is None else search.found.name) == found(*values)


CONVERTED = [
    ("int64", " 007", 7),
    ("int64", "+5", 5),
    ("int8", "128", None),
    ("uint8", "255", 255),
    ("uint8", "-1", None),
    ("uint64", "18446744073709551615", 18446744073709551615),
    ("int64", "0x1F", None),
    ("int64", "1.0", None),
    ("float64", "1e400", None),
    ("float64", "-Inf", -math.inf),
    ("float64", "+1.5e3", 1500.0),
    ("float32", "1e39", None),
    ("float32", "0.5", 0.5),
    ("bool", "TRUE", True),
    ("bool", "0", False),
    ("bool", "yes", None),
    ("date", "2020-02-29", dt.date(2020, 2, 29)),
    ("date", "29.02.2020", None),
    ("timestamp", "2020-01-01", dt.datetime(2020, 1, 1)),  # noqa: DTZ001 - the type has no zone
    ("timestamptz", "2020-01-01T10:00+05:30", dt.datetime(2020, 1, 1, 4, 30, tzinfo=dt.UTC)),
    ("timestamptz", "2020-01-01T10:00", None),
    ("decimal(10,2)", "1.5", Decimal("1.50")),
    ("decimal(10,2)", "1.505", None),
    ("decimal(3,2)", "12.5", None),
]


@pytest.mark.parametrize(("name", "text", "value"), CONVERTED)
def test_a_value_of_a_named_type(name: str, text: str, value: object) -> None:
    kind = kind_named(name)
    assert kind is not None
    values, misfits = converted(pa.array([text, "", None]), kind)
    assert values.to_pylist() == [value, None, None]
    assert misfits.to_pylist() == [value is None, False, False]


def test_nan_is_a_number_where_the_user_says_so() -> None:
    kind = kind_named("float64")
    assert kind is not None
    values, misfits = converted(pa.array(["NaN", "x"]), kind)
    assert math.isnan(values[0].as_py())
    assert misfits.to_pylist() == [False, True]


# -- files -------------------------------------------------------------------------------------------------------------

CONTENT = '''\
id,zip,text,price,ok,day,at,note
1,00123,Anna,1.5,true,2020-02-29,2020-01-01 10:00:00,x
2,99999,"Bob, ""B""",2,FALSE,,2021-01-01 00:00:01,7
,10000,,"",true,2020-03-01,,
'''
TYPES = ["int64", "string", "string", "double", "bool", "date32[day]", "timestamp[us]", "string"]


def test_columns_have_the_type_of_all_their_values(write: Writer) -> None:
    path = write("a.csv", CONTENT)
    with opened(path, column_types=AUTO) as source:
        assert source.schema is not None
        assert [str(kind) for kind in source.schema.types] == TYPES
        assert source.num_rows == 3
    output = converted_file(path, path.with_name("o.parquet"), source={"column_types": AUTO})
    rows = pq.read_table(output).to_pylist()
    assert [row["id"] for row in rows] == [1, 2, None]
    assert [row["zip"] for row in rows] == ["00123", "99999", "10000"]
    assert [row["price"] for row in rows] == [1.5, 2.0, None]
    assert [row["note"] for row in rows] == ["x", "7", None]

    lines = converted_file(path, path.with_name("o.jsonl"), source={"column_types": AUTO}).read_text().splitlines()
    first = {key: value for key, value in json.loads(lines[0]).items() if key != "entities"}
    assert list(first.values()) == [1, "00123", "Anna", 1.5, True, "2020-02-29", "2020-01-01T10:00:00.000000", "x"]


def test_duckdb_pandas_and_pyarrow_read_the_same_values(write: Writer) -> None:
    path = write("a.csv", CONTENT.replace(',"",', ",,"))  # pyarrow reads a quoted empty field as no number
    ours = pa.Table.from_batches([rows.table for rows in read(path, column_types=AUTO) if rows.table])
    theirs = pyarrow.csv.read_csv(
        path,
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=ours.schema, strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""]
        ),
    )
    assert ours.equals(theirs)

    duck = query(f"""SELECT id, price, ok, day, "at" FROM read_csv('{path}', header = true)""").to_arrow_table()  # noqa: S608
    assert duck.to_pylist() == ours.select(["id", "price", "ok", "day", "at"]).to_pylist()

    frame = pd.read_csv(path, dtype={"zip": str}, parse_dates=["at"])
    assert frame["id"].to_list()[:2] == ours["id"].to_pylist()[:2]
    assert frame["price"].to_list()[:2] == ours["price"].to_pylist()[:2]
    assert [str(value) for value in frame["at"][:2]] == [str(value) for value in ours["at"].to_pylist()[:2]]


@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=15), sizes=st.tuples(st.integers(1, 4), st.integers(5, 9)))
@settings(max_examples=example_count(100), deadline=None)
def test_batches_change_neither_types_nor_values(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], sizes: tuple[int, int]
) -> None:
    path = tmp_path_factory.mktemp("typed") / "a.csv"
    path.write_text("text,a,b\n" + "".join(f"t,{a},{b}\n" for a, b in rows))
    tables = []
    for size in sizes:
        with opened(path, batch_rows=size, column_types=AUTO) as source:
            batches = [batch.table for batch in source.batches() if batch.table is not None]
            tables.append(pa.Table.from_batches(batches, source.schema))
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == len(rows)


HOSTILE = st.lists(
    st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"7", b"\xff", b"1,x,2\n", b"x,y,2.5\n"]), max_size=40
)


@given(content=HOSTILE, sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=example_count(100), deadline=None)
def test_any_bytes_give_the_same_rows_in_batches_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], sizes: tuple[int, int]
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "a.csv"
    path.write_bytes(b"id,text,n\n" + b"".join(content))
    types = ColumnTypes(is_auto=True, named=(("id", "int64"),))
    seen = []
    for size in sizes:
        with opened(path, batch_rows=size, lenient=True, column_types=types) as source:
            batches = list(source.batches())
            schema, count = source.schema, source.num_rows
        rejected = [(row.row, row.line, row.reason, row.raw) for rows in batches for row in rows.rejected]
        numbers = [rows.number(i) for rows in batches for i in range(rows.num_rows)]
        assert sorted([*numbers, *(row for row, *_ in rejected)]) == list(range(count or 0))
        seen.append((schema, [row for rows in batches if rows.table for row in rows.table.to_pylist()], rejected))
    assert seen[0] == seen[1]


def test_named_types_are_kept_and_others_found(write: Writer) -> None:
    path = write("a.csv", "id,zip,text,n\n1,00123,Anna,5\n")
    for text, expected in [
        ("id=int32,zip=int64", [pa.int32(), pa.int64(), pa.string(), pa.string()]),
        ("auto,id=text", [pa.string(), pa.string(), pa.string(), pa.int64()]),
        ("n=decimal(5, 2),id=FLOAT64", [pa.float64(), pa.string(), pa.string(), pa.decimal128(5, 2)]),
    ]:
        with opened(path, column_types=ColumnTypes.parse(text)) as source:
            assert source.schema is not None
            assert source.schema.types == expected


def test_a_value_that_does_not_fit_is_a_rejected_row(write: Writer) -> None:
    path = write("a.csv", b'id,text,n\n1,Anna,1\nx,"Bo\nb",2\n3,Carl,y\n4\n5,Eva,\n')
    options = named(id="int64", n="int8")
    error = refused(path, "csv-type", options, row=3, column="id", found="x", expected="int64")
    assert isinstance(error, InputError)
    (rows,) = read(path, lenient=True, **options)
    assert rows.texts.to_pylist() == ["Anna", "Eva"]
    assert [rows.number(i) for i in range(2)] == [0, 4]
    assert [(row.row, row.line, row.raw) for row in rows.rejected] == [
        (1, 3, b'x,"Bo\nb",2'),
        (2, 5, b"3,Carl,y"),
        (3, 6, b"4"),
    ]
    assert "'n'" in rows.rejected[1].reason


def test_rejected_rows_and_rows_beyond_the_limit_decide_no_type(write: Writer) -> None:
    path = write("a.csv", "id,text,n\n1,Anna,1\nx,Bob,y\n3,Eva,z\n")
    for options in ({"lenient": True, "limit": 2}, {"limit": 1}):
        types = ColumnTypes(is_auto=True, named=(("id", "int64"),))
        with opened(path, column_types=types, **options) as source:
            assert source.schema is not None
            assert source.schema.field("n").type == pa.int64()
            assert source.num_rows == options["limit"]


@pytest.mark.parametrize(
    ("content", "types", "kind", "reason"),
    [
        ("id,text\n", {"idd": "int64"}, InputError, "column-missing"),
        ("id,id,text\n", {"id": "int64"}, InputError, "column-ambiguous"),
        ("id,text\n", {"text": "int64"}, OptionError, "typed-text-column"),
    ],
)
def test_columns_that_cannot_get_a_type(
    write: Writer, content: str, types: dict[str, str], kind: type[NerdError], reason: str
) -> None:
    with fails(kind, reason, option="--csv-types", column=next(iter(types))):
        read(write("a.csv", content), **named(**types))


def test_an_empty_file_and_a_header_alone(write: Writer) -> None:
    assert read(write("a.csv", ""), **named(id="int64")) == []
    with opened(write("b.csv", "id,text\n"), column_types=AUTO) as source:
        assert source.num_rows == 0
        assert source.schema is not None
        assert source.schema.types == [pa.string(), pa.string()]


def test_what_can_be_read_only_once_has_no_types_to_find(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    writing = os.open(tmp_path / "a.csv", os.O_RDWR)
    os.write(writing, b"id,text\n1,Anna\n")
    try:
        with fails(OptionError, "csv-types-need-file", option="--csv-types"):
            read(tmp_path / "a.csv", column_types=AUTO)
    finally:
        os.close(writing)


# -- the option --------------------------------------------------------------------------------------------------------


def test_the_option(tmp_path: Path) -> None:
    assert ColumnTypes.parse("text") == ColumnTypes()
    assert ColumnTypes.parse("auto") == AUTO
    assert ColumnTypes.parse("a=b=int64").named == (("a=b", "int64"),)
    (tmp_path / "types.json").write_text('{"a,b": "int64", "c": "decimal(4, 1)"}')
    parsed = ColumnTypes.parse(f"auto,{tmp_path / 'types.json'}")
    assert parsed == ColumnTypes(is_auto=True, named=(("a,b", "int64"), ("c", "decimal(4,1)")))
    assert parsed.plain == 'auto,"a,b"=int64,c=decimal(4,1)'
    assert ColumnTypes().plain == "text"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "int64",
        "id=",
        "id=integer",
        "id=decimal(40,2)",
        "id=decimal(4,5)",
        "id=int64,id=text",
        "none.json",
        "auto;id",
    ],
)
def test_an_option_that_cannot_be_understood(text: str) -> None:
    with fails(OptionError, "bad-csv-types", option="--csv-types"):
        ColumnTypes.parse(text)


@pytest.mark.parametrize("content", ["[]", "{", '{"id": 5}', "[" * 100_000])
def test_a_file_of_types_that_cannot_be_understood(tmp_path: Path, content: str) -> None:
    (tmp_path / "types.json").write_text(content)
    with fails(OptionError, "bad-csv-types", option="--csv-types"):
        ColumnTypes.parse(str(tmp_path / "types.json"))


def test_the_command(nerd_tag: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    source, rejected = tmp_path / "a.csv", tmp_path / "rejects.jsonl"
    source.write_text(CONTENT + "x,1,Eva,,,,,\n")
    common = ["--model", tiny_bundle, "--json", "--csv-types"]
    code, _, err = nerd_tag(source, tmp_path / "o.parquet", *common, "id=int64")
    facts = json.loads(err)
    assert (code, facts["reason"]) == (1, "csv-type")
    assert (facts["row"], facts["column"], facts["file"]) == (5, "id", str(source))

    skipping = ["--on-error", "skip", "--rejects", rejected]
    code, _, _ = nerd_tag(source, tmp_path / "o.parquet", *common, "auto,id=int64", *skipping)
    assert code == 3
    assert pq.read_schema(tmp_path / "o.parquet").field("id").type == pa.int64()
    assert [json.loads(line)["line"] for line in rejected.read_text().splitlines()] == [5]

    code, _, err = nerd_tag(source, tmp_path / "o.parquet", *common, "auto", *skipping, "--resume")
    assert (code, json.loads(err)["reason"]) == (1, "other-options")
    assert "--csv-types (was auto,id=int64, is auto)" in err

    # A file of text keeps its fields as they are.
    assert nerd_tag(source, tmp_path / "o.csv", *common, "auto,id=int64")[0] == 0
    rows = (tmp_path / "o.csv").read_text().splitlines()
    assert [row.rpartition(",")[0] for row in rows[:1]] == CONTENT.splitlines()[:1]
    assert rows[2].startswith('2,99999,"Bob, ""B""",2,FALSE,,2021-01-01 00:00:01,7,')

    code, _, err = nerd_tag(source, tmp_path / "p.parquet", *common, "id=number")
    assert (code, json.loads(err)["reason"]) == (2, "bad-csv-types")

    code, _, err = nerd_tag(source, tmp_path / "p.parquet", *common, "auto", "--dry-run")
    assert (code, json.loads(err)["types"]) == (0, ["string", *TYPES[1:]])
