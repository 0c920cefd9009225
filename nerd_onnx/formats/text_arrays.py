"""Text columns of every Arrow string or binary type: find, convert to plain strings, check UTF-8, split by size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError
from nerd_onnx.long_text import LONG_BYTES, LongText, release_unused

Int64s = npt.NDArray[np.int64]

# Impala, and old Spark and Hive, write texts as binary without saying that they are strings.
_STRING_OF_BINARY = {
    pa.binary(): pa.string(),
    pa.large_binary(): pa.large_string(),
    pa.binary_view(): pa.large_string(),
}
# The types that pyarrow can do more with, for those whose values lie in several buffers.
PLAIN_OF_VIEW = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
_ELEMENTS = "[]"


def column_of(text_column: str) -> str:
    """Return the name of the column that a text column is: ``sentences`` of ``sentences[]``."""
    return text_column.removesuffix(_ELEMENTS)


def has_elements(text_column: str) -> bool:
    """Whether a text column has lists, of which each element is a text: ``sentences[]``."""
    return text_column.endswith(_ELEMENTS)


def find_text_column(name: str, schema: pa.Schema, text_column: str) -> int:
    """
    Return the index of the column to tag.

    :param name: name of the input, for messages
    :param text_column: name of the column; with ``[]`` after it for a column with lists of texts
    :raises InputError: if the column is missing, occurs twice or has another type; the message lists the columns
    """
    of_elements, text_column = has_elements(text_column), column_of(text_column)
    found: list[int] = schema.get_all_field_indices(text_column)
    if not found:
        raise InputError(
            f"{name}: no column {text_column!r}; the columns are: {', '.join(schema.names) or 'none'}. Give the column "
            "with the texts as --text-column (in Python text_column)",
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
    element = _element_type(kind)
    has_texts = element is not None and is_text(element)

    fits = has_texts if of_elements else is_text(kind)
    if not fits:
        remedy = f". To tag each element of its lists, give {text_column + _ELEMENTS!r}" if has_texts else ""
        expected = "lists of strings" if of_elements else "a string column, or a binary column with text in UTF-8"
        raise InputError(
            f"{name}: column {text_column!r} has type {kind}; expected {expected}{remedy}",
            reason="not-text",
            file=name,
            column=text_column,
            found=str(kind),
        )

    return found[0]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column type may hold text: any string or binary type, dictionaries and extensions of one, and null."""
    if isinstance(kind, pa.BaseExtensionType):
        # The bytes of an extension are not text: they are shapes, or values of a database.
        return not is_binary(kind.storage_type) and is_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):  # some writers choose this type for a column in which all values are null
        return True

    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_string or kind in _STRING_OF_BINARY)


def _element_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of the elements of lists; None for other types."""
    return kind.value_type if is_list(kind) else None


def is_list(kind: pa.DataType) -> bool:
    """Whether a column type is one of Arrow's lists, which are five: maps are none."""
    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests)


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column type holds bytes of any length, or is a dictionary or list of these."""
    kind = _element_type(kind) or kind
    return (kind.value_type if pa.types.is_dictionary(kind) else kind) in _STRING_OF_BINARY


def plain_texts(column: pa.Array) -> pa.Array:
    """
    Return a text column of any Arrow type as ``string`` or ``large_string``. *Shape:* (rows,)

    Its values need not be valid UTF-8: see :func:`first_invalid`.
    """
    # Extensions first: the storage of one may be a dictionary.
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()

    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if column.type in _STRING_OF_BINARY:
        # Without a check: the rows that are not UTF-8 are looked for one by one.
        return column.cast(_STRING_OF_BINARY[column.type], safe=False)

    # Few compute functions of pyarrow support string views.
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def texts_of(column: pa.Array, text_column: str) -> pa.Array:
    """
    Return the texts of the rows of a column. *Shape:* (rows,)

    :return: as :func:`plain_texts`; for lists of texts, a ``large_list`` of these
    """
    if not has_elements(text_column):
        return plain_texts(column)

    # list_flatten() leaves out what the lists of null rows have, and flattens lists of every kind.
    elements = plain_texts(pc.list_flatten(column))
    return pa.LargeListArray.from_arrays(pa.array(list_bounds(column), pa.int64()), elements, mask=column.is_null())


def largest_shared(column: pa.Array) -> int:
    """
    Return the bytes that a row may have at most as texts, for types whose rows may share bytes; 0 for other types.

    A file of a few bytes may have a million rows of these types with one text of megabytes.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if not len(column):
        return 0
    if pa.types.is_dictionary(kind):
        return _longest(plain_texts(column.dictionary))
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # The first four bytes of a view are the length of its text.
        lengths = np.frombuffer(column.buffers()[1], np.int32)[4 * column.offset :: 4][: len(column)]
        return int(lengths.max(initial=0))
    if not is_list(kind):
        return 0

    elements = column.values
    longest = largest_shared(elements)
    if not longest and (pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)):
        longest = _longest(plain_texts(elements))
    return longest * (pc.max(pc.list_value_length(column)).as_py() or 0)


