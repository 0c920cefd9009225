"""What passes between sources, tagger and sinks: rows in file order with their texts."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol, Self

import pyarrow as pa

KEYS_SHOWN = 20

Format = Literal["parquet", "jsonl"]


@dataclass(frozen=True)
class ReadOptions:
    """
    How an input is read, whatever its format.

    :param text_column: the column or field to tag
    :param batch_rows: most rows in a batch
    :param batch_bytes: about the most bytes of text, or of lines, in a batch; a larger row is a batch of its own
    :param limit: stop after so many rows
    :param lenient: yield rows that cannot be read as faults instead of failing on them
    :param line_bytes: longest line of JSON Lines
    """

    text_column: str
    batch_rows: int
    batch_bytes: int
    limit: int | None
    lenient: bool
    line_bytes: int


@dataclass(frozen=True)
class Fault:
    """
    A row that cannot be read, or not be tagged.

    :param row: its number in its file, from 0
    :param reason: what is wrong with it, without its place
    :param line: its physical line, from 1, for JSON Lines
    :param row_group: its Parquet row group
    :param raw: its bytes where they did not parse; then the row is in no batch
    :param index: its place in its batch, where it stands with a null text
    """

    row: int
    reason: str
    line: int | None = None
    row_group: int | None = None
    raw: bytes | None = None
    index: int | None = None

    @property
    def place(self) -> str:
        """Name the row for a message: its line (from 1) in JSON Lines, else its row (from 0)."""
        return f"{'row' if self.line is None else 'line'} {self.shown_number}"

    @property
    def shown_number(self) -> int:
        """Number of the row as messages show it: its line (from 1) in JSON Lines, else its row (from 0)."""
        return self.row if self.line is None else self.line


@dataclass(frozen=True)
class RowBatch:
    """
    Rows in file order with their texts. Either ``table`` or ``lines`` holds them whole.

    :param texts: ``string`` or ``large_string``, one a row, null where there is no text. *Shape:* (rows,)
    :param table: the typed columns as read, or None when rows are raw lines
    :param lines: raw JSON lines without their line feed (a carriage return stays), or None when rows are typed
    :param first_row: number of the first row in its file, from 0
    :param row_group: the Parquet row group that holds the rows; a batch never spans two
    :param last_in_group: whether the last row read of that row group is the last row here
    :param line_numbers: physical line of each row, from 1, for JSON Lines
    :param row_numbers: number of each row in its file, where they are not ``first_row`` and the ones after it
    :param faults: rows among or between these that could not be read
    """

    texts: pa.Array
    table: pa.RecordBatch | None
    lines: list[bytes] | None
    first_row: int
    row_group: int | None = None
    last_in_group: bool = False
    line_numbers: Sequence[int] | None = None
    row_numbers: Sequence[int] | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def num_rows(self) -> int:
        """Number of rows that are here, readable or not."""
        return len(self.texts)

    @property
    def rows_read(self) -> int:
        """Number of rows of the file that the batch accounts for: those here, and those that did not parse."""
        return self.num_rows + sum(fault.index is None for fault in self.faults)

    def number(self, row: int) -> int:
        """Give the number of a row in its file, from 0."""
        return self.first_row + row if self.row_numbers is None else self.row_numbers[row]

    def only(self, numbers: Container[int]) -> RowBatch:
        """
        Keep the rows of some numbers, and their faults.

        :param numbers: row numbers in the file
        """
        rows = [row for row in range(self.num_rows) if self.number(row) in numbers]
        place = {row: i for i, row in enumerate(rows)}
        faults = [fault for fault in self.faults if fault.row in numbers]
        return self._taken(rows, [f if f.index is None else replace(f, index=place[f.index]) for f in faults])

    def without(self, rows: Container[int]) -> RowBatch:
        """
        Leave rows out, and all faults.

        :param rows: indices in the batch
        """
        return self._taken([row for row in range(self.num_rows) if row not in rows], ())

    def refusing(self, reasons: Mapping[int, str]) -> RowBatch:
        """
        Take rows out that have no place in the output; they become faults with their bytes.

        :param reasons: why, by index in the batch
        """
        rows = [row for row in range(self.num_rows) if row not in reasons]
        place = {row: i for i, row in enumerate(rows)}
        kept = [fault for fault in self.faults if fault.index is None or fault.index in place]
        faults = [fault if fault.index is None else replace(fault, index=place[fault.index]) for fault in kept]
        faults += [
            Fault(
                self.number(row),
                reason,
                line=None if self.line_numbers is None else self.line_numbers[row],
                row_group=self.row_group,
                raw=None if self.lines is None else self.lines[row],
            )
            for row, reason in reasons.items()
        ]
        return self._taken(rows, faults)

    def _taken(self, rows: Sequence[int], faults: Sequence[Fault]) -> RowBatch:
        if len(rows) == self.num_rows:
            return replace(self, faults=tuple(faults))
        runs = _runs(rows)
        return replace(
            self,
            texts=pa.concat_arrays([self.texts.slice(*run) for run in runs]),
            table=None if self.table is None else pa.concat_batches([self.table.slice(*run) for run in runs]),
            lines=None if self.lines is None else [self.lines[row] for row in rows],
            line_numbers=None if self.line_numbers is None else [self.line_numbers[row] for row in rows],
            row_numbers=[self.number(row) for row in rows],
            faults=tuple(faults),
        )

    def place(self, row: int) -> str:
        """Name a row for a message: its line (from 1) in JSON Lines, else its row (from 0)."""
        return f"{'row' if self.line_numbers is None else 'line'} {self.shown_number(row)}"

    def shown_number(self, row: int) -> int:
        """Return the number of a row as messages show it: its line (from 1) in JSON Lines, else its row (from 0)."""
        return self.number(row) if self.line_numbers is None else self.line_numbers[row]


class Source(Protocol):
    """An open input: a context manager that yields its rows once, in file order, in bounded memory."""

    @property
    def path(self) -> str:
        """The file, or ``-``."""

    @property
    def schema(self) -> pa.Schema | None:
        """Schema of typed rows; None where rows are raw lines."""

    @property
    def column_names(self) -> Sequence[str]:
        """Names of the columns, or the keys of the first rows where these are raw lines."""

    @property
    def num_rows(self) -> int | None:
        """Number of rows to be read, or None where only reading tells."""

    @property
    def rows_read(self) -> int:
        """Number of rows yielded so far, with those that could not be read."""

    @property
    def codecs(self) -> tuple[str, ...] | None:
        """Compression of each leaf column of a Parquet file, else None."""

    def progress(self) -> float | None:
        """Share of the input consumed, 0 to 1, or None when its size is unknown."""

    def batches(self) -> Iterator[RowBatch]:
        """Yield the rows in file order, once."""

    def close(self) -> None:
        """Let go of the file and of any temporary copy."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class Written:
    """
    What an output holds that is on disk under its last name, or about to be.

    :param rows: rows in it, as the file itself says where it does
    :param size: bytes
    :param identity: what it is known by when it has its name: the file's number, an object's SHA-256; 0 for a stream
    """

    rows: int
    size: int
    identity: int | str


class Sink(Protocol):
    """An open output: a context manager; left without an exception it commits, with one it leaves nothing."""

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """Write rows with their entities, and why some have none, in the order of the calls."""

    def unfit(self, rows: RowBatch) -> Mapping[int, str]:
        """Tell which rows cannot be written, by index in the batch, and why; asked before they are tagged."""

    def finish(self) -> Written:
        """Write all that is left, safe on disk, but not yet under the output's name."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Gather rising indices into runs of neighbours: start and length of each; at least one, which may be empty."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and sum(runs[-1]) == row:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((row, 1))
    return runs or [(0, 0)]
