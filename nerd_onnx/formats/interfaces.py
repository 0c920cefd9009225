"""Batches of rows, and the interfaces of the readers and writers of file formats."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import pyarrow as pa

from nerd_onnx.formats.column_types import ALL_TEXT, ColumnTypes
from nerd_onnx.storage.file_record import FileRecord
from nerd_onnx.storage.location import Location

# One imports this module, the other belongs to a format, which is imported when a file in it is opened.
if TYPE_CHECKING:
    from nerd_onnx.formats.layouts import Layout
    from nerd_onnx.formats.parquet.copied_file import CopiedFile

KEYS_SHOWN = 20

Format = str  # the name of one of nerd_onnx.formats.registry.FORMATS
# Rows of a group are in memory until it is written.
GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class ReadOptions:
    """
    How an input is read, whatever its format.

    :param text_columns: the columns or fields to tag, at least one; ``NAME[]`` for each element of a list
    :param batch_rows: maximum number of rows in a batch
    :param batch_bytes: approximate maximum size of the texts (or lines) of a batch, in bytes; a larger row is a batch
        of its own
    :param limit: stop after this number of rows; None reads all
    :param lenient: report rows that cannot be read as :class:`RejectedRow` instead of raising an error
    :param line_bytes: maximum length of a line, in bytes, for formats of lines
    :param added_columns: names of the columns that the output adds to those of the input. If the input's format allows
        it, the output copies the input's bytes, and only the texts are read. None if all columns must be read
    :param mixed_as_json: typed rows have JSON text in place of values of a field whose types differ from row to row
    :param column_types: types of columns that a file has as text, such as those of CSV
    """

    text_columns: tuple[str, ...]
    batch_rows: int
    batch_bytes: int
    limit: int | None
    lenient: bool
    line_bytes: int
    added_columns: tuple[str, ...] | None = None
    mixed_as_json: bool = False
    column_types: ColumnTypes = ALL_TEXT


@dataclass(frozen=True)
class RejectedRow:
    """
    A rejected row: it cannot be read, or it cannot be tagged.

    :param row: number of the row in its file, from 0
    :param reason: what is wrong with the row; the row itself is not named
    :param line: physical line of the row, from 1; only for formats of lines
    :param row_group: Parquet row group of the row
    :param raw: bytes of the row if they could not be parsed; the row is then not in the batch
    :param index: index of the row in its batch, if the batch holds the row with a null text
    """

    row: int
    reason: str
    line: int | None = None
    row_group: int | None = None
    raw: bytes | None = None
    index: int | None = None

    @property
    def place(self) -> str:
        """Position of the row for messages: ``line 7`` (from 1) if lines are known, ``row 6`` (from 0) elsewhere."""
        return f"{'row' if self.line is None else 'line'} {self.shown_number}"

    @property
    def shown_number(self) -> int:
        """Number of the row as messages show it: its line (from 1) if lines are known, else its row (from 0)."""
        return self.row if self.line is None else self.line


@dataclass(frozen=True)
class RowBatch:
    """
    Rows in file order with their texts. Either ``table`` or ``lines`` holds the complete rows; neither does if the
    output copies the input's columns.

    :param texts: ``string`` or ``large_string``, one per row, null where there is no text; for a text column such as
        ``sentences[]``, a ``large_list`` of these. *Shape:* (rows,)
    :param table: the typed columns as read, or None
    :param lines: raw JSON lines without their line feed (a carriage return stays), or None
    :param first_row: number of the first row in its file, from 0
    :param row_group: the Parquet row group that holds the rows; a batch never spans two
    :param last_in_group: whether the batch ends with the last row that is read of its row group, or without one, of its
        record batch of Arrow; a batch never spans two of these either
    :param line_numbers: physical line of each row, from 1, for formats of lines
    :param row_numbers: number of each row in its file; None if the rows are consecutive from ``first_row``
    :param more_texts: texts of further text columns, each of *Shape:* (rows,)
    :param rejected: rejected rows, both those in the batch (with a null text) and those left out of it
    """

    texts: pa.Array
    table: pa.RecordBatch | None
    lines: list[bytes] | None
    first_row: int
    row_group: int | None = None
    last_in_group: bool = False
    line_numbers: Sequence[int] | None = None
    row_numbers: Sequence[int] | None = None
    rejected: tuple[RejectedRow, ...] = ()
    more_texts: tuple[pa.Array, ...] = ()

    @property
    def all_texts(self) -> tuple[pa.Array, ...]:
        """The texts of each text column."""
        return (self.texts, *self.more_texts)

    @property
    def num_rows(self) -> int:
        """Number of rows in the batch, including rejected rows that have a place in it."""
        return len(self.texts)

    @property
    def rows_read(self) -> int:
        """Number of rows of the file that were read for the batch, including those that could not be parsed."""
        # A rejected row without an index has no place in the batch.
        return self.num_rows + sum(row.index is None for row in self.rejected)

    def number(self, row: int) -> int:
        """Return the number of a row in its file, from 0. ``row`` is the index in the batch."""
        return self.first_row + row if self.row_numbers is None else self.row_numbers[row]

    def only(self, numbers: Container[int]) -> RowBatch:
        """
        Return the batch with only the rows that have one of these numbers, rejected rows included.

        :param numbers: row numbers in the file
        """
        rows = [row for row in range(self.num_rows) if self.number(row) in numbers]
        return self._taken(rows, _placed((row for row in self.rejected if row.row in numbers), rows))

    def without(self, rows: Container[int]) -> RowBatch:
        """
        Return the batch without some rows and without rejected rows.

        :param rows: indices in the batch
        """
        return self._taken([row for row in range(self.num_rows) if row not in rows], ())

    def refusing(self, reasons: Mapping[int, str]) -> RowBatch:
        """
        Return the batch without rows that cannot be written; each becomes a :class:`RejectedRow` with its bytes.

        :param reasons: why the row cannot be written, by index in the batch
        """
        rows = [row for row in range(self.num_rows) if row not in reasons]
        # A row that was rejected before gets the new reason: it must not be counted twice.
        rejected = _placed((row for row in self.rejected if row.index not in reasons), rows)
        rejected += [
            RejectedRow(
                self.number(row),
                reason,
                line=None if self.line_numbers is None else self.line_numbers[row],
                row_group=self.row_group,
                raw=None if self.lines is None else self.lines[row],
            )
            for row, reason in reasons.items()
        ]

        return self._taken(rows, rejected)

    def _taken(self, rows: Sequence[int], rejected: Sequence[RejectedRow]) -> RowBatch:
        if len(rows) == self.num_rows:
            return replace(self, rejected=tuple(rejected))

        # Slices of consecutive rows: pyarrow's take() does not know views and runs.
        runs = _runs(rows)
        return replace(
            self,
            texts=_joined(self.texts, runs),
            more_texts=tuple(_joined(texts, runs) for texts in self.more_texts),
            table=None if self.table is None else pa.concat_batches([self.table.slice(*run) for run in runs]),
            lines=None if self.lines is None else [self.lines[row] for row in rows],
            line_numbers=None if self.line_numbers is None else [self.line_numbers[row] for row in rows],
            row_numbers=[self.number(row) for row in rows],
            rejected=tuple(rejected),
        )

    def place(self, row: int) -> str:
        """Return the position of a row for messages: ``line 7`` (from 1) or, without lines, ``row 6`` (from 0)."""
        return f"{'row' if self.line_numbers is None else 'line'} {self.shown_number(row)}"

    def shown_number(self, row: int) -> int:
        """Return the number of a row as messages show it: its line (from 1) if it is known, else its row (from 0)."""
        return self.number(row) if self.line_numbers is None else self.line_numbers[row]


class Reader(Protocol):
    """An open input file: a context manager that yields its rows once, in file order, in bounded memory."""

    @property
    def path(self) -> Location:
        """Path or URI of the file, or ``-`` for standard input."""

    @property
    def schema(self) -> pa.Schema | None:
        """Schema of typed rows; None if the rows are raw lines."""

    @property
    def column_names(self) -> Sequence[str]:
        """Names of the columns; for raw lines, the keys of the first rows."""

    @property
    def num_rows(self) -> int | None:
        """Number of rows that will be read, or None if it is not known before the end of the file."""

    @property
    def rows_read(self) -> int:
        """Number of rows yielded so far, including those that could not be read."""

    @property
    def codecs(self) -> tuple[str, ...] | None:
        """Compression of each leaf column of a Parquet file; None for other formats."""

    @property
    def copied(self) -> CopiedFile | None:
        """The file whose bytes the output copies; None if the output is made of the rows."""

    @property
    def rewritten_because(self) -> str | None:
        """Why the columns of a Parquet file cannot be copied; empty if they can. None for other formats."""

    def progress(self) -> float | None:
        """Return the share of the input that was consumed, 0 to 1, or None if its size is unknown."""

    def batches(self) -> Iterator[RowBatch]:
        """Yield the rows in file order, once."""

    def close(self) -> None:
        """Close the file and delete any temporary copy."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class Written:
    """
    Facts about a complete output, from shortly before it gets its final name.

    :param rows: number of rows; for Parquet, as the file's footer says
    :param file: what identifies the output later; None for a stream
    """

    rows: int
    file: FileRecord | None


