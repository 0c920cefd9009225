"""Layouts of entities in an output: one nested column, one column per label (wide), or one row per entity (long)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError, OptionError
from nerd_onnx.formats.columns import column_prefixes, extended_schema, place_column, with_element
from nerd_onnx.formats.interfaces import KEYS_SHOWN, Reader, RowBatch
from nerd_onnx.formats.text_arrays import PLAIN_OF_VIEW, Int64s, column_of, has_elements, list_bounds
from nerd_onnx.storage.input_stream import input_name

LayoutName = Literal["nested", "wide", "long"]

ROW_COLUMN = "row"
TEXT_COLUMN = "text_column"  # of the long layout, if there are several text columns
_LABEL = "label"


@dataclass(frozen=True)
class Layout:
    """
    How the entities are arranged in an output.

    :param entities: name and type of the nested column, which has one list of entities per row. For a text column with
        lists, the entities get an ``element``
    :param name: ``nested`` for one column of entities, ``wide`` for one list column per label, ``long`` for one row per
        entity, whose first column is the key of the row that the entity was found in; with several text columns, the
        second one says which of them it was found in
    :param labels: the labels that have a column in the wide layout
    :param prefix: prefix of the names of these columns
    :param key: the column used as the key in the long layout; None for the number of the row in its file
    :param text_columns: the columns that are tagged; of several, each has its own new columns, see
        :func:`column_prefixes`
    """

    entities: pa.Field
    name: LayoutName = "nested"
    labels: Sequence[str] = ()
    prefix: str = ""
    key: str | None = None
    text_columns: Sequence[str] = ()

    @property
    def is_long(self) -> bool:
        """Whether the output has one row per entity."""
        return self.name == "long"

    @property
    def key_name(self) -> str:
        """Name of the key column in the long layout."""
        return self.key or ROW_COLUMN

    @property
    def facts(self) -> dict[str, str]:
        """Metadata of the schema about the layout."""
        facts: dict[str, str] = {"layout": self.name}
        if self.is_long:
            facts["key"] = self.key_name
        elif self.labels:
            facts["labels"] = ",".join(self.labels)

        return facts

    @property
    def fields(self) -> list[pa.Field]:
        """Fields of the columns that are added to those of the input; none in the long layout."""
        if self.is_long:
            return []

        new = list(zip(column_prefixes(self.text_columns), self._types, strict=True))
        if self.name == "nested":
            return [pa.field(f"{before}{self.entities.name}", kind) for before, kind in new]
        return [pa.field(f"{before}{self.prefix}{label}", _wide(kind)) for before, kind in new for label in self.labels]

    @property
    def results(self) -> pa.Field:
        """Name and type of the entities of a batch: a list, or with several text columns a struct of lists."""
        if len(self.text_columns) <= 1:
            return self.entities.with_type(self._types[0])
        return self.entities.with_type(pa.struct([*zip(self.text_columns, self._types, strict=True)]))

    @property
    def parts(self) -> list[pa.Field]:
        """Fields of one entity: start, end, label and so on; with an ``element`` where a text column has lists."""
        has_lists = any(map(has_elements, self.text_columns))
        kind = with_element(self.entities.type) if has_lists else self.entities.type
        return list(kind.value_type)

    @property
    def _types(self) -> list[pa.DataType]:
        """Types of the entities of each text column."""
        kind = self.entities.type
        return [with_element(kind) if has_elements(name) else kind for name in self.text_columns] or [kind]

    @property
    def row_fields(self) -> list[pa.Field]:
        """Fields of the long layout after the key."""
        source = [pa.field(TEXT_COLUMN, pa.string())] if len(self.text_columns) > 1 else []
        return [*source, *self.parts]

    def columns(self, entities: pa.ListArray | pa.StructArray) -> list[pa.Array]:
        """
        Return the columns of :attr:`fields` for a batch, each of *Shape:* (rows,)

        :param entities: see :attr:`results`. *Shape:* (rows,)
        """
        return [column for found in lists_of(entities) for column in self._columns_of(found)]

    def _columns_of(self, entities: pa.ListArray) -> list[pa.Array]:
        if self.name == "nested":
            return [entities]

        # Flattening drops the entities of null rows, as the bounds do, which count these rows as empty.
        flat, bounds = entities.flatten(), list_bounds(entities)
        kind, no_text = _wide(entities.type), entities.is_null()

        found = flat.field(_LABEL)
        return [_of_label(flat, pc.equal(found, label), bounds, no_text, kind) for label in self.labels]

    def check_names(self) -> None:
        """
        Check the names of the new columns against each other and against the text columns.

        :raises OptionError: if two names are the same
        """
        if self.is_long and self.key in [field.name for field in self.row_fields]:
            raise OptionError(
                f"--key {self.key}: the long layout has its own column with this name; rename the column of the input",
                reason="key-name-taken",
                option="--key",
                column=self.key or "",
            )

        names = [field.name for field in self.fields]
        taken = next((name for name in names if name in map(column_of, self.text_columns)), None)
        if taken is not None:
            raise OptionError(
                f"--column: the new column cannot have the name of the text column {taken!r}; choose another name",
                reason="column-is-text-column",
                option="--column",
                column=taken,
            )

        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OptionError(
                f"--text-column: two of the new columns would have the name {twice!r}; choose another --column",
                reason="new-column-twice",
                option="--text-column",
                column=twice,
            )

    def check_key(self, source: Reader) -> None:
        """
        Check that the input has the key column; of raw lines only the first rows are known.

        :raises InputError: if the key column is missing or occurs twice
        """
        if not self.is_long or self.key is None:
            return

        # Raw lines without rows have no names, and no line that lacks the key.
        names = list(source.column_names)
        if names.count(self.key) == 1 or not names or source.num_rows == 0:
            return

        found = f"has {names.count(self.key)} columns" if self.key in names else "has no column"
        more = f" and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
        raise InputError(
            f"{input_name(source.path)}: {found} named {self.key!r} for --key; the columns are: "
            f"{', '.join(names[:KEYS_SHOWN])}{more}",
            reason="key-ambiguous" if self.key in names else "key-missing",
            file=input_name(source.path),
            option="--key",
            column=self.key,
        )


def lists_of(entities: pa.ListArray | pa.StructArray) -> list[pa.ListArray]:
    """Return the list columns of the entities of a batch: one per text column. *Shape of each:* (rows,)"""
    # Flattening makes the members of a null row null.
    found: list[pa.ListArray] = entities.flatten() if pa.types.is_struct(entities.type) else [entities]
    return found


def count_entities(entities: pa.ListArray | pa.StructArray) -> int:
    """Return the number of entities of a batch, in all text columns."""
    return sum(pc.sum(found.value_lengths()).as_py() or 0 for found in lists_of(entities))


def unified_lists(entities: pa.ListArray | pa.StructArray, parts: Sequence[pa.Field]) -> list[pa.ListArray]:
    """
    Return the list columns of :func:`lists_of`, all with the same type.

    :param parts: fields of an entity; those that a column does not have are null in it
    """
    return [
        found if list(found.type.value_type) == [*parts] else _with_parts(found, parts) for found in lists_of(entities)
    ]


def _with_parts(entities: pa.ListArray, parts: Sequence[pa.Field]) -> pa.ListArray:
    flat, own = entities.flatten(), {field.name for field in entities.type.value_type}
    columns = [flat.field(part.name) if part.name in own else pa.nulls(len(flat), part.type) for part in parts]
    unified = pa.StructArray.from_arrays(columns, fields=list(parts))

    offsets = pa.array(list_bounds(entities).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, unified, mask=entities.is_null())


class NewColumns:
    """
    The input's columns with the entities added or replaced (nested or wide), and optionally a column of reasons.

    :param source: the schema of the rows
    :param layout: the layout, nested or wide
    :param reasons: name and type of the column that says why a row has no entities; None for no such column
    :param metadata: added to the metadata of the schema
    :param replace: whether existing columns with these names may be replaced, in their positions
    :raises OutputError: if one exists and may not be replaced
    """

    def __init__(
        self,
        source: pa.Schema,
        layout: Layout,
        reasons: pa.Field | None,
        metadata: Mapping[str, str],
        *,
        replace: bool,
    ) -> None:
        self.source = source
        self.schema = source
        self._layout = layout
        self._steps: list[tuple[pa.Schema, int]] = []

        # Each field extends the schema of the one before, so that their indices hold when they are added in this order.
        for field in [*layout.fields, *([] if reasons is None else [reasons])]:
            self._steps.append(extended_schema(self.schema, field, metadata, replace=replace))
            self.schema = self._steps[-1][0]

    @property
    def places(self) -> list[int]:
        """Indices of the new columns, in the order in which they were added."""
        return [place for _, place in self._steps]

    @property
    def kept(self) -> dict[int, int]:
        """Indices of the columns that come from the input, and their indices there."""
        return {place: place for place in range(len(self.source)) if place not in self.places}

    def placed(self, rows: RowBatch, entities: pa.ListArray, reasons: pa.Array | None) -> pa.RecordBatch:
        """Return typed rows with the new columns; reasons are ignored if there is no column for them."""
        batch = rows.table
        # Not strict: the reasons come last, and there may be no step for them.
        for column, (schema, place) in zip([*self._layout.columns(entities), reasons], self._steps, strict=False):
            batch = place_column(batch, column, schema, place)
        return batch


class EntityRows:
    """
    The columns of the long layout: the key, and those of :attr:`Layout.row_fields`.

    :param source: the schema of the input's rows
    :param layout: the long layout
    :param metadata: metadata of the schema
    """

    places: Sequence[int] = ()

    def __init__(self, source: pa.Schema, layout: Layout, metadata: Mapping[str, str]) -> None:
        self._key = layout.key
        self._text_columns = [column_of(name) for name in layout.text_columns]
        self._parts = layout.parts

        kind = pa.int64()
        self.kept: dict[int, int] = {}
        if layout.key is not None:
            place = source.get_field_index(layout.key)
            # Only an input without rows may lack the key: see Layout.check_key.
            kind = source.field(place).type if place >= 0 else pa.null()
            self.kept = {0: place} if place >= 0 else {}

        self.schema = pa.schema([pa.field(layout.key_name, kind), *layout.row_fields], metadata=dict(metadata))

    def placed(
        self, rows: RowBatch, entities: pa.ListArray | pa.StructArray, _reasons: pa.Array | None
    ) -> pa.RecordBatch:
        """
        Return one row per entity: the key of its row, and its fields. *Shape:* (entities,)

        They are in the order of the rows, and within a row in that of the text columns.
        """
        lists = unified_lists(entities, self._parts)
        # The row of each entity: first those of the first text column, then those of the next.
        row = np.concatenate([np.repeat(np.arange(len(found)), np.diff(list_bounds(found))) for found in lists])
        flats = [found.flatten() for found in lists]

        flat, names = flats[0], []
        if len(lists) > 1:
            # Stable, so that the entities of one row stay in the order of the text columns.
            order = np.argsort(row, kind="stable")
            column = np.repeat(np.arange(len(lists)), [len(found) for found in flats])[order]
            names = [pa.array(self._text_columns, pa.string()).take(pa.array(column))]
            flat = pa.concat_arrays(flats).take(pa.array(order))
            row = row[order]

        keys = _taken(self._keys(rows), pa.array(row))
        return pa.RecordBatch.from_arrays([keys, *names, *flat.flatten()], schema=self.schema)

    def _keys(self, rows: RowBatch) -> pa.Array:
        if rows.table is not None and self._key is not None:
            return rows.table.column(self._key)
        return pa.array([rows.number(i) for i in range(rows.num_rows)], pa.int64())


def typed_rows(
    layout: Layout, source: pa.Schema, reasons: pa.Field | None, metadata: Mapping[str, str], *, replace: bool
) -> NewColumns | EntityRows:
    """
    Return what arranges typed rows in a layout.

    :raises OutputError: if a new column exists and may not be replaced
    """
    if layout.is_long:
        return EntityRows(source, layout, metadata)
    return NewColumns(source, layout, reasons, metadata, replace=replace)


def _wide(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column of the wide layout from that of the nested one."""
    return pa.list_(pa.field("element", pa.struct([part for part in kind.value_type if part.name != _LABEL])))