def _longest(texts: pa.Array) -> int:
    longest: int | None = pc.max(pc.binary_length(texts)).as_py()
    return longest or 0


def each_text(texts: pa.Array) -> pa.Array:
    """Return all texts of rows, which may have one each or a list. *Shape:* (texts,)"""
    return texts.flatten() if has_lists(texts) else texts


def has_lists(texts: pa.Array) -> bool:
    """Whether rows have a list of texts each, and not one text."""
    return bool(pa.types.is_large_list(texts.type))


def text_bounds(texts: pa.Array) -> Int64s:
    """Return where each row begins and ends among all texts: row ``i`` has ``[i]:[i + 1]``. *Shape:* (rows + 1,)"""
    return list_bounds(texts) if has_lists(texts) else np.arange(len(texts) + 1)


def list_bounds(lists: pa.Array) -> Int64s:
    """
    Return where each list begins and ends among the flattened values: list ``i`` has ``[i]:[i + 1]``.

    :param lists: an array of any type of lists; null is empty
    :return: *Shape:* (rows + 1,)
    """
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def text_sizes(texts: pa.Array) -> pa.Array:
    """Return the size of the texts of each row, in bytes; of lists, one more for each element. *Shape:* (rows,)"""
    sizes = pc.binary_length(each_text(texts)).cast(pa.int64()).fill_null(0)
    if not has_lists(texts):
        return sizes

    # One more for each element: a list of a million empty texts is no small row.
    before = np.concatenate([[0], np.cumsum(sizes.to_numpy(zero_copy_only=False) + 1, dtype=np.int64)])
    return pa.array(np.diff(before[text_bounds(texts)]))


def text_objects(texts: pa.Array) -> list[str | None]:
    """Return texts as strings, and very long ones as :class:`LongText`, which has what tagging needs of a string."""
    sizes = pc.binary_length(texts).fill_null(0).to_pylist()
    if max(sizes, default=0) <= LONG_BYTES:
        values: list[str | None] = texts.to_pylist()
        return values

    release_unused()
    # Not through a scalar of Arrow, which would be a copy.
    _, offsets, content = texts.buffers()
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    # The buffers of a slice are those of the whole array, and there is one offset more than texts.
    begins = np.frombuffer(offsets, kind)[texts.offset :].tolist()
    return [
        cast("str", LongText(content.slice(begin, size))) if size > LONG_BYTES else texts[i].as_py()
        for i, (begin, size) in enumerate(zip(begins, sizes, strict=False))
    ]


def first_invalid(texts: pa.Array) -> int | None:
    """Return the index of the first row that is not valid UTF-8, found by bisection; None if all rows are valid."""
    if _is_valid(texts):
        return None

    # Rows before low are valid, and one before high is not.
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        if _is_valid(texts.slice(low, middle - low)):
            low = middle
        else:
            high = middle

    return low


def invalid_rows(texts: pa.Array) -> Iterator[int]:
    """Yield the indices of the rows that are not valid UTF-8, in order."""
    begin = 0
    while (found := first_invalid(texts.slice(begin))) is not None:
        yield begin + found
        begin += found + 1


def cuts(sizes: pa.Array, maximum: int) -> Iterator[tuple[int, int]]:
    """
    Yield ranges (start, stop) of rows whose sizes add up to at most ``maximum``; a larger row is a range of its own.

    :param sizes: size of each row; null counts as 0. *Shape:* (rows,)
    """
    ends = np.cumsum(sizes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
    start, before = 0, 0
    while start < len(ends):
        # One row at least, or a large one would never be reached.
        stop = max(start + 1, int(np.searchsorted(ends, before + maximum, side="right")))
        yield start, stop
        start, before = stop, int(ends[stop - 1])


def _is_valid(texts: pa.Array) -> bool:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False

    return True
