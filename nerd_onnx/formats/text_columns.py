"""The text columns of typed rows: their values as texts, rows that are no UTF-8, and batches of a limited size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError
from nerd_onnx.formats.interfaces import ReadOptions, RejectedRow, RowBatch
from nerd_onnx.formats.text_arrays import (
    column_of,
    cuts,
    each_text,
    find_text_column,
    has_elements,
    invalid_rows,
    is_binary,
    largest_shared,
    text_bounds,
    text_sizes,
    texts_of,
)

_SHARED_BYTES = 64 << 20  # of rows that share the bytes of their texts, until they are split


class TextColumns:
    """
    Makes batches of rows with their texts of what a reader has read.

    :param name: name of the input, for messages
    :param schema: of what is read
    :param as_json: whether the rows will be written as JSON, which cannot hold a row with invalid UTF-8
    :param has_table: whether the batches get all columns; else only the texts
    :raises InputError: if a text column is missing, occurs twice, or has another type
    :ivar schema: of the batches' tables
    """

    def __init__(
        self, name: str, schema: pa.Schema, options: ReadOptions, *, as_json: bool, has_table: bool = True
    ) -> None:
        self._name = name
        self._options = options
        self._as_json = as_json
        self._has_table = has_table
        self._places = [find_text_column(name, schema, column) for column in options.text_columns]

        # In JSON a text is a string, whatever its type in the input is; other binary columns become base64.
        self._become_strings = [i for i in self._places if as_json and is_binary(schema.field(i).type)]
        self.schema = schema
        for i in self._become_strings:
            kind = texts_of(pa.array([], schema.field(i).type), self._column_at(i)).type
            self.schema = self.schema.set(i, schema.field(i).with_type(kind))

    def batches(
        self, read: pa.RecordBatch, first_row: int, *, row_group: int | None = None, is_last: bool
    ) -> Iterator[RowBatch]:
        """
        Yield rows in batches whose texts have about ``batch_bytes``.

        :param read: the rows, with the columns of the schema
        :param first_row: number of the first one in its file
        :param row_group: the Parquet row group that holds the rows
        :param is_last: whether the last of the rows is the last of its group
        :raises InputError: if a text is not valid UTF-8 and the options are not lenient
        """
        rows = max(1, min(read.num_rows, _SHARED_BYTES // max(1, *map(largest_shared, map(read.column, self._places)))))
        for start in range(0, read.num_rows, rows):
            part, ends = read.slice(start, rows), start + rows >= read.num_rows
            yield from self._part(part, first_row + start, row_group=row_group, is_last=is_last and ends)

    def _part(
        self, read: pa.RecordBatch, first_row: int, *, row_group: int | None, is_last: bool
    ) -> Iterator[RowBatch]:
        """Yield rows in batches; all of their texts are in memory at once."""
        given = [
            texts_of(read.column(i), name) for i, name in zip(self._places, self._options.text_columns, strict=True)
        ]
        invalid = self._invalid(given, first_row)
        # In all text columns: a rejected row has entities in none of them.
        texts = [_without(column, list(invalid)) for column in given] if invalid else given

        sizes = reduce(pc.add, map(text_sizes, texts))
        for start, stop in cuts(sizes, self._options.batch_bytes):
            here = {row: place for row, place in invalid.items() if start <= row < stop}
            first, *more = (column.slice(start, stop - start) for column in texts)

            rows = RowBatch(
                texts=first,
                table=self._table(read, texts, start, stop) if self._has_table else None,
                lines=None,
                first_row=first_row + start,
                row_group=row_group,
                last_in_group=is_last and stop == len(sizes),
                rejected=tuple(
                    RejectedRow(first_row + row, self._no_utf8(*place), row_group=row_group, index=row - start)
                    for row, place in here.items()
                ),
                more_texts=tuple(more),
            )

            if here and self._as_json:
                bad = [_text_at(given[column], row, element) for row, (column, element) in here.items()]
                rows = _left_out(rows, bad)

            yield rows

    def _table(self, read: pa.RecordBatch, texts: list[pa.Array], start: int, stop: int) -> pa.RecordBatch:
        """Return some rows with all their columns."""
        rows = read.slice(start, stop - start)
        if not self._become_strings:
            return rows

        columns = rows.columns
        for i, values in zip(self._places, texts, strict=True):
            if i in self._become_strings:
                columns[i] = values.slice(start, stop - start)

        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _column_at(self, place: int) -> str:
        return self._options.text_columns[self._places.index(place)]

    def _no_utf8(self, column: int, element: int) -> str:
        """Return what is wrong with a row. ``column`` counts the text columns, ``element`` the texts of the row."""
        name = self._options.text_columns[column]
        where = f"element {element} of column" if has_elements(name) else "column"
        return f"{where} {column_of(name)!r} is not valid UTF-8; repair the text or write the row as null"

    def _invalid(self, texts: list[pa.Array], first_row: int) -> dict[int, tuple[int, int]]:
        """
        Return the rows with a text that is not valid UTF-8, in order.

        :param texts: of each text column
        :return: for each row, the first of the text columns in which it is invalid, and which of its texts there
        """
        found: dict[int, tuple[int, int]] = {}
        for column, values in enumerate(texts):
            bounds = text_bounds(values)
            for text in invalid_rows(each_text(values)):
                row = int(np.searchsorted(bounds, text, side="right")) - 1
                found.setdefault(row, (column, text - int(bounds[row])))

        # By row, because the columns were looked at one after the other.
        invalid = dict(sorted(found.items()))
        if invalid and not self._options.lenient:
            row, (column, element) = next(iter(invalid.items()))
            raise InputError(
                f"{self._name}, row {first_row + row}: {self._no_utf8(column, element)}",
                reason="not-utf8",
                file=self._name,
                row=first_row + row,
                column=column_of(self._options.text_columns[column]),
            )

        return invalid


def _text_at(texts: pa.Array, row: int, element: int) -> pa.Array:
    """Return one text of a row, as an array: a scalar of a string that is not UTF-8 could not be read."""
    return each_text(texts.slice(row, 1)).slice(element, 1)


def _left_out(rows: RowBatch, bad: list[pa.Array]) -> RowBatch:
    """
    Return the batch without its rejected rows; their texts are kept in ``rejected``.

    :param bad: the text of each of them, as an array of one
    """
    rejected = [
        replace(row, index=None, raw=text.cast(pa.large_binary())[0].as_py())
        for row, text in zip(rows.rejected, bad, strict=True)
    ]
    left = rows.without({row.index for row in rows.rejected if row.index is not None})
    return replace(left, rejected=tuple(rejected))


def _without(texts: pa.Array, rows: list[int]) -> pa.Array:
    """Return the texts with null for some rows. *Shape:* (rows,)"""
    mask = np.zeros(len(texts), np.bool_)
    mask[rows] = True
    return pc.if_else(pa.array(mask), pa.scalar(None, texts.type), texts)
