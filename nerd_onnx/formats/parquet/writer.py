"""Write Parquet with the row groups and the compression of the input."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.formats.base import RowBatch, Written
from nerd_onnx.formats.layouts import EntityRows, Layout, NewColumns, typed_rows
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.output_place import output_errors

GROUP_BYTES = 64 << 20
GROUP_ROWS = 1_000_000
_NEW_CODEC = "ZSTD"
_ZSTD_LEVEL = 6  # files do not say their level; at pyarrow's own, 1, the same text takes a quarter more
_CODECS = {"UNCOMPRESSED": "NONE", "SNAPPY": "SNAPPY", "GZIP": "GZIP", "BROTLI": "BROTLI", "LZ4": "LZ4", "ZSTD": "ZSTD"}


class ParquetSink:
    """
    A Parquet file with the entities, whole or not at all.

    An input row group becomes one output row group, cut where it passes 64 MiB of Arrow data or a million rows;
    rows without row groups, and those of the long layout, are gathered up to the same size of the input. An empty row
    group is not written.

    :param path: a file, or ``-``, which gets all bytes on commit
    :param source_schema: schema of the rows
    :param codecs: compression of each leaf column of the input; None for Zstandard
    :param layout: where the entities stand
    :param entities_metadata: joins the schema's metadata
    :param replace: whether a column of a new name may be replaced, in its place
    :param overwrite: whether an existing file may be replaced
    :param reasons_field: name and type of one more new column, which says why a row has no entities; None for none
    :param scratch: folder for what needs a name before the file is whole; None for the output's own
    :param group_bytes: cut row groups where they pass so many bytes of Arrow data
    :param text_column: gets no statistics: its least and greatest text tell nobody anything, and finding them takes
        five times the memory of a long one
    :raises OutputError: when it cannot be written as asked
    """

    def __init__(
        self,
        path: str,
        *,
        source_schema: pa.Schema,
        codecs: tuple[str, ...] | None,
        layout: Layout,
        entities_metadata: Mapping[str, str],
        replace: bool,
        overwrite: bool,
        reasons_field: pa.Field | None = None,
        scratch: str | None = None,
        group_bytes: int = GROUP_BYTES,
        text_column: str | None = None,
    ) -> None:
        self._path = path
        self._columns = typed_rows(layout, source_schema, reasons_field, entities_metadata, replace=replace)
        self._keeps_groups = not layout.is_long
        self._schema = self._columns.schema
        self._written: Written | None = None
        self._group_bytes = group_bytes
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._target = open_target(path, overwrite=overwrite, spooled=True, scratch=scratch)
        try:
            with output_errors(path):
                compression = _compression(codecs if self._keeps_groups else None, self._columns)
                levels = {path: _ZSTD_LEVEL for path, codec in compression.items() if codec == "ZSTD"}
                self._footer: list[Any] = []
                self._writer = pq.ParquetWriter(
                    self._target.file,
                    self._schema,
                    compression=compression,
                    compression_level=levels,
                    write_statistics=[path for path in compression if path != text_column],
                    metadata_collector=self._footer,
                )
        except BaseException:
            self._target.discard()
            raise

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """
        Write rows with their entities.

        :param reasons: why a row has no entities, where the sink has that column

        :raises OutputError: when the disk refuses
        """
        if rows.table is None:
            raise ValueError("Parquet takes typed rows; open the source with typed=True")
        batch = self._columns.placed(rows, entities, reasons)
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += rows.table.nbytes  # not the entities': stored and new ones differ in their layout
        ends = rows.last_in_group and self._keeps_groups
        if ends or self._pending_bytes >= self._group_bytes or self._pending_rows >= GROUP_ROWS:
            self._write_group()

    def unfit(self, rows: RowBatch) -> Mapping[int, str]:  # noqa: ARG002 - the schema fits all rows or none
        """Tell which rows cannot be written: none."""
        return {}

    def finish(self) -> Written:
        """
        Write all that is left, safe on disk, but not yet under the output's name.

        :raises OutputError: when the disk refuses
        """
        if self._written is None:
            self._write_group()
            with output_errors(self._path):
                self._writer.close()
            self._written = Written(self._footer[0].num_rows, *self._target.flush())
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

    def _write_group(self) -> None:
        if self._pending_rows == 0:
            return
        # Without one dictionary for the whole group the writer would give up dictionary encoding.
        table = pa.Table.from_batches(self._pending, self._schema).unify_dictionaries()
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        with output_errors(self._path):
            self._writer.write_table(table, row_group_size=table.num_rows)

    def _discard(self) -> None:
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        self._writer.is_open = False  # else it tries again, noisily, when it is collected
        self._target.discard()


def _compression(codecs: tuple[str, ...] | None, columns: NewColumns | EntityRows) -> dict[str, str]:
    """Give each leaf column its compression in the input, and the new ones Zstandard."""
    leaves = [_leaves(field.type) for field in columns.source]
    if codecs is None or len(codecs) != sum(leaves):
        return dict.fromkeys(_leaf_paths(columns.schema), _NEW_CODEC)
    by_column, begin = [], 0
    for count in leaves:
        by_column.append([_CODECS.get(codec, _NEW_CODEC) for codec in codecs[begin : begin + count]])
        begin += count
    for place in columns.places:
        by_column[place : place + 1] = [[_NEW_CODEC] * _leaves(columns.schema.field(place).type)]
    return dict(zip(_leaf_paths(columns.schema), (codec for column in by_column for codec in column), strict=True))


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Let the writer itself name the leaf columns: lists and maps have more in their paths than their type shows."""
    empty = io.BytesIO()
    pq.ParquetWriter(empty, schema).close()
    written = pq.ParquetFile(empty).schema
    return [written.column(i).path for i in range(len(written.names))]


def _leaves(kind: pa.DataType) -> int:
    """Count the Parquet columns behind one Arrow column."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    if pa.types.is_struct(kind):
        return sum(_leaves(field.type) for field in kind)
    if pa.types.is_nested(kind):
        return _leaves(kind.value_type)
    return 1
