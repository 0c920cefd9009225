"""Read Parquet, one row group after the other, in bounded memory: all columns, or the texts if the rest is copied."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nerd_onnx.errors import InputError, first_line
from nerd_onnx.formats.interfaces import ReadOptions, RowBatch
from nerd_onnx.formats.parquet.copied_file import CopiedFile
from nerd_onnx.formats.parquet.footer import CannotCopyError, FooterContent, SeekableFile
from nerd_onnx.formats.parquet.int96 import int96_columns, int96_unit
from nerd_onnx.formats.parquet.pages import Pages
from nerd_onnx.formats.parquet.properties import file_properties
from nerd_onnx.formats.text_arrays import column_of, find_text_column
from nerd_onnx.formats.text_columns import TextColumns
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import ReadableFile, check_readable, input_name, read_head
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.remote import open_object
from nerd_onnx.storage.signatures import SIGNATURE_BYTES, foreign_format

MAX_COLUMNS = 20_000
MAX_FOOTER_BYTES = 64 << 20  # pyarrow needs sixteen times as much memory to read it
_FOOTER_END = 8  # bytes: the length of the footer and the magic bytes
_BUFFER_BYTES = 1 << 20
# Everything that pyarrow raises for damaged files. UnicodeDecodeError (for names) is a ValueError.
_DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError)
_WRONG_CHECKSUM = "CRC checksum verification failed"  # in pyarrow's message, which has no other sign of it


class ParquetReader(Closing):
    """
    A Parquet file as row batches. Standard input is copied to a temporary file first.

    :param path: a file, or ``-``
    :param as_json: whether the rows will be written as JSON, which cannot hold a row with invalid UTF-8
    :raises InputError: if it cannot be read as Parquet, or the text column is missing or has another type
    """

    def __init__(self, path: Location, options: ReadOptions, *, as_json: bool) -> None:
        check_readable(path)
        self.path = path
        self._name = input_name(path)
        self._options = options
        self.rows_read = 0
        self._bytes = ReadableFile(path)

        try:
            opened, self._file, self._pages = _open(self._bytes.path, self._name)
            self._dictionaries: pq.ParquetFile | None = None
            self.copied, self.rewritten_because = _copied(opened, self._name, options.added_columns, self._pages.footer)
            # Columns that are copied are not read, so it does not matter what pyarrow can hold of them.
            if self.copied is None and int96_columns(self._file):
                self._file, self._pages = self._with_int96()
            self.schema: pa.Schema = _schema(self._file, self._name)
            self.column_names: list[str] = self.schema.names
            self._read_schema = self.schema if self.copied is None else self._text_schema()
            self._texts = TextColumns(
                self._name, self._read_schema, options, as_json=as_json, has_table=self.copied is None
            )
        except BaseException:
            self._bytes.close()
            raise

        if self.copied is None:
            self.schema = self._texts.schema
        total: int = self._file.metadata.num_rows
        self.num_rows: int = total if options.limit is None else min(total, options.limit)
        self.codecs: tuple[str, ...] | None = None if self.copied else self._codecs()
        self.properties = None if self.copied else file_properties(self._file)

    def progress(self) -> float | None:
        """Return the share of the rows that was read."""
        return self.rows_read / self.num_rows if self.num_rows else 1.0

    def batches(self) -> Iterator[RowBatch]:
        """
        Yield the rows; a batch never has rows of two row groups.

        :raises InputError: if the file is damaged, or a text is not valid UTF-8
        """
        for group in range(self._file.num_row_groups):
            rows_in_group = self._file.metadata.row_group(group).num_rows
            end = min(self.num_rows, self.rows_read + rows_in_group)
            for batch in self._group_batches(group, end):
                is_last = self.rows_read + batch.num_rows == end
                for rows in self._texts.batches(batch, self.rows_read, row_group=group, is_last=is_last):
                    self.rows_read += rows.rows_read
                    yield rows
            if self.rows_read < end:  # pyarrow raises no error for missing rows
                raise InputError(
                    f"{self._name}, row group {group}: ends {end - self.rows_read} rows too early; the file is "
                    "damaged, or changed while it was read",
                    reason="row-group-cut",
                    file=self._name,
                    row_group=group,
                )

    def close(self) -> None:
        """Close the file and delete the temporary copy."""
        for file in filter(None, (self._file, self._dictionaries)):
            file.close(force=True)
        self._bytes.close()

    def _text_schema(self) -> pa.Schema:
        """Return the schema of the text columns alone."""
        places = [find_text_column(self._name, self.schema, name) for name in self._options.text_columns]
        return pa.schema([self.schema.field(place) for place in places])

    def _with_int96(self) -> tuple[pq.ParquetFile, Pages]:
        """Return the file opened anew, with the unit in which its INT96 timestamps are read without loss."""
        opened = [(self._file, self._pages)]

        def in_unit(unit: str) -> pq.ParquetFile:
            _, file, pages = _open(self._bytes.path, self._name, unit)
            opened.append((file, pages))
            return file

        try:
            in_unit(int96_unit(in_unit, self._pages.rows_at_once, self._name))
            found = opened.pop()
        except _DAMAGE as err:
            raise InputError(
                f"{self._name}: is damaged, or pyarrow cannot read it: {_reason(err)}",
                reason="damaged-parquet",
                file=self._name,
            ) from err
        finally:
            for other, _ in opened:
                other.close(force=True)
        return found

    def _group_batches(self, group: int, end: int) -> Iterator[pa.RecordBatch]:
        """Read a row group up to row ``end`` of the file, about ``batch_bytes`` at a time."""
        if self.rows_read >= end:
            return

        # The metadata has only the average size of a row; _cut splits batches that turn out larger.
        size = max(1, min(self._options.batch_rows, self._options.batch_bytes // self._bytes_per_row(group)))
        columns = self._read_schema.names if self.copied else None
        try:
            size = self._pages.rows_at_once(group, columns, size, self._longest_value)
            reader = self._file.iter_batches(batch_size=size, row_groups=[group], columns=columns, use_threads=False)
            for batch in reader:
                last = self.rows_read + batch.num_rows >= end
                if last:
                    reader.close()  # it keeps a page in memory, which may be as large as the texts
                # By name, because pyarrow also reads a column "text.en" where "text" is asked for.
                found = batch.select(columns).columns if columns else batch.columns
                yield pa.RecordBatch.from_arrays(found, schema=self._read_schema).slice(0, end - self.rows_read)
                if last:
                    return
        except _DAMAGE as err:
            raise self._damaged(group, err) from err

    def _codecs(self) -> tuple[str, ...] | None:
        """
        Return the compression of each leaf column in the first row group; None if there is no row group.

        A row is read first: if the metadata of a column is damaged, reading a row raises an error, while reading the
        metadata would crash the process (in pyarrow up to 26).
        """
        metadata = self._file.metadata
        if metadata.num_row_groups == 0:
            return None

        try:
            self._pages.rows_at_once(0, None, 1)
            next(self._file.iter_batches(batch_size=1, row_groups=[0], use_threads=False), None)
        except _DAMAGE as err:
            raise self._damaged(0, err) from err

        group = metadata.row_group(0)
        return tuple(group.column(i).compression for i in range(metadata.num_columns))

    def _damaged(self, group: int, err: Exception) -> InputError:
        """Return the error for a row group that cannot be read; for a wrong checksum, it names the column."""
        if _WRONG_CHECKSUM not in str(err):
            return InputError(
                f"{self._name}, row group {group}: is damaged, or pyarrow cannot read it: {_reason(err)}",
                reason="damaged-parquet",
                file=self._name,
                row_group=group,
            )

        column = next(filter(partial(self._has_wrong_checksum, group), self._file.schema_arrow.names), "?")
        return InputError(
            f"{self._name}, row group {group}, column {column!r}: the checksum of a page is wrong: its bytes changed "
            "after the file was written; take a good copy of the file, or write it again",
            reason="wrong-checksum",
            file=self._name,
            row_group=group,
            column=column,
        )

    def _has_wrong_checksum(self, group: int, column: str) -> bool:
        try:
            size = self._pages.rows_at_once(group, [column], self._options.batch_rows)
            for _ in self._file.iter_batches(size, row_groups=[group], columns=[column], use_threads=False):
                pass
        except _DAMAGE as err:
            return _WRONG_CHECKSUM in str(err)
        return False

    def _longest_value(self, group: int, path: str, words: int) -> int | None:
        """Return the bytes of the longest value in the dictionary of a column; None if it cannot be told."""
        if self._dictionaries is None:
            self._dictionaries = pq.ParquetFile(
                _opened(self._bytes.path),
                metadata=self._file.metadata,
                read_dictionary=[self._file.schema.column(i).path for i in range(self._file.metadata.num_columns)],
                pre_buffer=False,
                buffer_size=_BUFFER_BYTES,
            )
        rows = self._dictionaries.iter_batches(batch_size=1, row_groups=[group], columns=[path], use_threads=False)
        found = next(rows, None)
        rows.close()
        column = None if found is None or path not in found.schema.names else found.column(path)
        if not isinstance(column, pa.DictionaryArray) or len(column.dictionary) != words:
            return None
        longest: int | None = pc.max(pc.binary_length(column.dictionary)).as_py()
        return longest

    def _bytes_per_row(self, group: int) -> int:
        """Return the average size of a row in a row group: in bytes, uncompressed, and at least 1."""
        if self.copied is not None:
            return sum(self.copied.footer.bytes_per_row(group, column_of(name)) for name in self._options.text_columns)

        facts = self._file.metadata.row_group(group)
        return max(1, int(facts.total_byte_size) // max(1, int(facts.num_rows)))


def _opened(path: Location) -> io.RawIOBase | pa.NativeFile:
    return open_object(path.text) if path.is_remote else pa.OSFile(os.fsencode(path), "rb")


def _open(
    path: Location, name: str, timestamps: str | None = None
) -> tuple[io.RawIOBase | pa.NativeFile, pq.ParquetFile, Pages]:
    """Return an open file, pyarrow's reader of it, which closes the file, and its pages."""
    try:
        opened = _opened(path)
        _check_footer(opened, name)
        pages = Pages(opened, name)
        # pre_buffer would keep whole compressed row groups in memory.
        file = pq.ParquetFile(
            opened,
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
            coerce_int96_timestamp_unit=timestamps,
            page_checksum_verification=True,
        )
    except _DAMAGE as err:
        found = foreign_format(read_head(path, SIGNATURE_BYTES))
        if found is not None and found.name != "Parquet":
            raise InputError(
                f"{name}: is {found.name} by its first bytes, and not Parquet; {found.advice}",
                reason="other-format",
                file=name,
                found=found.name,
            ) from err
        raise InputError(
            f"{name}: is not a Parquet file, or is cut off: {_reason(err)}", reason="not-parquet", file=name
        ) from err

    if file.metadata.num_columns > MAX_COLUMNS:
        raise InputError(
            f"{name}: has {file.metadata.num_columns} columns, and the maximum is {MAX_COLUMNS}; remove the columns "
            "that are not needed",
            reason="too-many-columns",
            file=name,
            found=int(file.metadata.num_columns),
            maximum=MAX_COLUMNS,
        )

    return opened, file, pages


