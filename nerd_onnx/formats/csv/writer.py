"""Write CSV and TSV: the columns of the input as text, and lists of entities as JSON text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import OutputError
from nerd_onnx.formats.atomic_writer import AtomicWriter
from nerd_onnx.formats.interfaces import RowBatch, WriteOptions
from nerd_onnx.formats.json_values import dump, dumped_lists, json_values, not_utf8_column
from nerd_onnx.formats.layouts import typed_rows
from nerd_onnx.formats.text_arrays import first_invalid, is_text, plain_texts
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.compression import CompressedTarget
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors

_TEXT = pa.large_string()  # 256 long texts may have more than 2 GiB
_QUOTE, _NOTHING = pa.scalar('"', _TEXT), pa.scalar("", _TEXT)
_ROWS_AT_ONCE = 256  # the texts of so many rows are in memory several times while they are quoted
_LONG_BYTES = 8 << 20  # of so many rows: larger ones are quoted in pieces
_PIECE_BYTES = 1 << 20


class CsvWriter(AtomicWriter):
    """
    A file with a header and fields between delimiters, written atomically. Lines end with a line feed.

    A field is quoted only if it needs to be. Null has no characters, an empty text is ``""``. Numbers, booleans, dates,
    lists and so on have the text of their JSON value, see :mod:`nerd_onnx.formats.json_values`.

    :param path: a file, or ``-``; the suffix of a compression compresses it
    :param delimiter: one character of ASCII
    :raises OutputError: if the output cannot be written as asked
    """

    def __init__(self, path: Location, options: WriteOptions, delimiter: str) -> None:
        if options.source.schema is None:
            raise ValueError("CSV takes typed rows; open the source with typed=True")

        self._path = path
        self._source_name = input_name(options.source.path)
        self._delimiter = delimiter
        # An empty text too: a field without characters is null.
        self._needs_quotes = f'[{delimiter}"\r\n]|^$'
        self._special = re.compile(f'[{delimiter}"\r\n]'.encode())
        self._arrangement = typed_rows(
            options.layout, options.source.schema, options.reasons_field, {}, replace=options.replace
        )
        self._has_header = False
        self._rows = 0
        self._target = open_target(path, overwrite=options.overwrite, spooled=False, scratch=options.scratch)
        self._compressed = CompressedTarget(path, self._target.file)

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """
        Write rows with their entities. :meth:`unfit` must not have named any of them.

        :raises OutputError: if the output cannot be written, or a column has a type without a text
        :raises InputError: if a string is not valid UTF-8
        :raises BrokenPipeError: if the reader of standard output closed the pipe
        """
        self._begin()
        table = self._arrangement.placed(rows, entities, reasons)

        for first in range(0, table.num_rows, _ROWS_AT_ONCE):
            part = table.slice(first, _ROWS_AT_ONCE)
            if part.nbytes > _LONG_BYTES:
                self._write_long(rows, part)
                continue

            columns = list(self._columns(rows, part))
            content = "\n".join(pc.binary_join_element_wise(*columns, pa.scalar(self._delimiter, _TEXT)).to_pylist())
            with output_errors(self._path):
                self._compressed.file.write(f"{content}\n".encode())

        self._rows += table.num_rows

    def _write_long(self, rows: RowBatch, table: pa.RecordBatch) -> None:
        """Write rows one by one, and their fields in pieces: the same bytes with few copies of a long text."""
        for row in range(table.num_rows):
            for i, (name, column) in enumerate(zip(table.schema.names, table.columns, strict=True)):
                before = self._delimiter.encode() if i else b""
                with output_errors(self._path):
                    self._compressed.file.write(before)
                    for piece in self._pieces(self._content(rows, name, column.slice(row, 1))):
                        self._compressed.file.write(piece)
            with output_errors(self._path):
                self._compressed.file.write(b"\n")

    def _pieces(self, content: bytes | memoryview | None) -> Iterator[bytes]:
        """Yield a field in pieces, quoted if it needs to be; None is null."""
        if content is None:
            return
        quote = b'"' if not content or self._special.search(content) else b""
        yield quote
        for begin in range(0, len(content), _PIECE_BYTES):
            piece = bytes(content[begin : begin + _PIECE_BYTES])
            yield piece.replace(b'"', b'""') if quote else piece
        yield quote

    def _content(self, rows: RowBatch, name: str, value: pa.Array) -> bytes | memoryview | None:
        """Return the text of one value in UTF-8; None for null."""
        if pa.types.is_list(value.type) and value.null_count == 0:
            (pieces,) = dumped_lists(value)
            return "".join(pieces).encode()

        texts = self._texts(rows, name, value).cast(_TEXT)
        _, offsets, content = texts.buffers()
        if texts.null_count or content is None:
            return None if texts.null_count else b""
        begin, end = np.frombuffer(offsets, np.int64, count=2, offset=texts.offset * 8).tolist()
        return memoryview(content)[begin:end]

    def unfit(self, rows: RowBatch) -> Mapping[int, str]:
        """Return the rows whose text is not valid UTF-8: Parquet can hold them, and a file of text cannot."""
        return {row.index: row.reason for row in rows.rejected if row.index is not None}

    def _complete(self) -> int:
        self._begin()
        with output_errors(self._path):
            self._compressed.finish()
        return self._rows

    def _release(self) -> None:
        self._compressed.release()

    def _begin(self) -> None:
        """Write the header, if it is not written yet: an output without rows has one too."""
        if self._has_header:
            return

        names = self._quoted(pa.array(self._arrangement.schema.names, _TEXT)).to_pylist()
        with output_errors(self._path):
            self._compressed.file.write(f"{self._delimiter.join(names)}\n".encode())
        self._has_header = True

    def _columns(self, rows: RowBatch, table: pa.RecordBatch) -> Iterator[pa.Array]:
        """Yield the fields of each column, quoted where they need it. *Shape of each:* (rows,)"""
        for name, column in zip(table.schema.names, table.columns, strict=True):
            yield self._quoted(self._texts(rows, name, column).cast(_TEXT))

    def _quoted(self, texts: pa.Array) -> pa.Array:
        doubled = pc.replace_substring(texts, '"', '""')
        # The last argument is what stands between the others.
        quoted = pc.binary_join_element_wise(_QUOTE, doubled, _QUOTE, _NOTHING)
        needs = pc.match_substring_regex(texts, self._needs_quotes)
        return pc.if_else(needs, quoted, texts).fill_null("")

    def _texts(self, rows: RowBatch, name: str, column: pa.Array) -> pa.Array:
        """Return the values of a column as texts. *Shape:* (rows,)"""
        if is_text(column.type):
            texts = plain_texts(column)
            if first_invalid(texts) is not None:
                raise not_utf8_column(self._source_name, rows, name)
            return texts

        try:
            values = json_values(column)
        except UnicodeDecodeError as err:
            raise not_utf8_column(self._source_name, rows, name) from err
        except TypeError as err:
            raise OutputError(
                f"column {name!r} cannot be written as text: {err}; write Parquet or Arrow",
                reason="no-text-type",
                column=name,
            ) from err

        return pa.array(
            [value if value is None or isinstance(value, str) else dump(value) for value in values], pa.string()
        )
