"""Write Arrow IPC with the container, the record batches and the compression of the input."""

from __future__ import annotations

import pyarrow as pa

from nerd_onnx.errors import OutputError, first_line
from nerd_onnx.formats.arrow.dictionaries import OneDictionary
from nerd_onnx.formats.arrow.joined import joined
from nerd_onnx.formats.arrow.messages import Contents
from nerd_onnx.formats.atomic_writer import AtomicWriter
from nerd_onnx.formats.foreign_metadata import updated_metadata
from nerd_onnx.formats.interfaces import RowBatch, WriteOptions
from nerd_onnx.formats.layouts import typed_rows
from nerd_onnx.formats.pending_rows import PendingRows
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import is_pipe, output_errors, output_name

BATCH_ROWS = 1 << 16  # as the writers of Feather have it
# Programs expect these under these names: the first always a file, the second always a stream.
_FILE_SUFFIX, _STREAM_SUFFIX = ".feather", ".arrows"


class ArrowWriter(AtomicWriter):
    """
    An Arrow file or stream with the entities, written atomically.

    Each record batch of an Arrow input becomes one of the output, split at ``group_bytes`` and at 65,536 rows. Rows
    without record batches, and rows of the long layout, are collected until their input rows are as many. Empty record
    batches are not written.

    A stream goes to standard output and pipes. A file gets the container of an Arrow input, and else is a file.

    :param path: a file, or ``-``
    :param source: what an Arrow input is like
    :raises OutputError: if the output cannot be written as asked
    """

    def __init__(self, path: Location, options: WriteOptions, source: Contents) -> None:
        if options.source.schema is None:
            raise ValueError("Arrow takes typed rows; open the source with typed=True")

        self._path = path
        self._keeps_batches = not options.layout.is_long
        self._columns = typed_rows(
            options.layout,
            options.source.schema,
            options.reasons_field,
            options.entities_metadata,
            replace=options.replace,
        )
        self._schema = self._columns.schema

        # The long layout has other columns than the metadata of other programs describes.
        if self._keeps_batches:
            new = [*options.layout.fields, *([] if options.reasons_field is None else [options.reasons_field])]
            self._schema = self._schema.with_metadata(updated_metadata(self._schema.metadata or {}, new))

        self._pending = PendingRows(self._schema, options.group_bytes, BATCH_ROWS)
        self._rows = 0

        suffix = path.suffixes[-1] if path.suffixes else ""
        is_stream = is_pipe(path) or suffix == _STREAM_SUFFIX or (source.is_stream and suffix != _FILE_SUFFIX)
        self._dictionaries = None if is_stream else OneDictionary(self._schema)
        self._target = open_target(path, overwrite=options.overwrite, spooled=False, scratch=options.scratch)
        try:
            with output_errors(path):
                # A stream may replace a dictionary, and a file only add to it.
                writing = pa.ipc.IpcWriteOptions(
                    compression=source.codec, use_threads=False, emit_dictionary_deltas=not is_stream
                )
                opener = pa.ipc.new_stream if is_stream else pa.ipc.new_file
                self._writer = opener(self._target.file, self._schema, options=writing)
        except BaseException:
            self._target.discard()
            raise

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """
        Write rows with their entities.

        :param reasons: why a row has no entities, if the writer has a column for it
        :raises OutputError: if the output cannot be written
        :raises BrokenPipeError: if the reader of standard output closed the pipe
        """
        if rows.table is None:
            raise ValueError("Arrow takes typed rows; open the source with typed=True")

        self._pending.add(self._columns.placed(rows, entities, reasons), rows.table)
        ends = rows.row_group is None and rows.last_in_group and self._keeps_batches
        if ends or self._pending.is_enough:
            self._write_batch()

    def _complete(self) -> int:
        self._write_batch()
        with output_errors(self._path):
            self._writer.close()
        return self._rows

    def _write_batch(self) -> None:
        if not self._pending:
            return

        table = self._pending.take()
        try:
            batch = pa.RecordBatch.from_arrays([joined(column) for column in table.columns], schema=self._schema)
            if self._dictionaries is not None:
                batch = self._dictionaries.unified(batch)
            with output_errors(self._path):
                self._writer.write_batch(batch)
        except pa.ArrowInvalid as err:
            raise self._dictionary_error(err) from err

        self._rows += table.num_rows

    def _dictionary_error(self, err: Exception) -> OutputError:
        name = output_name(self._path)
        return OutputError(
            f"{name}: the dictionary of a column cannot be written: {first_line(err).rstrip('.')}. An Arrow file has "
            "one dictionary for each column; write Parquet, or cast the column to strings",
            reason="dictionary-too-large",
            file=name,
        )
