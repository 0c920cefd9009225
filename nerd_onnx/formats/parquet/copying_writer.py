"""Write Parquet by copying a file and adding columns: the other columns stay as they were, to the last byte."""

from __future__ import annotations

import io
import tempfile
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.errors import OutputError, first_line
from nerd_onnx.formats.atomic_writer import AtomicWriter
from nerd_onnx.formats.interfaces import RowBatch, WriteOptions
from nerd_onnx.formats.parquet.copied_file import CopiedFile
from nerd_onnx.formats.parquet.footer import END, MAGIC, AddedChunk
from nerd_onnx.formats.parquet.key_values import extended_metadata
from nerd_onnx.formats.parquet.new_columns import ColumnEncoder, Piece, added_chunk
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name

PIECE_ROWS = 1_000_000


class CopyingWriter(AtomicWriter):
    """
    A Parquet file with the bytes of another one, then the pages of new columns, then a footer for both.

    What is copied stays at its offset. So everything that points into the file still points to the right place, also
    what this version of nerd-onnx does not know: page indexes, bloom filters, metadata of other programs. Row groups
    stay as they are, empty ones too.

    The file is copied little by little while rows are written, so that a signal never has to wait for it. Until then
    the new pages are in a temporary file. The new values of a row group are encoded in pieces of limited size.

    :param path: a file, or ``-`` for standard output, which gets all bytes on commit
    :param copied: the input
    :param options: how the output is written
    :raises OutputError: if the output cannot be written
    """

    def __init__(self, path: Location, copied: CopiedFile, options: WriteOptions) -> None:
        self._path = path
        self._copied = copied
        self._footer = copied.footer
        self._layout = options.layout
        reasons = [] if options.reasons_field is None else [options.reasons_field]
        self._schema = pa.schema([*options.layout.fields, *reasons])
        self._metadata = {key.encode(): value.encode() for key, value in options.entities_metadata.items()}
        self._piece_bytes = options.group_bytes

        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._group: list[list[Piece]] = []  # the pieces of the unfinished row group, each for all leaf columns
        self._group_rows = self._rows = 0
        self._groups: list[list[list[Piece]]] = []
        self._position = 0  # in the output: everything is written one after the other

        self._target = open_target(path, overwrite=options.overwrite, spooled=True, scratch=options.scratch)
        try:
            with output_errors(path):
                self._encoder = ColumnEncoder(self._schema, has_index=self._footer.has_page_index)
                self._new_pages = tempfile.TemporaryFile(prefix="nerd-", dir=options.scratch)  # noqa: SIM115
                self._end_groups()  # empty ones, which no row would end
        except BaseException:
            self._target.discard()
            raise

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """
        Write the new columns of rows.

        :param reasons: why a row has no entities, if the writer has a column for it
        :raises OutputError: if the output cannot be written
        :raises UnreadableFileError: if the input cannot be read
        """
        # The reasons come last, so they are cut off where the schema has no column for them.
        columns = [*self._layout.columns(entities), reasons][: len(self._schema)]
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._pending_rows += rows.num_rows
        # Of the texts, not of the entities: resumed and new ones take different sizes, and pieces must be the same.
        self._pending_bytes += sum(texts.nbytes for texts in rows.all_texts)
        self._group_rows += rows.num_rows
        self._rows += rows.num_rows

        with output_errors(self._path):
            self._end_groups()
            if self._pending_bytes >= self._piece_bytes or self._pending_rows >= PIECE_ROWS:
                self._encode(is_whole=False)

        # In proportion to the rows: a copy of the whole file at the end would keep a signal waiting.
        self._copy_to(self._footer.pages_end * self._rows // max(1, self._footer.num_rows))

    def _complete(self) -> int:
        if len(self._groups) != len(self._footer.group_rows):
            raise ValueError("the rows written are not those of the file that is copied")

        self._copy_to(self._footer.pages_end)
        with output_errors(self._path):
            chunks = [self._add_chunks(group) for group in self._groups]
            metadata = extended_metadata(self._footer.metadata, self._copied.arrow_schema, self._schema, self._metadata)
            content = self._footer.extended(self._encoder.elements, self._encoder.orders, chunks, metadata)
            ending = content + END.pack(len(content), MAGIC)
            self._put(ending)

        return self._checked_rows(ending)

    def _end_groups(self) -> None:
        """Encode what is left of the row group if it has all its rows; empty ones may follow it."""
        expected = self._footer.group_rows
        while len(self._groups) < len(expected) and self._group_rows == expected[len(self._groups)]:
            self._encode(is_whole=not self._group)
            self._groups.append(self._group)
            self._group, self._group_rows = [], 0

    def _encode(self, *, is_whole: bool) -> None:
        self._group.append(self._encoder.pieces(self._pending, self._new_pages, is_whole=is_whole))
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0

    def _copy_to(self, end: int) -> None:
        """Copy the input up to an offset, unless that is done."""
        for piece in self._copied.pieces(self._position, end):
            with output_errors(self._path):
                self._put(piece)

    def _add_chunks(self, group: list[list[Piece]]) -> list[AddedChunk]:
        """Write the new column chunks of a row group, and return them."""
        chunks = []
        # By column and not by piece, because a column chunk must be one range of bytes.
        for pieces in zip(*group, strict=True):
            chunk, indexes = added_chunk(pieces, self._position)
            for piece in pieces:
                self._new_pages.seek(piece.place)
                self._put(self._new_pages.read(piece.size))

            self._put(indexes)
            chunks.append(chunk)

        return chunks

    def _put(self, content: bytes) -> None:
        self._target.file.write(content)
        self._position += len(content)

    def _checked_rows(self, ending: bytes) -> int:
        """
        Return the number of rows as pyarrow reads it from the footer.

        :raises OutputError: if the footer is not that of the input with the new columns
        """
        try:
            # Without the pages: of a file, pyarrow reads the first bytes and the end to find its metadata.
            found = pq.read_metadata(io.BytesIO(MAGIC + ending))
            facts = (found.num_columns, [found.row_group(i).num_rows for i in range(found.num_row_groups)])
            difference = "" if facts == self._expected_facts else "it has other columns or row groups"
        except (pa.ArrowException, OSError) as err:
            difference = first_line(err)

        if difference:
            name = output_name(self._path)
            raise OutputError(
                f"{name}: the footer that was written cannot be read back: {difference}. The output was discarded; "
                "please report this defect of nerd-onnx",
                reason="footer-differs",
                file=name,
            )

        return int(found.num_rows)

    @property
    def _expected_facts(self) -> tuple[int, list[int]]:
        return self._footer.leaves + len(self._encoder.orders), self._footer.group_rows

    def _release(self) -> None:
        with suppress(OSError):
            self._new_pages.close()
