"""Write JSON Lines: raw lines with the new fields added, or typed rows as objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from nerd_onnx.errors import OutputError
from nerd_onnx.formats.atomic_writer import AtomicWriter
from nerd_onnx.formats.columns import name_taken
from nerd_onnx.formats.interfaces import RowBatch
from nerd_onnx.formats.json_values import dump, dumped, dumped_lists, json_values, not_utf8_column
from nerd_onnx.formats.jsonl.lines import UNTYPED
from nerd_onnx.formats.jsonl.long_lines import shortened
from nerd_onnx.formats.layouts import (
    TEXT_COLUMN,
    EntityRows,
    Layout,
    NewColumns,
    count_entities,
    typed_rows,
    unified_lists,
)
from nerd_onnx.formats.text_arrays import column_of
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.compression import CompressedTarget
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors

_WRITE_BYTES = 1 << 20
Piece = bytes | memoryview
_SPACE_BYTES = b" \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:@$ -]*")


class JsonLinesWriter(AtomicWriter):
    """
    A JSON Lines file with the entities, written atomically; standard output is written line by line.

    A raw line keeps every byte: new fields are inserted before its last brace. Typed rows become objects as listed in
    :mod:`nerd_onnx.formats.json_values`. The suffixes of :data:`~nerd_onnx.storage.compression.COMPRESSIONS`
    compress the output; the same rows always give the same bytes.

    :param path: a file, or ``-``
    :param source_name: name of the input, for messages
    :param source_schema: schema of typed rows, None for raw lines
    :param layout: how the entities are arranged
    :param replace: whether an existing field with the name of a new one may be replaced, in its position
    :param overwrite: whether an existing file may be replaced
    :param reasons_field: name and type of the field that says why a row has no entities; raw lines have it only if
        there is a reason. None for no such field
    :param scratch: folder for temporary files; None for the folder of the output
    :raises OutputError: if the output cannot be written as asked
    """

    def __init__(
        self,
        path: Location,
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
        self._new_keys = [*self._keys, *([] if self._reasons_key is None else [self._reasons_key])]
        self._replace = replace

        self._rows = 0
        self._typed: NewColumns | EntityRows | None = None

        if source_schema is not None:
            self._typed = typed_rows(layout, source_schema, reasons_field, {}, replace=replace)
            _check_names(self._typed.schema)

        self._target = open_target(path, overwrite=overwrite, spooled=False, scratch=scratch)
        self._compressed = CompressedTarget(path, self._target.file)

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """
        Write rows with their entities. :meth:`unfit` must not have named any of them.

        :param reasons: why a row has no entities, if the writer has a field for it
        :raises OutputError: if the output cannot be written
        :raises InputError: if a string of a typed row is not valid UTF-8
        :raises BrokenPipeError: if the reader of standard output closed the pipe
        """
        lines: Callable[..., Iterator[Piece]] = self._raw_lines
        if rows.lines is None:
            lines = self._typed_lines
        elif self._layout.is_long:
            lines = self._entity_lines

        for piece in _gathered(lines(rows, entities, reasons)):
            with output_errors(self._path):
                self._compressed.file.write(piece)

        self._rows += count_entities(entities) if self._layout.is_long else rows.num_rows

    def unfit(self, rows: RowBatch) -> Mapping[int, str]:
        """Return the lines that already have a field with the name of a new one, unless it may be replaced."""
        if rows.lines is None or self._replace:
            return {}
        found = ((i, values_of(self._new_keys, line)) for i, line in enumerate(rows.lines))
        return {i: name_taken(next(iter(values)), "field") for i, values in found if values}

    def _complete(self) -> int:
        with output_errors(self._path):
            self._compressed.finish()
        return self._rows

    def _release(self) -> None:
        self._compressed.release()

    def _raw_lines(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None) -> Iterator[Piece]:
        lines = rows.lines or []
        whys = [None] * len(lines) if reasons is None else reasons.to_pylist()
        values = zip(*map(dumped_lists, self._layout.columns(entities)), strict=True)

        for line, found, why in zip(lines, values, whys, strict=True):
            members: list[Member] = list(zip(self._keys, found, strict=True))
            old = values_of(self._new_keys, line) if self._replace else {}
            # An old reason of an earlier run is replaced, also by null.
            if self._reasons_key is not None and (why is not None or self._reasons_key.name in old):
                members.append((self._reasons_key, [dump(why)]))

            yield from _with_members(line, members, old)
            yield b"\n"

    def _entity_lines(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None) -> Iterator[bytes]:  # noqa: ARG002
        """Yield one line per entity. The key has the same bytes as in the line of its row."""
        key = None if self._layout.key is None else Key(self._layout.key)
        name, lines = dump(self._layout.key_name), rows.lines or []
        texts = [column_of(name) for name in self._layout.text_columns]
        sources = [f"{dump(TEXT_COLUMN)}: {dump(column)}, " for column in texts] if len(texts) > 1 else [""]

        for i, row in enumerate(zip(*map(json_values, unified_lists(entities, self._layout.parts)), strict=True)):
            # A row without entities has no line, and its key need not be looked for.
            if not any(row):
                continue

            value = str(rows.number(i)) if key is None else key.value_in(lines[i])
            for source, found in zip(sources, row, strict=True):
                for entity in found or ():
                    members = dump(entity)[1:]  # without its first brace
                    yield f"{{{name}: {value}, {source}{members}\n".encode()

    def _typed_lines(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None) -> Iterator[bytes]:
        if rows.table is None or self._typed is None:
            raise ValueError("typed rows need their table and the source's schema")

        table = self._typed.placed(rows, entities, reasons)
        # The reasons come last, and are no lists.
        lists = self._typed.places[: len(self._layout.fields)]
        keys = [dump(name).encode() + b": " for name in table.schema.names]
        columns = [
            dumped_lists(column) if i in lists else map(dumped, self._column_values(rows, name, column))
            for i, (name, column) in enumerate(zip(table.schema.names, table.columns, strict=True))
        ]

        for row in zip(*columns, strict=True):
            for i, (key, value) in enumerate(zip(keys, row, strict=True)):
                yield b", " + key if i else b"{" + key
                yield from map(str.encode, value)

            yield b"}\n"

    def _column_values(self, rows: RowBatch, name: str, column: pa.Array) -> list[Any]:
        try:
            return json_values(column)
        except UnicodeDecodeError as err:
            raise not_utf8_column(self._source_name, rows, name, ", which JSON requires") from err
        except TypeError as err:
            raise OutputError(
                f"column {name!r} cannot be written as JSON: {err}; write Parquet or Arrow",
                reason="not-json-type",
                column=name,
            ) from err


Member = tuple["Key", Iterable[str]]  # a key, and its value as pieces of JSON text


class Key:
    """
    One key of JSON objects, found in lines without changing them.

    :param name: the key
    :ivar json: the key as JSON
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.json = dump(name).encode()
        # A plain name can be written in two ways, literally and with \u escapes; other names in more ways.
        self._marks = (self.json, b"\\u") if _PLAIN_NAME.fullmatch(name) else ()

    def may_be_in(self, line: bytes) -> bool:
        """Whether the line can contain the key. A quick check, because most lines do not."""
        return not self._marks or any(mark in line for mark in self._marks)

    def value_in(self, line: bytes) -> str:
        """
        Return the value of the key as it is written: the last one if there are several, ``null`` if there is none.

        :param line: a valid JSON object
        """
        found = values_of([self], line)
        if not found:
            return "null"

        start, end = found[self.name][-1]
        return line.decode()[start:end]


