"""
A file format for tests, all in one module: one row per line, ``text`` or ``text:start-end=label,...``.

It shows what a new format needs: a reader, a writer, and one :class:`FileFormat` that is put into ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from nerd_onnx.formats.atomic_writer import AtomicWriter
from nerd_onnx.formats.file_format import FileFormat
from nerd_onnx.formats.finished_files import check_last_line
from nerd_onnx.formats.interfaces import ReadOptions, RowBatch, WriteOptions
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import ByteStream
from nerd_onnx.storage.location import Location


class ColonReader(Closing):
    """Reads the texts as rows with one column."""

    codecs: tuple[str, ...] | None = None
    copied = None
    rewritten_because = None
    num_rows: int | None = None

    def __init__(self, path: Location, options: ReadOptions, _typed: bool) -> None:  # noqa: FBT001
        self.path = path
        self.schema: pa.Schema = pa.schema([(options.text_columns[0], pa.string())])
        self.column_names: Sequence[str] = self.schema.names
        self.rows_read = 0
        self._stream = ByteStream(path, options.line_bytes)

    def progress(self) -> float | None:
        """Return the share of the bytes that was read."""
        return self._stream.progress()

    def batches(self) -> Iterator[RowBatch]:
        """Yield one batch per line."""
        for _, line in self._stream.lines():
            texts = pa.array([line.decode().partition(":")[0]])
            table = pa.RecordBatch.from_arrays([texts], schema=self.schema)
            yield RowBatch(texts, table, None, first_row=self.rows_read)
            self.rows_read += 1

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class ColonWriter(AtomicWriter):
    """Writes texts with their entities."""

    def __init__(self, path: Location, options: WriteOptions) -> None:
        self._rows = 0
        self._target = open_target(path, overwrite=options.overwrite, spooled=False)

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:  # noqa: ARG002
        """Write one line per row."""
        for text, found in zip(rows.texts.to_pylist(), entities.to_pylist(), strict=True):
            marks = ",".join(f"{one['start']}-{one['end']}={one['label']}" for one in found or [])
            self._target.file.write(f"{text}:{marks}\n".encode())
        self._rows += rows.num_rows

    def _complete(self) -> int:
        return self._rows


COLON = FileFormat(
    name="colon",
    title="colon text",
    suffixes=(".colon",),
    recognizes=lambda head: head.startswith(b"#colon"),
    is_compressible=True,
    has_types=True,
    open_reader=ColonReader,
    open_writer=ColonWriter,
    check_complete=lambda path, _verify: check_last_line(path, "colon text"),
)
