"""Write JSON Lines: raw lines with one field more, or typed rows as objects."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self, cast

import pyarrow as pa
import zstandard

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.tables.columns import column_exists, name_taken
from nerd_onnx.tables.json_lines import UNTYPED
from nerd_onnx.tables.json_values import dump, json_values
from nerd_onnx.tables.layouts import EntityRows, Layout, NewColumns, typed_rows
from nerd_onnx.tables.output_place import output_errors
from nerd_onnx.tables.rows import RowBatch, Written
from nerd_onnx.tables.stores import bare
from nerd_onnx.tables.whole_file import open_target

_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:@$ -]*")


class JsonLinesSink:
    """
    A JSON Lines file with the entities, whole or not at all; on standard output line by line.

    A raw line keeps every byte: new fields are put in before its last brace. Typed rows become objects, in the form
    that :mod:`nerd_onnx.tables.json_values` lists. Compressed by the suffixes ``.gz`` and ``.zst``, always to the
    same bytes.

    :param path: a file, or ``-``
    :param source_name: the input, for messages
    :param source_schema: schema of typed rows, None for raw lines
    :param layout: where the entities stand
    :param replace: whether a field of a new name may be replaced, in its place
    :param overwrite: whether an existing file may be replaced
    :param reasons_field: name and type of one more new field, which says why a row has no entities; raw lines have it
        only where there is a reason. None for none
    :param scratch: folder for what needs a name before the file is whole; None for the output's own
    :raises OutputError: when it cannot be written as asked
    """

    def __init__(
        self,
        path: str,
        *,
        source_name: str,
        source_schema: pa.Schema | None,
        layout: Layout,
        replace: bool,
        overwrite: bool,
        reasons_field: pa.Field | None = None,
        scratch: str | None = None,
    ) -> None:
        self._path = path
        self._source_name = source_name
        self._layout = layout
        self._keys = [Key(field.name) for field in layout.fields]
        self._reasons_key = None if reasons_field is None else Key(reasons_field.name)
        self._replace = replace
        self._rows = 0
        self._written: Written | None = None
        self._typed: NewColumns | EntityRows | None = None
        if source_schema is not None:
            self._typed = typed_rows(layout, source_schema, reasons_field, {}, replace=replace)
            _check_names(self._typed.schema)
        self._target = open_target(path, overwrite=overwrite, spooled=False, scratch=scratch)
        self._file = compressor(path, self._target.file)

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """
        Write rows with their entities.

        :param reasons: why a row has no entities, where the sink has that field

        :raises OutputError: when the disk refuses, or a line has the field already
        :raises InputError: when a string of a typed row is not valid UTF-8
        :raises BrokenPipeError: when the reader of standard output went away
        """
        if rows.lines is None:
            lines = [line.encode() for line in self._typed_lines(rows, entities, reasons)]
        elif self._layout.is_long:
            lines = list(self._entity_lines(rows, rows.lines, entities))
        else:
            lines = list(self._raw_lines(rows, rows.lines, entities, reasons))
        with output_errors(self._path):
            self._file.write(b"".join(lines))
        self._rows += len(lines)

    def unfit(self, rows: RowBatch) -> Mapping[int, str]:
        """Tell which lines have a field of the new name already, where it may not be replaced."""
        if rows.lines is None or self._replace:
            return {}
        keys = [*self._keys, *([] if self._reasons_key is None else [self._reasons_key])]
        return {i: name_taken(key.name) for i, line in enumerate(rows.lines) for key in keys if key.values_in(line)}

    def finish(self) -> Written:
        """
        Write all that is left, safe on disk, but not yet under the output's name.

        :raises OutputError: when the disk refuses
        """
        if self._written is None:
            with output_errors(self._path):
                self._close_compressor()
            self._written = Written(self._rows, *self._target.flush())
        return self._written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
                self._target.commit()
        finally:
            self._discard()

    def _close_compressor(self) -> None:
        if self._file is not self._target.file:
            self._file.close()

    def _discard(self) -> None:
        with suppress(OSError, ValueError, zstandard.ZstdError):
            self._close_compressor()
        self._target.discard()

    def _raw_lines(
        self, rows: RowBatch, lines: list[bytes], entities: pa.Array, reasons: pa.Array | None
    ) -> Iterator[bytes]:
        whys = [None] * len(lines) if reasons is None else reasons.to_pylist()
        values = zip(*map(json_values, self._layout.columns(entities)), strict=True)
        for i, (line, found, why) in enumerate(zip(lines, values, whys, strict=True)):
            tagged = line
            for key, value in zip(self._keys, found, strict=True):
                tagged = self._with_member(rows.place(i), tagged, key, value)
            if self._reasons_key is not None and why is not None:
                tagged = self._with_member(rows.place(i), tagged, self._reasons_key, why)
            yield tagged + b"\n"

    def _entity_lines(self, rows: RowBatch, lines: list[bytes], entities: pa.ListArray) -> Iterator[bytes]:
        """Give each entity a line; the key stands in it as it does in the line of its row."""
        key = None if self._layout.key is None else Key(self._layout.key)
        name = dump(self._layout.key_name)
        for i, found in enumerate(json_values(entities)):
            if found:
                value = str(rows.number(i)) if key is None else key.value_in(lines[i])
                yield from (f"{{{name}: {value}, {dump(entity)[1:]}\n".encode() for entity in found)

    def _with_member(self, place: str, line: bytes, key: Key, value: Any) -> bytes:
        """Put a member into a line, at its end or in place of the one of that name."""
        found = key.values_in(line)
        if found and not self._replace:
            raise OutputError(column_exists(f"{self._source_name}, {place}", key.name))
        return _replaced(line, found, dump(value)) if found else key.appended(line, dump(value))

    def _typed_lines(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None) -> Iterator[str]:
        if rows.table is None or self._typed is None:
            raise ValueError("typed rows need their table and the source's schema")
        table = self._typed.placed(rows, entities, reasons)
        columns = [self._column_values(rows, name, table.column(i)) for i, name in enumerate(table.schema.names)]
        for row in zip(*columns, strict=True):
            yield dump(dict(zip(table.schema.names, row, strict=True))) + "\n"

    def _column_values(self, rows: RowBatch, name: str, column: pa.Array) -> list[Any]:
        try:
            return json_values(column)
        except UnicodeDecodeError as err:
            raise InputError(
                f"{self._source_name}, {rows.place(0)} and after: column {name!r} is not valid UTF-8, as JSON must be; "
                "write Parquet, or repair the column"
            ) from err
        except TypeError as err:
            raise OutputError(f"column {name!r} cannot be written as JSON: {err}; write Parquet") from err


class Key:
    """
    One key of JSON objects, looked for and put in without touching the rest of the line.

    :param name: the key
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._json = dump(name)
        # A plain name can be written in two ways, as it is and with \u escapes; others in more.
        self._marks = (self._json.encode(), b"\\u") if _PLAIN_NAME.fullmatch(name) else ()

    def values_in(self, line: bytes) -> list[tuple[int, int]]:
        """
        Find the values of the key at the top of an object, as ranges of characters; mostly none, found cheaply.

        :param line: a valid JSON object
        """
        if self._marks and not any(mark in line for mark in self._marks):
            return []
        text = line.decode()
        return [(start, end) for key, start, end in _members(text) if key == self.name]

    def value_in(self, line: bytes) -> str:
        """
        Give the value of the key as it is written, the last where there are several, ``null`` where there is none.

        :param line: a valid JSON object
        """
        found = self.values_in(line)
        return line.decode()[slice(*found[-1])] if found else "null"

    def appended(self, line: bytes, value: str) -> bytes:
        """
        Put the key and a value in as the object's last member.

        :param line: a valid JSON object without the key
        """
        body, brace, rest = line.rpartition(b"}")
        body = body.rstrip()
        comma = "" if body.endswith(b"{") else ", "
        return body + f"{comma}{self._json}: {value}".encode() + brace + rest


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """Walk over the members of a JSON object: key, and where its value begins and ends."""
    at = _after_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = UNTYPED.raw_decode(text, at)
        start = _after_space(text, text.index(":", at) + 1)
        _, end = UNTYPED.raw_decode(text, start)
        yield key, start, end
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _replaced(line: bytes, ranges: list[tuple[int, int]], value: str) -> bytes:
    text = line.decode()
    for start, end in reversed(ranges):
        text = text[:start] + value + text[end:]
    return text.encode()


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _check_names(schema: pa.Schema) -> None:
    for name in schema.names:
        if len(schema.get_all_field_indices(name)) > 1:
            raise OutputError(
                f"two columns are named {name!r}; a JSON object cannot hold both: rename one, or write Parquet"
            )


def compressor(path: str, file: IO[bytes]) -> IO[bytes]:
    """Compress what is written to a file by the suffix of its name; without one it is the file itself."""
    suffix = bare(path).lower().rpartition(".")[2]
    if suffix == "gz":
        return cast("IO[bytes]", gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0))
    if suffix == "zst":
        return cast("IO[bytes]", zstandard.ZstdCompressor(_ZSTD_LEVEL).stream_writer(file, closefd=False))
    return file
