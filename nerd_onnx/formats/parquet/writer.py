"""Write Parquet with the row groups and the compression of the input."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.errors import OutputError
from nerd_onnx.formats.atomic_writer import AtomicWriter
from nerd_onnx.formats.foreign_metadata import updated_metadata
from nerd_onnx.formats.interfaces import GROUP_BYTES, RowBatch
from nerd_onnx.formats.layouts import EntityRows, Layout, NewColumns, typed_rows
from nerd_onnx.formats.parquet.properties import FileProperties, Leaf, file_leaves
from nerd_onnx.formats.pending_rows import PendingRows
from nerd_onnx.formats.text_arrays import column_of, has_elements
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name

GROUP_ROWS = 1_000_000
_NEW_CODEC = "ZSTD"
_ZSTD_LEVEL = 6  # Parquet does not record the level; with pyarrow's default, 1, files are a quarter larger
# By their names in metadata, which are not all those of options. Others, such as LZO, pyarrow cannot write.
_CODECS = {"UNCOMPRESSED": "NONE", "SNAPPY": "SNAPPY", "GZIP": "GZIP", "BROTLI": "BROTLI", "LZ4": "LZ4", "ZSTD": "ZSTD"}


class ParquetWriter(AtomicWriter):
    """
    A Parquet file with the entities, written atomically.

    Each row group of the input becomes one row group of the output, split at 64 MiB of Arrow data or a million rows.
    Rows without row groups, and rows of the long layout, are collected until their input rows have that size. Empty
    row groups are not written.

    :param path: a file, or ``-`` for standard output, which gets all bytes on commit
    :param source_schema: schema of the rows
    :param codecs: compression of each leaf column of the input; None for Zstandard
    :param properties: how the input was written; None if it is not Parquet. The output is written like it, as far as
        pyarrow can: with its metadata, sorting, page index, Bloom filters and physical types
    :param layout: how the entities are arranged
    :param entities_metadata: added to the metadata of the schema
    :param replace: whether an existing column with the name of a new one may be replaced, in its position
    :param overwrite: whether an existing file may be replaced
    :param reasons_field: name and type of the column that says why a row has no entities; None for no such column
    :param scratch: folder for temporary files; None for the folder of the output
    :param group_bytes: maximum size of a row group, in bytes of Arrow data
    :param text_columns: columns that are written without statistics: the minimum and maximum of long texts are useless,
        and computing them takes five times the memory of the longest text
    :raises OutputError: if the output cannot be written as asked
    """

    def __init__(
        self,
        path: Location,
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
        text_columns: tuple[str, ...] = (),
        properties: FileProperties | None = None,
    ) -> None:
        self._path = path
        self._columns = typed_rows(layout, source_schema, reasons_field, entities_metadata, replace=replace)
        self._keeps_groups = not layout.is_long
        self._schema, metadata = self._columns.schema, {}

        # The long layout has other columns than the metadata of other programs describes.
        if self._keeps_groups:
            new = [*layout.fields, *([] if reasons_field is None else [reasons_field])]
            self._schema = self._schema.with_metadata(updated_metadata(self._schema.metadata or {}, new))
            if properties is not None:
                metadata = _missing(updated_metadata(properties.metadata, new), self._schema)

        self._pending = PendingRows(self._schema, group_bytes, GROUP_ROWS)

        self._target = open_target(path, overwrite=overwrite, spooled=True, scratch=scratch)
        try:
            with output_errors(path):
                _check_types(path, self._schema)
                paths = [leaf.path for leaf in _written_leaves(self._schema, {})]
                origins = _origins(source_schema, self._columns)
                compression = _compression(codecs if self._keeps_groups else None, origins, paths)
                options = {} if properties is None else _options(path, self._schema, origins, paths, properties)

                self._footer: list[Any] = []
                self._writer = pq.ParquetWriter(
                    self._target.file,
                    self._schema,
                    compression=compression,
                    compression_level={path: _ZSTD_LEVEL for path, codec in compression.items() if codec == "ZSTD"},
                    write_statistics=[path for path in compression if not _is_text(path, text_columns)],
                    write_page_checksum=True,  # the reader checks it, so that a damaged output is noticed
                    metadata_collector=self._footer,
                    **options,
                )
                self._writer.add_key_value_metadata(metadata)
        except BaseException:
            self._target.discard()
            raise

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """
        Write rows with their entities.

        :param reasons: why a row has no entities, if the writer has a column for it
        :raises OutputError: if the output cannot be written
        """
        if rows.table is None:
            raise ValueError("Parquet takes typed rows; open the source with typed=True")

        self._pending.add(self._columns.placed(rows, entities, reasons), rows.table)
        # Of Parquet alone: record batches of Arrow may be small, and would be poor row groups.
        ends = rows.row_group is not None and rows.last_in_group and self._keeps_groups
        if ends or self._pending.is_enough:
            self._write_group()

    def _complete(self) -> int:
        self._write_group()
        with output_errors(self._path):
            self._writer.close()

        # By the footer that was written: a check of the number of rows that the run counted.
        return int(self._footer[0].num_rows)

    def _write_group(self) -> None:
        if not self._pending:
            return

        # Without one dictionary for the whole row group the writer would stop using dictionary encoding.
        table = _without_null_values(self._pending.take())
        with output_errors(self._path):
            # By default pyarrow would begin another row group after about a million rows.
            self._writer.write_table(table, row_group_size=table.num_rows)

    def _release(self) -> None:
        # After an error, pyarrow's writer may raise a RuntimeError too: it has no footer to give.
        with suppress(OSError, RuntimeError, pa.ArrowException):
            self._writer.close()
        self._writer.is_open = False  # otherwise it tries again, with a warning, when it is garbage-collected


def _without_null_values(table: pa.Table) -> pa.Table:
    """Return a table with the same values, and no null in a dictionary, which pyarrow does not write to Parquet."""
    for i, column in enumerate(table.columns):
        kind = column.type
        if pa.types.is_dictionary(kind) and any(chunk.dictionary.null_count for chunk in column.chunks):
            encoded = column.combine_chunks().dictionary_decode().dictionary_encode()
            indices = encoded.indices.cast(kind.index_type)
            values = pa.DictionaryArray.from_arrays(indices, encoded.dictionary, ordered=kind.ordered)
            table = table.set_column(i, table.schema.field(i), values)
    return table


def _origins(source: pa.Schema, columns: NewColumns | EntityRows) -> list[int | None]:
    """
    Return for each leaf column of the output its number in the input; None for a new one.

    :param source: schema of the input
    """
    counts = [_leaves(field.type) for field in source]
    first = [*accumulate(counts, initial=0)]

    origins: list[int | None] = []
    for place, field in enumerate(columns.schema):
        origin = columns.kept.get(place)
        origins += [None] * _leaves(field.type) if origin is None else range(first[origin], first[origin + 1])

    return origins


def _compression(codecs: tuple[str, ...] | None, origins: Sequence[int | None], paths: Sequence[str]) -> dict[str, str]:
    """Return the compression of each leaf column by its path: as in the input, and Zstandard for new columns."""
    return {
        path: _NEW_CODEC if codecs is None or origin is None else _CODECS.get(codecs[origin], _NEW_CODEC)
        for path, origin in zip(paths, origins, strict=True)
    }


def _options(
    output: Location, schema: pa.Schema, origins: Sequence[int | None], paths: Sequence[str], properties: FileProperties
) -> dict[str, Any]:
    """
    Return the options of pyarrow's writer with which the output is like the input.

    :raises OutputError: if a column would lose its logical type
    """
    options = properties.writer_options(origins, paths)
    lost = properties.lost_type(origins, _written_leaves(schema, options))
    if lost is not None:
        column, kind = lost
        raise OutputError(
            f"{output_name(output)}: column {column!r} has the type {kind}, which pyarrow cannot write, and this run "
            "writes the columns again. They are copied if the output has all rows and columns of the input: without "
            "--limit, --retry-rejects, --on-error skip (null keeps the rows), --overwrite-column and --layout long. Or "
            "remove the column, or write JSON Lines",
            reason="type-would-be-lost",
            file=output_name(output),
            column=column,
            found=kind,
        )

    return options


def _is_text(leaf: str, text_columns: Sequence[str]) -> bool:
    """Whether a leaf column has texts that are tagged, in a text column or in the lists of one."""
    return any(leaf == name or (has_elements(name) and leaf.startswith(f"{column_of(name)}.")) for name in text_columns)


def _check_types(output: Location, schema: pa.Schema) -> None:
    """
    Check that Parquet has a type for each column.

    :raises OutputError: if a column has a type of Arrow alone
    """
    # Tried, because pyarrow has no list of these types. One by one, to name the column.
    for field in schema:
        try:
            pq.ParquetWriter(io.BytesIO(), pa.schema([field])).close()
        except pa.ArrowNotImplementedError as err:
            raise OutputError(
                f"{output_name(output)}: column {field.name!r} has the type {field.type}, which Parquet does not have; "
                "write Arrow, or remove the column",
                reason="no-parquet-type",
                file=output_name(output),
                column=field.name,
                found=str(field.type),
            ) from err


def _written_leaves(schema: pa.Schema, options: Mapping[str, Any]) -> list[Leaf]:
    """Return the leaf columns as the writer makes them, which the schema alone does not show."""
    empty = io.BytesIO()
    pq.ParquetWriter(empty, schema, **options).close()
    return file_leaves(pq.ParquetFile(empty))


def _missing(metadata: Mapping[bytes, bytes], schema: pa.Schema) -> dict[bytes, bytes]:
    """Return the metadata of a file that is not metadata of its schema, which pyarrow writes by itself."""
    return {key: value for key, value in metadata.items() if key not in (schema.metadata or {})}


def _leaves(kind: pa.DataType) -> int:
    """Return the number of Parquet leaf columns of one Arrow column."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type

    if pa.types.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    if pa.types.is_struct(kind):
        return sum(_leaves(field.type) for field in kind)
    if pa.types.is_nested(kind):
        return _leaves(kind.value_type)
    return 1
