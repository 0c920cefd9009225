"""
A file format for tests, all in one module: one row per line, ``text`` or ``text:start-end=label,...``.

It shows what a new format needs: a reader, a writer, and one :class:`FileFormat` that is put into ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa

from nerd_onnx.formats.base import ReadOptions, RowBatch, WriteOptions, Written
from nerd_onnx.formats.file_format import FileFormat
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import ByteStream


class ColonReader(Closing):
    """Reads the texts as rows with one column."""

    codecs: tuple[str, ...] | None = None
    num_rows: int | None = None

    def __init__(self, path: str, options: ReadOptions, _typed: bool) -> None:  # noqa: FBT001
        self.path = path
        self.schema: pa.Schema = pa.schema([(options.text_column, pa.string())])
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


class ColonWriter:
    """Writes texts with their entities."""

    def __init__(self, path: str, options: WriteOptions) -> None:
        self._rows = 0
        self._target = open_target(path, overwrite=options.overwrite, spooled=False)

    def write(self, rows: RowBatch, entities: pa.Array, _reasons: pa.Array | None = None) -> None:
        """Write one line per row."""
        for text, found in zip(rows.texts.to_pylist(), entities.to_pylist(), strict=True):
            marks = ",".join(f"{one['start']}-{one['end']}={one['label']}" for one in found or [])
            self._target.file.write(f"{text}:{marks}\n".encode())
        self._rows += rows.num_rows

    def unfit(self, _rows: RowBatch) -> Mapping[int, str]:
        """Return no rows: all can be written."""
        return {}

    def finish(self) -> Written:
        """Write everything to disk."""
        return Written(self._rows, *self._target.flush())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._target.commit()
        self._target.discard()


COLON = FileFormat(
    name="colon",
    title="colon text",
    suffixes=(".colon",),
    recognizes=lambda head: head.startswith(b"#colon"),
    is_compressible=True,
    has_types=True,
    open_reader=ColonReader,
    open_writer=ColonWriter,
)