def _copied(
    file: SeekableFile, name: str, added: tuple[str, ...] | None, content: FooterContent
) -> tuple[CopiedFile | None, str | None]:
    """Return the file if it can be copied, and else why not. Without a list of added columns it is not tried."""
    if added is None:
        return None, ""

    try:
        return CopiedFile(file, name, added, content), ""
    except CannotCopyError as err:
        return None, str(err)


def _schema(file: pq.ParquetFile, name: str) -> pa.Schema:
    try:
        schema = file.schema_arrow
        str(schema)  # decodes names and metadata, which can fail
    except _DAMAGE as err:
        raise InputError(
            f"{name}: its schema is damaged, or pyarrow cannot read it: {_reason(err)}",
            reason="damaged-schema",
            file=name,
        ) from err

    return schema


def _check_footer(file: io.RawIOBase | pa.NativeFile, name: str) -> None:
    """Check, before the footer is read, that there is one and that it will not take gigabytes of memory."""
    length = file.seek(0, os.SEEK_END)
    if length == 0:
        raise InputError(
            f"{name}: the file is empty (0 bytes), and no Parquet file is empty; create it again",
            reason="empty-file",
            file=name,
        )

    if length < _FOOTER_END:
        return

    file.seek(-_FOOTER_END, os.SEEK_END)
    size, magic = struct.unpack("<I4s", file.read(_FOOTER_END))
    if magic == b"PAR1" and size > MAX_FOOTER_BYTES:
        raise InputError(
            f"{name}: its footer has {size / 1e6:.0f} MB, and the maximum is {MAX_FOOTER_BYTES / 1e6:.0f} MB; it has "
            "too many columns or row groups: split the file, or remove columns",
            reason="footer-too-large",
            file=name,
            found=int(size),
            maximum=MAX_FOOTER_BYTES,
        )


def _reason(err: Exception) -> str:
    return first_line(err).rstrip(".")
