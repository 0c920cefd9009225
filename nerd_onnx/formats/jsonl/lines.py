"""One JSON line at a time: parsed, checked and its text taken out, each error with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from nerd_onnx.errors import Field, InputError
from nerd_onnx.formats.base import KEYS_SHOWN

TYPED = json.JSONDecoder()
# Where numbers are never used: float() takes any number of digits, int() refuses very long ones.
UNTYPED = json.JSONDecoder(parse_int=float)


class RowError(InputError):
    """
    One row cannot be read.

    :param file: the input
    :param row: its line
    :param problem: what is wrong with the row, without its place
    """

    def __init__(self, file: str, row: int, problem: str, *, reason: str, **fields: Field) -> None:
        self.problem = problem
        super().__init__(f"{file}, line {row}: {problem}", reason=reason, **{"file": file, "row": row, **fields})


_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_NAMES = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}


def parse_object(file: str, row: int, line: bytes, decoder: json.JSONDecoder, *, clean: bool = False) -> dict[str, Any]:
    """
    Parse one line. If a key occurs twice, the last value counts.

    :param file: the input, for messages
    :param row: the number of the line, for messages
    :param clean: put U+FFFD for lone surrogates everywhere
    :raises RowError: when it is no JSON object in UTF-8
    """
    try:
        record = decoder.decode(line.decode())
        if clean and _SURROGATE_ESCAPE.search(line):
            record = replace_surrogates(record)
    except UnicodeDecodeError as err:
        raise RowError(
            file,
            row,
            f"not valid UTF-8 at byte {err.start + 1} (0x{line[err.start]:02x}); convert the file to UTF-8",
            reason="not-utf8",
            byte=err.start + 1,
        ) from err
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
    except ValueError as err:
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
            f"{_name(record)} instead of an object; expected one object per line",
            reason="not-object",
            found=_name(record),
        )
    return record


def text_of(file: str, row: int, record: dict[str, Any], text_column: str) -> str | None:
    """
    Take the text out of a row; a row without the field has none.

    :param file: the input, for messages
    :param row: the number of the line, for messages
    :raises RowError: when it is neither string nor null
    """
    text = record.get(text_column)
    if text is None or isinstance(text, str):
        return text
    raise RowError(
        file,
        row,
        f"field {text_column!r} is {_name(text)}; expected a string or null",
        reason="not-text",
        column=text_column,
        found=_name(text),
    )


def text_array(texts: Sequence[str | None]) -> pa.Array:
    """Make texts an Arrow array; lone surrogates become U+FFFD, one for one, so code points keep their places."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([replace_surrogates(text) for text in texts], pa.string())


def replace_surrogates(value: Any) -> Any:
    """Put U+FFFD for each lone surrogate in a JSON value, keys included."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {replace_surrogates(key): replace_surrogates(item) for key, item in value.items()}
    return value


def require_text_column(name: str, keys: Iterable[str], text_column: str) -> None:
    """
    Check that some row had the text field.

    :param name: the input, for messages
    :param keys: the keys seen
    :raises InputError: when none had it; it lists the keys
    """
    seen = list(keys)
    if text_column in seen:
        return
    listed = ", ".join(seen[:KEYS_SHOWN]) + (f" and {len(seen) - KEYS_SHOWN} more" if len(seen) > KEYS_SHOWN else "")
    raise InputError(
        f"{name}: no field {text_column!r}; the fields are: {listed or 'none'}",
        reason="column-missing",
        file=name,
        column=text_column,
        found=listed,
    )


def _name(value: Any) -> str:
    return _NAMES.get(type(value), "null")
