"""Rows that wait until there are enough of them for a row group of Parquet, or a record batch of Arrow."""

from __future__ import annotations

import pyarrow as pa


class PendingRows:
    """
    Collects rows of an output.

    :param schema: of the rows
    :param most_bytes: size of the input's rows at which there are enough, in bytes of Arrow data
    :param most_rows: number of rows at which there are enough
    """

    def __init__(self, schema: pa.Schema, most_bytes: int, most_rows: int) -> None:
        self._schema = schema
        self._most_bytes = most_bytes
        self._most_rows = most_rows
        self._clear()

    def _clear(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def is_enough(self) -> bool:
        """Whether no more rows should be added."""
        return self._bytes >= self._most_bytes or self._rows >= self._most_rows

    def add(self, batch: pa.RecordBatch, source: pa.RecordBatch) -> None:
        """
        Add rows.

        :param batch: with their entities
        :param source: the rows of the input
        """
        self._batches.append(batch)
        self._rows += batch.num_rows
        # Without the entities: resumed and new ones take different sizes in memory, and groups must be the same.
        self._bytes += source.nbytes

    def take(self) -> pa.Table:
        """Return all rows, with one dictionary for each column that has one, and begin anew."""
        table = pa.Table.from_batches(self._batches, self._schema).unify_dictionaries()
        self._clear()
        return table
