"""Open the record batches of an Arrow file or stream, in bounded memory where its layout allows it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from nerd_onnx.formats.arrow.messages import Contents
from nerd_onnx.machine import system
from nerd_onnx.storage.input_stream import open_bytes
from nerd_onnx.storage.location import Location

# Everything that pyarrow raises for damaged files. UnicodeDecodeError (for names) is a ValueError.
DAMAGE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError)
# A larger record batch is mapped: rows are read when they are needed. Smaller ones are read whole, because a file that
# is cut while it is mapped would end the process.
MAPPED_BYTES = 64 << 20


class OpenedBatches:
    """
    The record batches of a file or stream.

    :param path: a file, or a URI
    :param contents: what its messages say
    :raises pa.ArrowException: if it is damaged; or another of :data:`DAMAGE`
    :ivar schema: its schema
    """

    def __init__(self, path: Location, contents: Contents) -> None:
        self._map: mmap.mmap | None = None
        self._source: Any = None
        is_mapped = contents.largest > MAPPED_BYTES and contents.codec is None and not path.is_remote
        try:
            if is_mapped:
                # By Python and not by pyarrow, whose map has no way to let go of pages.
                with open_bytes(path) as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._source = pa.BufferReader(pa.py_buffer(self._map))
            elif path.is_remote:
                self._source = pa.PythonFile(open_bytes(path), mode="r")
            else:
                self._source = pa.OSFile(os.fsencode(path), "rb")

            options = pa.ipc.IpcReadOptions(use_threads=False)
            opener = pa.ipc.open_stream if contents.is_stream else pa.ipc.open_file
            self._reader = opener(self._source, options=options)
            self.schema: pa.Schema = self._reader.schema
            # pyarrow decodes a name when it is asked for: here an error still means that the file is damaged.
            for field in self.schema:
                _decode_names(field)
        except BaseException:
            self.close()
            raise

    def batches(self) -> Iterator[pa.RecordBatch]:
        """
        Yield the record batches, each after a check that its arrays can be read.

        Strings may be no UTF-8: only those that are needed as text are checked, as in Parquet.
        """
        if isinstance(self._reader, pa.RecordBatchFileReader):
            found = (self._reader.get_batch(i) for i in range(self._reader.num_record_batches))
        else:
            found = iter(self._reader)

        for batch in found:
            for column in batch.columns:
                checked(column)
                self.release()

            yield batch

        # pyarrow stops at the first end of a stream.
        if isinstance(self._reader, pa.RecordBatchStreamReader) and self._source.tell() != self._source.size():
            raise pa.ArrowInvalid("more bytes follow its end; several streams in one file are not read")

    def release(self) -> None:
        """Let go of mapped pages that were read. They are read again when they are needed."""
        if self._map is not None:
            system.release_pages(self._map)

    def close(self) -> None:
        """Close the file. A map is closed when the last batch that lies in it is gone."""
        self._map = None
        if self._source is not None:
            self._source.close()


def _decode_names(field: pa.Field) -> None:
    """Decode the names of a column and of what is nested in it, which can fail: they may be no UTF-8."""
    _ = field.name
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    for i in range(kind.num_fields):
        _decode_names(kind.field(i))


def checked(column: pa.Array) -> None:
    """
    Check that offsets, lengths and indices of an array lie inside of its buffers.

    :raises pa.ArrowInvalid: if they do not
    """
    # As bytes, because validate() would refuse strings that are no UTF-8.
    kind = _as_bytes(column.type)
    as_bytes = column if kind == column.type else column.view(kind)
    as_bytes.validate(full=True)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """Return the type with bytes in place of strings, at any depth: these may have any value."""
    types = pa.types
    for is_string, binary in _BINARY_OF_STRING:
        if is_string(kind):
            return binary()

    if types.is_struct(kind):
        return pa.struct([_field_as_bytes(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_field_as_bytes(kind.key_field), _field_as_bytes(kind.item_field), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(_field_as_bytes(kind.value_field), kind.list_size)
    for is_list, of in _LISTS:
        if is_list(kind):
            return of(_field_as_bytes(kind.value_field))

    return kind


def _field_as_bytes(field: pa.Field) -> pa.Field:
    return field.with_type(_as_bytes(field.type))


_BINARY_OF_STRING = (
    (pa.types.is_string, pa.binary),
    (pa.types.is_large_string, pa.large_binary),
    (pa.types.is_string_view, pa.binary_view),
)
_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)