@dataclass(frozen=True)
class WriteOptions:
    """
    How an output is written, whatever its format.

    :param source: the input; its schema, compression and name are needed
    :param layout: how the entities are arranged
    :param entities_metadata: metadata about the entities column, for formats that can hold it
    :param replace: whether an existing column with the name of a new one may be replaced, in its position
    :param overwrite: whether an existing file may be replaced
    :param reasons_field: name and type of the column that says why a row has no entities; None for no such column
    :param scratch: folder for temporary files; None for the folder of the output
    :param group_bytes: maximum size of a Parquet row group, in bytes of Arrow data
    :param text_columns: the columns that were tagged
    """

    source: Reader
    layout: Layout
    entities_metadata: Mapping[str, str]
    replace: bool
    overwrite: bool
    reasons_field: pa.Field | None = None
    scratch: str | None = None
    group_bytes: int = GROUP_BYTES
    text_columns: tuple[str, ...] = ()


class Writer(Protocol):
    """An open output file: a context manager that commits on a normal exit and leaves no file after an exception."""

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """Write rows with their entities, and the reasons why some rows have none, in the order of the calls."""

    def unfit(self, rows: RowBatch) -> Mapping[int, str]:
        """Return why rows cannot be written, by index in the batch; called before the rows are tagged."""

    def finish(self) -> Written:
        """Write everything to disk (fsync), but do not give the output its final name yet."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _placed(rejected: Iterable[RejectedRow], rows: Sequence[int]) -> list[RejectedRow]:
    """
    Return rejected rows with their new indices in a batch.

    :param rows: the old indices of the rows that are left
    """
    place: dict[int | None, int | None] = {row: i for i, row in enumerate(rows)}
    return [replace(row, index=place.get(row.index)) for row in rejected]


def _joined(array: pa.Array, runs: Sequence[tuple[int, int]]) -> pa.Array:
    return pa.concat_arrays([array.slice(*run) for run in runs])


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending indices as ranges (start, length) of consecutive ones; one empty range if there are none."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        start, length = runs[-1] if runs else (row, 0)
        if runs and start + length == row:
            runs[-1] = (start, length + 1)
        else:
            runs.append((row, 1))

    # Nothing at all would have no type to be joined to.
    return runs or [(0, 0)]
