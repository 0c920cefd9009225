"""
Convert Arrow columns to JSON values, one column at a time.

===============================  ====================================================================
Arrow                            JSON
===============================  ====================================================================
null, NaN, infinities            ``null``
bool, integers, strings          the same value
float16, float32, float64        number with the fewest digits that give the same value of that width
decimal                          string, ``"1.20"``
timestamp                        ISO 8601 string with the digits of its unit; with a time zone: UTC and ``Z``
date, time                       ISO 8601 string, ``"2020-01-31"``, ``"23:59:59.000"``
duration                         ISO 8601 string in seconds, ``"PT1.500S"``
binary                           base64 string
uuid                             string with hyphens
list, of any kind                array
struct                           object
map                              object where keys are strings and differ, else array of ``[key, value]``
dictionary, run-end encoded      as their underlying values
extensions other than uuid       as their underlying values
===============================  ====================================================================
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError
from nerd_onnx.formats.interfaces import RowBatch
from nerd_onnx.formats.text_arrays import cuts, is_list

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_PIECE_ITEMS = 1 << 12
_PIECE_CHARACTERS = 1 << 20
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def dump(value: Any) -> str:
    """Return a JSON value as text. Characters outside of ASCII are not escaped."""
    return _ENCODER.encode(value)


def dumped(value: Any) -> Iterator[str]:
    """Yield a JSON value as text; a long string in several pieces."""
    if not isinstance(value, str) or len(value) <= _PIECE_CHARACTERS:
        yield dump(value)
        return

    # Each piece without its quotes. It may end anywhere: a character is escaped without a look at its neighbours.
    yield '"'
    for begin in range(0, len(value), _PIECE_CHARACTERS):
        yield dump(value[begin : begin + _PIECE_CHARACTERS])[1:-1]
    yield '"'


def dumped_lists(column: pa.ListArray) -> Iterator[Iterable[str]]:
    """
    Yield each list of a column as JSON text in pieces.

    A few thousand items are converted at a time, because Python objects take much more memory than the column.
    """
    for start, stop in cuts(pc.list_value_length(column), _PIECE_ITEMS):
        lists = column.slice(start, stop - start)
        items = lists.flatten()
        if len(items) > _PIECE_ITEMS:
            yield _dumped_items(items)
        else:
            yield from ([dump(value)] for value in json_values(lists))


def _dumped_items(items: pa.Array) -> Iterator[str]:
    for begin in range(0, len(items), _PIECE_ITEMS):
        yield ", " if begin else "["
        piece = dump(json_values(items.slice(begin, _PIECE_ITEMS)))
        yield piece[1:-1]  # without its brackets

    yield "]"


def json_values(column: pa.Array) -> list[Any]:
    """
    Return the values of a column as objects that ``json`` can write. *Shape:* (rows,)

    :param column: a column
    :raises UnicodeDecodeError: if a string is not valid UTF-8
    :raises TypeError: for a type not in the table above
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(column)

    for fits, convert in _CONVERTERS:
        if fits(kind):
            return convert(column)

    raise TypeError(f"no JSON form for the Arrow type {kind}")


def _extension(column: pa.Array) -> list[Any]:
    if isinstance(column.type, pa.UuidType):
        return [None if value is None else str(uuid.UUID(bytes=value)) for value in column.storage.to_pylist()]
    return json_values(column.storage)


def _plain(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _double(column: pa.Array) -> list[Any]:
    return [value if value is not None and math.isfinite(value) else None for value in column.to_pylist()]


def _narrow_float(column: pa.Array) -> list[Any]:
    """Return floats narrower than 64 bits. They are converted through text to get their own shortest digits."""
    # As a double, a float32 of 0.1 would be written as 0.10000000149011612.
    digits = column.fill_null(math.nan).to_numpy(zero_copy_only=False).astype(str).tolist()
    return [value if math.isfinite(value) else None for value in map(float, digits)]


def _decimal(column: pa.Array) -> list[Any]:
    # str() would write a small one with an exponent: 1E-7.
    return [None if value is None else format(value, "f") for value in column.to_pylist()]


def _binary(column: pa.Array) -> list[Any]:
    return [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]


def _whole_numbers(column: pa.Array) -> Any:
    """Return the underlying integers of a temporal column, 0 for null. *Shape:* (rows,)"""
    # Python's datetime has no nanoseconds, and no years after 9999.
    # pyarrow casts types of 32 bits only to integers of 32 bits.
    if pa.types.is_date32(column.type) or pa.types.is_time32(column.type):
        column = column.cast(pa.int32())
    return column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)


