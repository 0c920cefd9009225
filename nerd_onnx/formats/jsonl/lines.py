"""Parse one line of JSON Lines, check it and return its text; errors name the line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from nerd_onnx.errors import InputError, shortened
from nerd_onnx.formats.interfaces import KEYS_SHOWN
from nerd_onnx.formats.line_reading import RowError, not_utf8, other_format
from nerd_onnx.formats.text_arrays import column_of, has_elements
from nerd_onnx.storage.signatures import foreign_format


class _NoDoubleError(ValueError):
    """A number that no double holds."""


def _double(digits: str) -> float:
    """Return the double that is nearest to a number: 0 for a very small one, as in every JSON reader."""
    number = float(digits)
    if math.isinf(number):
        raise _NoDoubleError(digits)
    return number


TYPED = json.JSONDecoder(parse_float=_double)
# For lines whose numbers are not used: float() takes any number of digits, int() refuses very long ones.
UNTYPED = json.JSONDecoder(parse_int=float)


_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_NAMES = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}


def parse_object(file: str, row: int, line: bytes, decoder: json.JSONDecoder, *, clean: bool = False) -> dict[str, Any]:
    """
    Return the JSON object of one line. If a key occurs twice, the last value counts.

    :param file: name of the input, for messages
    :param row: number of the line, for messages
    :param clean: replace lone surrogates by U+FFFD in all strings
    :raises RowError: if the line is not a JSON object in UTF-8
    """
    try:
        record = decoder.decode(line.decode())
        # Only an escape can give a lone surrogate: in UTF-8 it is an error.
        if clean and _SURROGATE_ESCAPE.search(line):
            record = replace_surrogates(record)
    # The order matters: all of these but RecursionError are ValueErrors.
    except UnicodeDecodeError as err:
        raise not_utf8(file, row, err) from err
    except json.JSONDecodeError as err:
        what = err.msg.removesuffix(" at")
        raise RowError(
            file,
            row,
            f"not JSON: {what} at character {err.colno}; expected one object per line",
            reason="not-json",
            character=err.colno,
        ) from err
    except RecursionError as err:
        raise RowError(file, row, "nested too deeply to be read", reason="too-deep") from err
    except _NoDoubleError as err:
        raise RowError(
            file,
            row,
            f"the number {shortened(str(err))} is greater than any number of a Parquet column. Write JSON Lines, which "
            "allows any number, or make it a string",
            reason="number-too-large",
            found=str(err),
        ) from err
    except ValueError as err:  # Python's limit on the digits of an integer
        raise RowError(
            file,
            row,
            "a whole number has too many digits for a Parquet column. Write JSON Lines, which allows any number",
            reason="number-too-large",
        ) from err

    if not isinstance(record, dict):
        raise RowError(
            file,
            row,
            f"{_type_name(record)} instead of an object; expected one object per line",
            reason="not-object",
            found=_type_name(record),
        )

    return record


def require_json_lines(name: str, head: bytes) -> None:
    """
    Check that an input does not begin like a file of another format.

    :param name: name of the input, for messages
    :param head: first bytes, decompressed; at least ``HEAD_BYTES`` of :mod:`line_reading` if the file has so many
    :raises InputError: if it does; the message names the format
    """
    found = foreign_format(head)
    if found is not None:
        raise other_format(name, found, "JSON Lines")


Text = str | list[str | None] | None


def text_of(file: str, row: int, record: dict[str, Any], text_column: str) -> Text:
    """
    Return the text of a row, or its list of texts; None if the row does not have the field.

    :param file: name of the input, for messages
    :param row: number of the line, for messages
    :param text_column: name of the field; with ``[]`` after it for a field with lists of texts
    :raises RowError: if the value is neither that nor null
    """
    name = column_of(text_column)
    value = record.get(name)
    if value is None or (isinstance(value, str) and not has_elements(text_column)):
        return value

    if has_elements(text_column) and isinstance(value, list):
        other = next((i for i, text in enumerate(value) if not (text is None or isinstance(text, str))), None)
        if other is None:
            return value
        place, found, expected = f"element {other} of field {name!r}", value[other], "a string or null"
    elif has_elements(text_column):
        place, found, expected = f"field {name!r}", value, "an array of strings, or null"
    else:
        remedy = f". To tag each element of an array, give --text-column {name}[]" if isinstance(value, list) else ""
        place, found, expected = f"field {name!r}", value, f"a string or null{remedy}"

    raise RowError(
        file,
        row,
        f"{place} is {_type_name(found)}; expected {expected}",
        reason="not-text",
        column=name,
        found=_type_name(found),
    )


def text_array(texts: Sequence[Text], text_column: str) -> pa.Array:
    """
    Return texts as an Arrow array, or as lists if the text column has lists. *Shape:* (rows,)

    Each lone surrogate becomes one U+FFFD, so the offsets of all other code points stay the same.
    """
    kind = pa.large_list(pa.string()) if has_elements(text_column) else pa.string()
    # Tried first, because hardly any text has a surrogate, and looking for one takes time.
    try:
        return pa.array(texts, kind)
    except UnicodeEncodeError:
        return pa.array([replace_surrogates(text) for text in texts], kind)


def replace_surrogates(value: Any) -> Any:
    """Return a JSON value with U+FFFD in place of each lone surrogate, also in keys."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {replace_surrogates(key): replace_surrogates(item) for key, item in value.items()}
    return value


def require_text_column(name: str, keys: Iterable[str], text_column: str) -> None:
    """
    Check that at least one row had the text field.

    :param name: name of the input, for messages
    :param keys: the keys of all rows that were read
    :raises InputError: if no row had it; the message lists the keys
    """
    seen = list(keys)
    if text_column in seen:
        return

    listed = ", ".join(seen[:KEYS_SHOWN]) + (f" and {len(seen) - KEYS_SHOWN} more" if len(seen) > KEYS_SHOWN else "")
    raise InputError(
        f"{name}: no field {text_column!r}; the fields are: {listed or 'none'}. Give the field with the texts as "
        "--text-column (in Python text_column)",
        reason="column-missing",
        file=name,
        column=text_column,
        found=listed,
    )


def _type_name(value: Any) -> str:
    return _NAMES.get(type(value), "null")
