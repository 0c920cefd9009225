"""What passes between sources, tagger and sinks: rows in file order with their texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

import pyarrow as pa

Format = Literal["parquet", "jsonl"]

STANDARD_STREAM = "-"
# Bytes of a file name that are not UTF-8: Python keeps each as a lone surrogate, which no terminal takes.
_UNDECODED = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}


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
    """

    texts: pa.Array
    table: pa.RecordBatch | None
    lines: list[bytes] | None
    first_row: int
    row_group: int | None = None
    last_in_group: bool = False
    line_numbers: Sequence[int] | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.texts)

    def place(self, row: int) -> str:
        """Name a row for a message: its line (from 1) in JSON Lines, else its row (from 0)."""
        if self.line_numbers is not None:
            return f"line {self.line_numbers[row]}"
        return f"row {self.first_row + row}"


class Closing(ABC):
    """A context manager that closes itself, however it is left."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


class Sink(Protocol):
    """An open output: a context manager; left without an exception it commits, with one it leaves nothing."""

    def write(self, rows: RowBatch, entities: pa.Array) -> None:
        """Write rows with their entities, in the order of the calls."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def shown(path: str, stream: str) -> str:
    """Name a path for a message, in text that can be printed; ``stream`` is what ``-`` stands for."""
    if path == STANDARD_STREAM:
        return stream
    return path.translate(_UNDECODED).encode(errors="backslashreplace").decode()