def _taken(array: pa.Array, rows: pa.Array) -> pa.Array:
    """Return some rows of an array. *Shape:* that of ``rows``"""
    plain = PLAIN_OF_VIEW.get(array.type)
    if plain is not None:
        return array.cast(plain).take(rows).cast(array.type)

    try:
        return array.take(rows)
    except pa.ArrowNotImplementedError:
        # pyarrow's take() knows neither runs nor views inside of other types. Slices know all, and take longer.
        return pa.concat_arrays([array.slice(0, 0), *(array.slice(row, 1) for row in rows.to_pylist())])


def _of_label(
    flat: pa.StructArray, wanted: pa.BooleanArray, bounds: Int64s, no_text: pa.BooleanArray, kind: pa.DataType
) -> pa.ListArray:
    """Return the list column with the entities of one label. *Shape:* (rows,)"""
    # before[i]: how many wanted entities come before entity i. Taken at the old bounds it gives the new ones.
    before = np.concatenate([[0], np.cumsum(wanted.to_numpy(zero_copy_only=False), dtype=np.int64)])

    # The label is the name of the column here, so the entities do not repeat it.
    kept = flat.filter(wanted)
    parts = pa.StructArray.from_arrays(
        [kept.field(part.name) for part in kind.value_type], fields=list(kind.value_type)
    )
    offsets = pa.array(before[bounds].astype(np.int32))
    return pa.ListArray.from_arrays(offsets, parts, type=kind, mask=no_text)
