"""Text columns of every Arrow kind: found, made plain, checked, cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError


def find_text_column(name: str, schema: pa.Schema, text_column: str) -> int:
    """
    Find the column to tag.

    :param name: the input, for messages
    :return: its index
    :raises InputError: when it is missing, given twice or of another type; it lists the columns
    """
    found: list[int] = schema.get_all_field_indices(text_column)
    if not found:
        raise InputError(
            f"{name}: no column {text_column!r}; the columns are: {', '.join(schema.names) or 'none'}",
            reason="column-missing",
            file=name,
            column=text_column,
            found=", ".join(schema.names),
        )
    if len(found) > 1:
        raise InputError(
            f"{name}: {len(found)} columns are named {text_column!r}; rename all but one",
            reason="column-ambiguous",
            file=name,
            column=text_column,
            found=len(found),
        )
    kind = schema.field(found[0]).type
    if not is_text(kind):
        raise InputError(
            f"{name}: column {text_column!r} has type {kind}; expected a string column",
            reason="not-text",
            file=name,
            column=text_column,
            found=str(kind),
        )
    return found[0]


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column type holds text: any string type, dictionaries and extensions of them, and null."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):  # what writers make of a column without any value
        return True
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def plain_texts(column: pa.Array) -> pa.Array:
    """Turn a text column of any kind into ``string`` or ``large_string``."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def first_invalid(texts: pa.Array) -> int | None:
    """Find the first row that is not valid UTF-8, by halving; None where all are."""
    if _is_valid(texts):
        return None
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        if _is_valid(texts.slice(low, middle - low)):
            low = middle
        else:
            high = middle
    return low


def byte_cuts(texts: pa.Array, batch_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut texts into runs of at most ``batch_bytes`` bytes; a text over that is a run of its own."""
    return cuts(pc.binary_length(texts), batch_bytes)


def cuts(sizes: pa.Array, most: int) -> Iterator[tuple[int, int]]:
    """
    Cut rows into runs that take at most ``most`` together; a row over that is a run of its own.

    :param sizes: what each row takes, null for nothing. *Shape:* (rows,)
    """
    ends = np.cumsum(sizes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
    start, before = 0, 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield start, stop
        start, before = stop, int(ends[stop - 1])


def _is_valid(texts: pa.Array) -> bool:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
