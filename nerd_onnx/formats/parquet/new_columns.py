"""New columns as column chunks: pyarrow writes a Parquet file of them, and its chunks are taken out of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.formats.parquet.footer import (
    END,
    AddedChunk,
    ChunkField,
    FileField,
    GroupField,
    MetaField,
    pages_begin,
)
from nerd_onnx.formats.parquet.thrift import BINARY, I32, I64, TRUE, Struct

NEW_CODEC = "ZSTD"
ZSTD_LEVEL = 6  # Parquet does not record the level; with pyarrow's default, 1, files are a quarter larger
# Offset and length of the indexes, in the order in which Piece has them.
_INDEXES = (
    (ChunkField.COLUMN_INDEX, ChunkField.COLUMN_INDEX_BYTES),
    (ChunkField.OFFSET_INDEX, ChunkField.OFFSET_INDEX_BYTES),
)
_UNORDERED = 0  # the pages of a chunk, by their minimum and maximum


class _IndexField:
    """Fields of ``ColumnIndex`` (its lists, with the types of their items), ``OffsetIndex`` and ``PageLocation``."""

    LISTS, ORDER = {1: TRUE, 2: BINARY, 3: BINARY, 5: I64, 6: I64, 7: I64}, 4
    LOCATIONS = 1
    OFFSET, FIRST_ROW = 1, 3


@dataclass(frozen=True)
class Piece:
    """
    Pages of one leaf column, for some or all rows of a row group.

    :param meta: the ``ColumnMetaData`` of a chunk that has only these pages
    :param rows: number of rows
    :param place: where the pages are in the file that collects them
    :param column_index: the ``ColumnIndex`` of the pages; None without one
    :param offset_index: the ``OffsetIndex`` of the pages; None without one
    """

    meta: Struct
    rows: int
    place: int
    column_index: Struct | None = None
    offset_index: Struct | None = None

    @property
    def size(self) -> int:
        """Size of the pages in bytes."""
        return self.meta.integer(MetaField.COMPRESSED)


class ColumnEncoder:
    """
    Encodes new columns.

    :param schema: the new columns
    :param has_index: whether the chunks get a page index
    :ivar elements: the encoded ``SchemaElement`` of each column and of what is nested in it
    :ivar orders: the encoded ``ColumnOrder`` of each leaf column
    """

    def __init__(self, schema: pa.Schema, *, has_index: bool) -> None:
        self._schema = schema
        self._has_index = has_index
        # pyarrow shows how it encodes a schema only in a file, so one without rows is written.
        _, footer = self._encoded(None, use_dictionary=False)
        self.elements = footer.items(FileField.SCHEMA)[1:]  # the first one is the root
        self.orders = footer.items(FileField.ORDERS)

    def pieces(self, batches: Sequence[pa.RecordBatch], file: IO[bytes], *, is_whole: bool) -> list[Piece]:
        """
        Encode rows, append the pages to a file, and return one piece per leaf column.

        :param is_whole: whether these are all rows of a row group. Only then there is a dictionary, because a chunk
            cannot have two
        """
        table = pa.Table.from_batches(batches, self._schema)
        content, footer = self._encoded(table, use_dictionary=is_whole and table.num_rows > 0)
        (group,) = footer.structs(FileField.GROUPS)

        found = []
        for chunk in group.structs(GroupField.CHUNKS):
            meta = chunk.struct(ChunkField.META) or Struct()
            indexes = [_part(content, chunk.integer(offset), chunk.integer(size)) for offset, size in _INDEXES]
            piece = Piece(meta, table.num_rows, file.tell(), *indexes)

            begin = pages_begin(meta)
            file.write(content[begin : begin + piece.size])
            found.append(piece)

        return found

    def _encoded(self, table: pa.Table | None, *, use_dictionary: bool) -> tuple[memoryview, Struct]:
        """Return a Parquet file with a table as its row group (None: without a row group), and its footer."""
        file = io.BytesIO()
        with pq.ParquetWriter(
            file,
            self._schema,
            compression=NEW_CODEC,
            compression_level=ZSTD_LEVEL,
            use_dictionary=use_dictionary,
            write_page_index=self._has_index,
            store_schema=False,  # the output's Arrow schema has all columns: key_values.py makes it
        ) as writer:
            if table is not None:
                # By default pyarrow would begin another row group after about a million rows.
                writer.write_table(table, row_group_size=max(1, table.num_rows))

        content = file.getbuffer()
        size, _ = END.unpack(content[-END.size :])
        return content, Struct(bytes(content[-END.size - size : -END.size]))


def _part(content: memoryview, at: int, size: int) -> Struct | None:
    """Return the struct at an offset of a file; None without an offset."""
    return Struct(bytes(content[at : at + size])) if at else None


def added_chunk(pieces: Sequence[Piece], at: int) -> tuple[AddedChunk, bytes]:
    """
    Return the column chunk that has the pages of some pieces, one after the other, and the bytes of its page index.

    :param at: offset of the first page in the output; the page index follows the last page
    """
    meta = _joined_meta(pieces, at)
    size = meta.integer(MetaField.COMPRESSED)
    # The format has given up the field of the offset, which is required still, and asks for 0.
    chunk = Struct().set_integer(ChunkField.OFFSET, 0).set_struct(ChunkField.META, meta)

    indexes = b""
    if all(piece.column_index and piece.offset_index for piece in pieces):
        parts = bytes(_joined_column_index(pieces)), bytes(_joined_offset_index(pieces, at))
        for content, (offset, length) in zip(parts, _INDEXES, strict=True):
            chunk.set_integer(offset, at + size + len(indexes)).set_integer(length, len(content), I32)
            indexes += content

    return AddedChunk(bytes(chunk), meta.integer(MetaField.SIZE), size), indexes


def _joined_meta(pieces: Sequence[Piece], at: int) -> Struct:
    """Return the ``ColumnMetaData`` of pieces that stand one after the other from ``at`` on."""
    meta = Struct(bytes(pieces[0].meta))
    # Moved from pyarrow's file to the output. A dictionary is there only if the piece is the only one.
    begin, data = pages_begin(meta), meta.integer(MetaField.DATA)
    if meta.integer(MetaField.DICTIONARY):
        meta.set_integer(MetaField.DICTIONARY, at)
    meta.set_integer(MetaField.DATA, at + data - begin if data else at)

    if len(pieces) > 1:
        encodings = dict.fromkeys(item for piece in pieces for item in piece.meta.items(MetaField.ENCODINGS, I32))
        meta.set_items(MetaField.ENCODINGS, encodings, I32)
        for number in (MetaField.VALUES, MetaField.SIZE, MetaField.COMPRESSED):
            meta.set_integer(number, sum(piece.meta.integer(number) for piece in pieces))
        # These are optional and hold for one piece only. With wrong minimum and maximum a reader would skip rows.
        meta.remove(MetaField.STATISTICS, MetaField.ENCODING_STATS, MetaField.SIZE_STATISTICS)

    return meta


def _joined_column_index(pieces: Sequence[Piece]) -> Struct:
    """Return the index of pages by their values."""
    indexes = [piece.column_index for piece in pieces if piece.column_index]
    joined = Struct(bytes(indexes[0]))
    if len(indexes) > 1:
        for number, kind in _IndexField.LISTS.items():
            if all(number in index for index in indexes):
                joined.extend(number, [item for index in indexes[1:] for item in index.items(number, kind)])
            else:
                # The list needs an entry for each page, and the pages of one piece have none.
                joined.remove(number)

        # Pieces may be in order each, and not one after the other.
        joined.set_integer(_IndexField.ORDER, _UNORDERED, I32)

    return joined


def _joined_offset_index(pieces: Sequence[Piece], at: int) -> Struct:
    """Return the index of pages by their rows. The pages of the first piece begin at ``at``."""
    joined, locations, rows = Struct(), [], 0
    for piece in pieces:
        index = piece.offset_index or Struct()
        shift = at - pages_begin(piece.meta)
        for page in index.structs(_IndexField.LOCATIONS):
            page.set_integer(_IndexField.OFFSET, page.integer(_IndexField.OFFSET) + shift)
            page.set_integer(_IndexField.FIRST_ROW, page.integer(_IndexField.FIRST_ROW) + rows)
            locations.append(bytes(page))

        at, rows = at + piece.size, rows + piece.rows

    # The other field of an OffsetIndex, sizes of strings, is optional.
    return joined.set_items(_IndexField.LOCATIONS, locations)