def values_of(keys: Iterable[Key], line: bytes) -> dict[str, list[tuple[int, int]]]:
    """
    Return where the values of keys at the top level of an object are, as ranges of characters.

    The line is parsed at most once, and not at all if it cannot contain any of the keys.

    :param line: a valid JSON object
    :return: ranges by key, only for keys that the object has
    """
    wanted = {key.name for key in keys if key.may_be_in(line)}
    # The places must be those of the whole line, but whether a key is there shows without its long strings.
    short = shortened(line) if wanted else None
    if short is not None and wanted.isdisjoint(name for name, _, _ in members_of(short.content.decode())):
        return {}

    found: dict[str, list[tuple[int, int]]] = {}
    for name, start, end in members_of(line.decode()) if wanted else ():
        if name in wanted:
            found.setdefault(name, []).append((start, end))

    return found


def _with_members(line: bytes, members: list[Member], old: Mapping[str, list[tuple[int, int]]]) -> Iterator[Piece]:
    """
    Yield the line with members added at its end, or in the position of existing members with the same key.

    :param old: where the values of existing members are
    """
    places: list[tuple[int, int, str]] = []
    for key, value in members:
        if key.name in old:
            text = "".join(value)
            places += [(start, end, text) for start, end in old[key.name]]

    new = [(key, value) for key, value in members if key.name not in old]
    yield from _appended(_replaced(line, places) if places else line, new)


def _appended(line: bytes, members: Sequence[Member]) -> Iterator[Piece]:
    """
    Yield the line with members added after its last one, in pieces.

    :param line: a valid JSON object without their keys
    """
    if not members:
        yield line
        return

    # Views, because a line may be long.
    brace = end = line.rindex(b"}")
    while line[end - 1] in _SPACE_BYTES:
        end -= 1
    yield memoryview(line)[:end]

    # An object without members needs no comma.
    comma = b"" if line.endswith(b"{", 0, end) else b", "

    for key, value in members:
        yield comma + key.json + b": "
        yield from map(str.encode, value)
        comma = b", "

    yield line[brace:]


def members_of(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the members of a JSON object: the key, and where its value begins and ends."""
    at = _after_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = UNTYPED.raw_decode(text, at)
        start = _after_space(text, text.index(":", at) + 1)
        _, end = UNTYPED.raw_decode(text, start)
        yield key, start, end

        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _replaced(line: bytes, places: list[tuple[int, int, str]]) -> bytes:
    text = line.decode()
    # From the end, so that the positions of the remaining ones stay valid.
    for start, end, value in sorted(places, reverse=True):
        text = text[:start] + value + text[end:]
    return text.encode()


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _gathered(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join small pieces so that each is worth a call; a large piece is passed on without a copy."""
    waiting: list[Piece] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > _WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0

        if len(piece) > _WRITE_BYTES:
            yield piece
            continue

        waiting.append(piece)
        size += len(piece)

    yield b"".join(waiting)


def _check_names(schema: pa.Schema) -> None:
    for name in schema.names:
        if len(schema.get_all_field_indices(name)) > 1:
            raise OutputError(
                f"two columns are named {name!r}, and a JSON object cannot hold both; rename one, or write Parquet",
                reason="column-ambiguous",
                column=name,
            )
