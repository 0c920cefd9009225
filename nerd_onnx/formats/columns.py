"""The entities column: its Arrow type, offset units, position in the schema, and metadata about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.text_arrays import (
    column_of,
    find_text_column,
    first_invalid,
    list_bounds,
    plain_texts,
    text_bounds,
)

OffsetUnit = Literal["codepoint", "utf8", "utf16"]

OTHER_NAME = "choose another name (--column), or replace it (--overwrite-column)"
OTHER_ARGUMENT = "choose another name, Tagger.load(column=...), or replace it with replace_column=True"
METADATA_PREFIX = "nerd_onnx"
_ELEMENT = "element"  # of a list of texts, from 0
_INT32_MAX = 2**31 - 1
_WINDOW_CHARACTERS = 1 << 20
_SLICES_AT_ONCE = 1 << 12
# From each of these code points on, a character takes one more byte (UTF-8) or one more unit (UTF-16).
_WIDER_FROM: dict[OffsetUnit, tuple[int, ...]] = {"codepoint": (), "utf8": (0x80, 0x800, 0x10000), "utf16": (0x10000,)}

Ints = npt.NDArray[np.integer[Any]]
Int64s = npt.NDArray[np.int64]


def entities_type(with_fine: bool) -> pa.DataType:  # noqa: FBT001 - the name explains the flag
    """
    Return the Arrow type of the entities column: one list of structs per row.

    :param with_fine: whether the structs have a ``fine_label``, as for models with two levels of labels
    """
    places = [("start", pa.int32()), ("end", pa.int32())]
    labels = [(name, pa.string()) for name in (("label", "fine_label") if with_fine else ("label",))]
    entity = pa.struct([*places, *labels, ("score", pa.float32()), ("text", pa.string())])
    return pa.list_(pa.field("element", entity))  # the name of list items in Parquet


def with_element(kind: pa.DataType) -> pa.DataType:
    """Return the type of the entities column of a text column with lists: each entity says in which element it is."""
    entity = pa.struct([(_ELEMENT, pa.int32()), *kind.value_type])
    return pa.list_(pa.field(kind.value_field.name, entity))


def joined_elements(found: pa.ListArray, texts: pa.LargeListArray) -> pa.ListArray:
    """
    Return the entities of rows whose text is a list: those of its elements, in their order. Null for a null list.

    :param found: the entities of each element of all lists. *Shape:* (elements,)
    :param texts: the lists. *Shape:* (rows,)
    :return: its type is that of :func:`with_element`. *Shape:* (rows,)
    """
    bounds, before = text_bounds(texts), list_bounds(found)
    # The number among all elements, less that of the first one of its row.
    element = np.arange(len(found)) - np.repeat(bounds[:-1], np.diff(bounds))

    kind = with_element(found.type)
    parts = [pa.array(np.repeat(element, np.diff(before)).astype(np.int32)), *found.flatten().flatten()]
    entities = pa.StructArray.from_arrays(parts, fields=list(kind.value_type))
    offsets = pa.array(before[bounds].astype(np.int32))

    return pa.ListArray.from_arrays(offsets, entities, type=kind, mask=texts.is_null())


def schema_metadata(column: str, *, offset_unit: OffsetUnit, **facts: str) -> dict[str, str]:
    """
    Return the schema metadata about an entities column, with keys ``nerd_onnx.<column>.<fact>``.

    :param column: name of the column
    :param offset_unit: unit of its ``start`` and ``end``
    :param facts: further metadata, such as the SHA-256 of the model
    """
    prefix = f"{METADATA_PREFIX}.{column}"
    return {f"{prefix}.{key}": value for key, value in {"offset_unit": offset_unit, **facts}.items()}


def entities_array(
    texts: Sequence[str | None],
    *,
    row: Ints,
    start: Ints,
    end: Ints,
    label: Ints,
    labels: Sequence[str],
    score: npt.NDArray[np.floating[Any]],
    fine: Ints | None = None,
    fine_labels: Sequence[str] = (),
    unit: OffsetUnit = "codepoint",
) -> pa.ListArray:
    """
    Return the entities as a list column. A null text has null, a text without entities an empty list.

    :param texts: the complete texts. *Shape:* (texts,)
    :param row: index of the text of each entity, in ascending order. *Shape:* (entities,), as ``start`` to ``fine``
    :param start: first character, in code points
    :param end: one past the last character, in code points
    :param label: index into ``labels``
    :param score: probability of the entity, 0 to 1
    :param fine: index into ``fine_labels``, negative for no fine label; None if the model has one level of labels
    :param unit: unit of the offsets in the column; its ``text`` is the same in any unit
    :return: *Shape:* (texts,)
    :raises InputError: if offsets or the size of the texts do not fit in 32 bits
    :raises ValueError: if entities are out of order or belong to a null text
    """
    no_text = np.fromiter((text is None for text in texts), np.bool_, len(texts))
    _check_rows(row, no_text)

    # Rows are in ascending order, so two neighbouring bounds enclose the entities of one text.
    bounds = np.searchsorted(row, np.arange(len(texts) + 1))
    slices = _slices(texts, row, start, end)  # first, because it takes the most memory while it is made
    starts, ends = _in_unit(texts, bounds, start, end, unit)

    # In the order of the fields of entities_type().
    arrays = [_int32(starts), _int32(ends), _names(labels, label)]
    if fine is not None:
        arrays.append(_names(fine_labels, fine))
    arrays += [pa.array(score.astype(np.float32, copy=False)), slices]

    kind = entities_type(with_fine=fine is not None)
    entities = pa.StructArray.from_arrays(arrays, fields=list(kind.value_type))

    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), entities, type=kind, mask=pa.array(no_text))


def column_prefixes(text_columns: Sequence[str]) -> list[str]:
    """Return what the names of the new columns of each text column begin with: its name, if there are several."""
    return [f"{column_of(name)}_" for name in text_columns] if len(text_columns) > 1 else [""]


def text_values(batch: pa.RecordBatch, text_column: str) -> list[str | None]:
    """
    Return the texts of a batch. *Shape:* (rows,)

    :param text_column: a column of any string type
    :raises InputError: if the column is missing, holds no strings, or is not valid UTF-8
    """
    column = plain_texts(batch.column(find_text_column("the batch", batch.schema, text_column)))
    invalid = first_invalid(column)
    if invalid is not None:
        raise InputError(
            f"the batch, row {invalid}: column {text_column!r} is not valid UTF-8",
            reason="not-utf8",
            row=invalid,
            column=text_column,
        )

    texts: list[str | None] = column.to_pylist()
    return texts


def add_column(
    batch: pa.RecordBatch, field: pa.Field, column: pa.Array, metadata: Mapping[str, str], *, replace: bool
) -> pa.RecordBatch:
    """
    Return the batch with a column added at the end, or in the position of an existing column with the same name.

    :param metadata: added to the schema's metadata
    :param replace: whether an existing column with the same name may be replaced
    :raises OutputError: if such a column exists and may not be replaced
    """
    schema, place = extended_schema(batch.schema, field, metadata, replace=replace, remedy=OTHER_ARGUMENT)
    return place_column(batch, column, schema, place)


def extended_schema(
    schema: pa.Schema, field: pa.Field, metadata: Mapping[str, str], *, replace: bool, remedy: str = OTHER_NAME
) -> tuple[pa.Schema, int]:
    """
    Return a schema with a field added or replaced and more metadata, and the index of the field.

    :param remedy: what the user can do if the column exists, for the message
    :raises OutputError: if the column exists and may not be replaced, or exists twice
    """
    joined = {**(schema.metadata or {}), **{key.encode(): value.encode() for key, value in metadata.items()}}
    found = schema.get_all_field_indices(field.name)
    if not found:
        return schema.append(field).with_metadata(joined), len(schema)

    if not replace:
        raise OutputError(column_exists("the input", field.name, remedy), reason="column-exists", column=field.name)

    if len(found) > 1:
        raise OutputError(
            f"{len(found)} columns are named {field.name!r}; rename all but one, or choose another name for the new "
            "column",
            reason="column-ambiguous",
            column=field.name,
            found=len(found),
        )

    return schema.set(found[0], field).with_metadata(joined), found[0]


def place_column(batch: pa.RecordBatch, column: pa.Array, schema: pa.Schema, place: int) -> pa.RecordBatch:
    """
    Return the batch with a column added at the end, or put in the position of an existing column.

    :param schema: the schema with the field of the column, see :func:`extended_schema`
    :param place: index of the column; the number of columns to add it at the end
    """
    columns = list(batch.columns)
    if place == len(columns):
        columns.append(column)
    else:
        columns[place] = column

    return pa.RecordBatch.from_arrays(columns, schema=schema)


def column_exists(where: str, name: str, remedy: str = OTHER_NAME, what: str = "column") -> str:
    """Return the message that the name of the new column is taken, with what the user can do."""
    return f"{where} {name_taken(name, what)}; {remedy}"


def name_taken(name: str, what: str = "column") -> str:
    """
    Return the part of a message that says that the name of the new column is taken.

    :param what: ``column``, or ``field`` for raw lines
    """
    return f"already has a {what} {name!r}"


def _check_rows(row: Ints, no_text: npt.NDArray[np.bool_]) -> None:
    if np.any(np.diff(row) < 0):
        raise ValueError("entities must be in the order of their rows")
    if no_text[row].any():
        raise ValueError("a row without text has entities")


def _in_unit(texts: Sequence[str | None], bounds: Ints, start: Ints, end: Ints, unit: OffsetUnit) -> tuple[Ints, Ints]:
    """
    Convert offsets in code points to another unit, in time linear in the length of the texts with entities.

    :param bounds: entities of text ``i`` are ``bounds[i]:bounds[i + 1]``. *Shape:* (texts + 1,)
    """
    if unit == "codepoint":
        return start, end

    starts, ends = start.astype(np.int64), end.astype(np.int64)
    # Texts without entities are left out: most of the time is the walk over the characters.
    for i in np.flatnonzero(np.diff(bounds)).tolist():
        text = texts[i] or ""
        # In ASCII, all units count the same.
        if not text.isascii():
            here = slice(bounds[i], bounds[i + 1])
            starts[here] = _unit_offsets(text, unit, starts[here])
            ends[here] = _unit_offsets(text, unit, ends[here])

    return starts, ends


def _unit_offsets(text: str, unit: OffsetUnit, places: Int64s) -> Int64s:
    """
    Return offsets of a text in bytes (UTF-8) or UTF-16 units.

    :param places: offsets in code points, in ascending order. *Shape:* (places,), as of the result
    """
    offsets = np.empty_like(places)
    before = 0  # units in all windows before the current one

    # One window at a time: the arrays below take 12 bytes for each character.
    for begin in range(0, len(text) + 1, _WINDOW_CHARACTERS):
        points = np.frombuffer(text[begin : begin + _WINDOW_CHARACTERS].encode("utf-32-le"), np.dtype("<u4"))

        # The running sum of the widths is the offset of each character. Its first element continues from the window
        # before, so that window[i] is the offset of the character begin + i in the whole text.
        widths = np.ones(len(points) + 1, np.int64)
        for first in _WIDER_FROM[unit]:
            widths[1:] += points >= first
        widths[0] = before
        window = np.cumsum(widths)

        here = slice(*np.searchsorted(places, (begin, begin + _WINDOW_CHARACTERS)))
        offsets[here] = window[places[here] - begin]
        before = window[-1]

    return offsets


def _int32(offsets: Ints) -> pa.Array:
    if offsets.size and offsets.max() > _INT32_MAX:
        raise InputError(
            f"an entity ends at offset {offsets.max()}, and a 32-bit offset cannot be larger than {_INT32_MAX}; split "
            "the text",
            reason="text-too-long",
            found=int(offsets.max()),
            maximum=_INT32_MAX,
        )

    return pa.array(offsets.astype(np.int32, copy=False))


def _names(names: Sequence[str], index: Ints) -> pa.Array:
    """Return the name for each index; a negative index gives null. *Shape:* (entities,)"""
    return pa.array(names, pa.string()).take(pa.array(index.astype(np.int32), mask=index < 0))


def _slices(texts: Sequence[str | None], row: Ints, start: Ints, end: Ints) -> pa.Array:
    """Return the text of each entity. *Shape:* (entities,)"""
    # A few thousand at a time: Python strings take several times the memory of the Arrow array.
    pieces = [pa.array([], pa.string())]
    for first in range(0, len(row), _SLICES_AT_ONCE):
        here = slice(first, first + _SLICES_AT_ONCE)
        places = zip(row[here].tolist(), start[here].tolist(), end[here].tolist(), strict=True)
        pieces.append(pa.array([(texts[i] or "")[begin:stop] for i, begin, stop in places], pa.string()))

    try:
        return pa.concat_arrays(pieces)
    except pa.ArrowInvalid as err:
        raise InputError(
            "the entities of one batch have more than 2 GiB of text; use smaller batches", reason="batch-too-large"
        ) from err


class CodePointOffsets:
    """
    Converts offsets of one text to code points. An offset outside of the text stays outside.

    :param text: the text; encoded once, if its unit needs that
    """

    def __init__(self, text: str, unit: OffsetUnit) -> None:
        self._codec, self._width = {"utf8": ("utf-8", 1), "utf16": ("utf-16-le", 2)}.get(unit, ("", 1))
        self._length = len(text)
        plain = not self._codec or text.isascii()
        self._encoded = None if plain else text.encode(self._codec, "surrogatepass")

    def of(self, offset: int) -> int:
        """Return the number of code points before an offset; negative or beyond the text if the offset is outside."""
        if self._encoded is None or offset < 0:
            return offset

        at = offset * self._width
        if at > len(self._encoded):
            return self._length + 1

        # A wrong offset may end inside of a character, and must not raise an error of the codec.
        return len(self._encoded[:at].decode(self._codec, "surrogatepass" if self._width > 1 else "ignore"))