def _with_nulls(column: pa.Array, values: list[Any]) -> list[Any]:
    return [value if valid else None for value, valid in zip(values, column.is_valid().to_pylist(), strict=True)]


def _iso(column: pa.Array, unit: str) -> Any:
    # numpy cannot format an array without rows: it finds no width for the strings.
    moments: Any = _whole_numbers(column).astype(f"datetime64[{unit}]")
    return np.datetime_as_string(moments) if len(moments) else np.empty(0, "U1")


def _timestamp(column: pa.Array) -> list[Any]:
    zone = "Z" if column.type.tz is not None else ""
    return _with_nulls(column, [moment + zone for moment in _iso(column, column.type.unit).tolist()])


def _date(column: pa.Array) -> list[Any]:
    unit = "D" if pa.types.is_date32(column.type) else "ms"
    return _with_nulls(column, [moment.partition("T")[0] for moment in _iso(column, unit).tolist()])


def _time(column: pa.Array) -> list[Any]:
    # A moment of the first day of 1970, without that day.
    return _with_nulls(column, [moment.partition("T")[2] for moment in _iso(column, column.type.unit).tolist()])


def _duration(column: pa.Array) -> list[Any]:
    digits = _DIGITS[column.type.unit]
    return _with_nulls(column, [_iso_seconds(value, digits) for value in _whole_numbers(column).tolist()])


def _iso_seconds(value: int, digits: int) -> str:
    whole, part = divmod(abs(value), 10**digits)
    fraction = f".{part:0{digits}d}" if digits else ""
    return f"{'-' if value < 0 else ''}PT{whole}{fraction}S"


def _dictionary(column: pa.Array) -> list[Any]:
    return json_values(column.dictionary_decode())


def _run_ends(column: pa.Array) -> list[Any]:
    return json_values(pc.run_end_decode(column))


def _list(column: pa.Array) -> list[Any]:
    lengths = pc.list_value_length(column).to_pylist()
    items = json_values(pc.list_flatten(column))

    # By lengths, because list views have no offsets that rise, and slices have some that do not begin at 0.
    ends = list(accumulate(length or 0 for length in lengths))
    return [None if length is None else items[end - length : end] for length, end in zip(lengths, ends, strict=True)]


def _struct(column: pa.Array) -> list[Any]:
    names = [field.name for field in column.type]
    if len(set(names)) < len(names):
        raise TypeError(f"two fields of {column.type} have the same name")

    # Without fields, zip() would give no rows.
    rows = zip(*(json_values(member) for member in column.flatten()), strict=True) if names else [()] * len(column)
    return _with_nulls(column, [dict(zip(names, row, strict=True)) for row in rows])


def _map(column: pa.Array) -> list[Any]:
    as_list = pa.list_(pa.struct([("key", column.type.key_type), ("value", column.type.item_type)]))
    entries = _list(column.cast(as_list))
    pairs = [None if row is None else [(entry["key"], entry["value"]) for entry in row] for row in entries]

    # A JSON object has only strings as keys; other maps become lists of pairs.
    if pa.types.is_string(column.type.key_type) or pa.types.is_large_string(column.type.key_type):
        return [None if row is None else _object(row) for row in pairs]
    return pairs


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | list[tuple[str, Any]]:
    """Return an object; the pairs themselves where a key is there twice, because an object would lose a value."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else pairs


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_integer,
        types.is_boolean,
        types.is_null,
    )
    return any(test(kind) for test in tests)


# The first that fits is taken, so 64-bit floats come before all floats.
_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]], ...] = (
    (_is_plain, _plain),
    (pa.types.is_float64, _double),
    (pa.types.is_floating, _narrow_float),
    (is_list, _list),
    (pa.types.is_struct, _struct),
    (pa.types.is_map, _map),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_date, _date),
    (pa.types.is_time, _time),
    (pa.types.is_duration, _duration),
    (pa.types.is_decimal, _decimal),
    (_is_binary, _binary),
    (pa.types.is_dictionary, _dictionary),
    (pa.types.is_run_end_encoded, _run_ends),
)


def not_utf8_column(file: str, rows: RowBatch, column: str, why: str = "") -> InputError:
    """
    Return the error for a column of strings that are not valid UTF-8, which no text format can hold.

    :param file: name of the input
    :param rows: the rows that are written; the string is in one of them
    :param why: the part of the message after the description of the problem
    """
    return InputError(
        f"{file}, {rows.place(0)} or later: column {column!r} is not valid UTF-8{why}; write Parquet or Arrow, or "
        "repair the column",
        reason="not-utf8",
        file=file,
        row=rows.shown_number(0),
        column=column,
    )
