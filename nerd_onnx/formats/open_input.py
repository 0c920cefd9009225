"""
Open any input: detect its format, then call ``open_reader`` of that format.

This module knows no format by name. Which formats exist is in :mod:`registry`; how one is read is in its package.
"""

from __future__ import annotations

from collections.abc import Sequence

from nerd_onnx.errors import InputError
from nerd_onnx.formats.column_types import ALL_TEXT, ColumnTypes
from nerd_onnx.formats.file_format import FileFormat
from nerd_onnx.formats.interfaces import Format, Reader, ReadOptions, RowBatch
from nerd_onnx.formats.registry import (
    STREAM_FORMAT,
    format_named,
    format_of_suffix,
    readable_formats,
)
from nerd_onnx.storage.compression import COMPRESSIONS
from nerd_onnx.storage.input_stream import MAX_LINE_BYTES, check_readable, input_name, read_head
from nerd_onnx.storage.location import STANDARD_STREAM, Location, Name
from nerd_onnx.storage.signatures import foreign_format

__all__ = ["Format", "Reader", "RowBatch", "detect_format", "format_of_name", "guessed_format", "open_reader"]

_HEAD_BYTES = 4096


def format_of_name(name: Name) -> Format | None:
    """Return the format that a file name shows, also below a compression suffix; None for other names."""
    path = Location.of(name)
    found = format_of_suffix(_suffix(path))
    is_compressed = path.suffixes[-1:] and path.suffixes[-1] in COMPRESSIONS
    if found is None or (is_compressed and not found.is_compressible):
        return None
    return found.name


def _suffix(path: Location) -> str:
    """Return the suffix of a name in lower case, without a compression suffix; empty if there is none."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def detect_format(name: Name, asked: Format | None) -> Format:
    """
    Return the format of an input: as asked, else by its suffix, else by its first bytes.

    Standard input that no format recognizes is what its first line looks like, see :func:`guessed_format`; else
    :data:`STREAM_FORMAT`, whose reader says what is wrong with it.

    :raises InputError: if the input cannot be read, or the format cannot be detected
    """
    if asked is not None:
        return asked

    path = Location.of(name)
    # First: a file that is missing is an error whatever its name says.
    check_readable(path)
    known = format_of_name(path)
    if known is not None:
        return known

    head = read_head(path, _HEAD_BYTES)
    recognized = _recognized(head)
    if recognized is not None:
        return recognized.name
    if path.is_standard_stream:
        return (_guess(head) or STREAM_FORMAT).name

    foreign = foreign_format(head)
    if foreign is not None:
        raise InputError(
            f"{input_name(path)}: is {foreign.name} by its first bytes, which cannot be read; {foreign.advice}",
            reason="other-format",
            file=input_name(path),
            found=foreign.name,
        )

    titles = " or ".join(candidate.title for candidate in readable_formats())
    raise InputError(
        f"{input_name(path)}: {'' if head else 'is empty, and '}neither its name nor its first bytes show whether it "
        f"is {titles}; give --format",
        reason="unknown-format",
        file=input_name(path),
        option="--format",
    )


def guessed_format(asked: Format | None) -> Format | None:
    """
    Return the format of standard input that its first line looks like; None if its format is known for sure.

    :raises InputError: if standard input is closed
    """
    if asked is not None:
        return None

    head = read_head(Location(STANDARD_STREAM), _HEAD_BYTES)
    guess = None if _recognized(head) is not None else _guess(head)
    return None if guess is None else guess.name


def _recognized(head: bytes) -> FileFormat | None:
    return next((candidate for candidate in readable_formats() if candidate.recognizes(head)), None)


def _guess(head: bytes) -> FileFormat | None:
    return next((candidate for candidate in readable_formats() if candidate.recognizes_stream(head)), None)


def open_reader(
    name: Name,
    *,
    format: Format | None,  # noqa: A002 - the option's name
    text_column: str | Sequence[str],
    typed: bool,
    batch_rows: int,
    batch_bytes: int,
    limit: int | None,
    lenient: bool = False,
    line_bytes: int = MAX_LINE_BYTES,
    added_columns: tuple[str, ...] | None = None,
    mixed_as_json: bool = False,
    column_types: ColumnTypes = ALL_TEXT,
) -> Reader:
    """
    Open an input with the reader of its format.

    :param name: a file, or ``-`` for standard input
    :param format: the format, or None to detect it
    :param typed: read rows as typed columns, also in a format whose rows may be raw lines
    :param text_column: the column or field to tag, or several; this and the remaining parameters are those of
        :class:`ReadOptions`
    :raises InputError: if the input is missing, damaged, in another format, or has no text column
    """
    names = (text_column,) if isinstance(text_column, str) else tuple(text_column)
    options = ReadOptions(
        names, batch_rows, batch_bytes, limit, lenient, line_bytes, added_columns, mixed_as_json, column_types
    )

    path = Location.of(name)
    opener = format_named(detect_format(path, format)).open_reader
    if opener is None:
        raise ValueError(f"the format {format!r} can only be written")

    return opener(path, options, typed)
