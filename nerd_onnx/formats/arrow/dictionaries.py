"""Dictionaries of an Arrow file: a file has one for each column, and its batches may only add values to it."""

from __future__ import annotations

import pyarrow as pa


class OneDictionary:
    """
    Gives each record batch dictionaries that begin with those of the batch before.

    :param schema: of the batches
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._places = [i for i, field in enumerate(schema) if has_dictionary(field.type)]
        self._before: dict[int, pa.Array] = {}  # an array without rows for each column, which has the dictionaries

    def unified(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """
        Return the batch with the same values.

        :raises pa.ArrowInvalid: if a dictionary gets more values than its type of indices can count
        """
        columns = batch.columns
        for i in self._places:
            column = columns[i]
            before = self._before.get(i)
            if before is not None and not _has_dictionaries_of(column, before):
                column = _unified(before, column)

            self._before[i] = column.slice(0, 0)
            columns[i] = column

        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def has_dictionary(kind: pa.DataType) -> bool:
    """Whether a type is a dictionary, or has one in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return has_dictionary(kind.storage_type)
    return pa.types.is_dictionary(kind) or any(has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def _has_dictionaries_of(column: pa.Array, before: pa.Array) -> bool:
    """Whether a column has the same dictionary as another one. A dictionary deeper in it is not looked at."""
    is_plain = isinstance(column, pa.DictionaryArray)
    return is_plain and bool(column.dictionary.equals(before.dictionary))


def _unified(before: pa.Array, column: pa.Array) -> pa.Array:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _unified(before.storage, column.storage))

    # The dictionary before comes first, so its values keep their indices: a file may only add to them.
    table = pa.Table.from_arrays([pa.chunked_array([before, column], kind)], ["column"])
    return table.unify_dictionaries().column(0).chunk(1)
