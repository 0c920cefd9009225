"""Layouts of entities in an output: one nested column, one column per label (wide), or one row per entity (long)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError, OptionError
from nerd_onnx.formats.base import KEYS_SHOWN, Reader, RowBatch
from nerd_onnx.formats.columns import column_prefixes, extended_schema, place_column
from nerd_onnx.formats.texts import several_text_columns
from nerd_onnx.storage.input_stream import input_name

LayoutName = Literal["nested", "wide", "long"]

ROW_COLUMN = "row"
_LABEL = "label"
_PLAIN_TYPES = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}  # for pyarrow's take()

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """
    How the entities are arranged in an output.

    :param entities: name and type of the nested column, which has one list of entities per row
    :param name: ``nested`` for one column of entities, ``wide`` for one list column per label, ``long`` for one row per
        entity, whose first column is the key of the row that the entity was found in
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
        own = {"key": self.key_name} if self.is_long else {"labels": ",".join(self.labels)} if self.labels else {}
        return {"layout": self.name, **own}

    @property
    def fields(self) -> list[pa.Field]:
        """Fields of the columns that are added to those of the input; none in the long layout."""
        if self.is_long:
            return []

        prefixes = column_prefixes(self.text_columns)
        if self.name == "nested":
            return [self.entities.with_name(f"{before}{self.entities.name}") for before in prefixes]

        kind = pa.list_(pa.field("element", pa.struct([part for part in self.parts if part.name != _LABEL])))
        return [pa.field(f"{before}{self.prefix}{label}", kind) for before in prefixes for label in self.labels]

    @property
    def results(self) -> pa.Field:
        """Name and type of the entities of a batch: a list, or with several text columns a struct of lists."""
        if len(self.text_columns) <= 1:
            return self.entities
        return self.entities.with_type(pa.struct([pa.field(name, self.entities.type) for name in self.text_columns]))

    @property
    def parts(self) -> list[pa.Field]:
        """Fields of one entity: start, end, label and so on."""
        return list(self.entities.type.value_type)

    def columns(self, entities: pa.ListArray | pa.StructArray) -> list[pa.Array]:
        """
        Return the columns of :attr:`fields` for a batch, each of *Shape:* (rows,)

        :param entities: see :attr:`results`. *Shape:* (rows,)
        """
        return [column for found in lists_of(entities) for column in self._columns_of(found)]

    def _columns_of(self, entities: pa.ListArray) -> list[pa.Array]:
        if self.name == "nested":
            return [entities]

        kinds = [field.type for field in self.fields[: len(self.labels)]]
        # Flattening drops the entities of null rows, as the bounds do, which count these rows as empty.
        flat, bounds = entities.flatten(), _bounds(entities)
        named = flat.field(_LABEL)
        return [
            _of_label(flat, pc.equal(named, label), bounds, entities.is_null(), kind)
            for label, kind in zip(self.labels, kinds, strict=True)
        ]

    def check_names(self) -> None:
        """
        Check the names of the new columns against each other and against the text columns.

        :raises OptionError: if two names are the same, or the layout takes one text column and there are several
        """
        if self.is_long and len(self.text_columns) > 1:
            raise several_text_columns(
                "--layout long",
                self.text_columns,
                "tag one after the other, or choose another layout",
                option="--layout",
            )

        if self.is_long and self.key in [part.name for part in self.parts]:
            raise OptionError(
                f"--key {self.key}: the long layout has its own column with this name; rename the column of the input",
                reason="key-name-taken",
                option="--key",
                column=self.key or "",
            )

        names = [field.name for field in self.fields]
        taken = next((name for name in names if name in self.text_columns), None)
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
        names = list(source.column_names)
        if not self.is_long or self.key is None or names.count(self.key) == 1 or not names or source.num_rows == 0:
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
        for column, (schema, place) in zip([*self._layout.columns(entities), reasons], self._steps, strict=False):
            batch = place_column(batch, column, schema, place)
        return batch


class EntityRows:
    """
    The columns of the long layout: the key, and one column per field of an entity.

    :param source: the schema of the input's rows
    :param layout: the long layout
    :param metadata: metadata of the schema
    """

    places: Sequence[int] = ()

    def __init__(self, source: pa.Schema, layout: Layout, metadata: Mapping[str, str]) -> None:
        self._key = layout.key
        place = -1 if layout.key is None else source.get_field_index(layout.key)
        kind = source.field(place).type if place >= 0 else pa.int64() if layout.key is None else pa.null()
        self.schema = pa.schema([pa.field(layout.key_name, kind), *layout.parts], metadata=dict(metadata))
        self.kept = {0: place} if place >= 0 else {}

    def placed(self, rows: RowBatch, entities: pa.ListArray, _reasons: pa.Array | None) -> pa.RecordBatch:
        """Return one row per entity: the key of its row, and its fields. *Shape:* (entities,)"""
        row = np.repeat(np.arange(len(entities)), np.diff(_bounds(entities)))
        keys = _taken(self._keys(rows), pa.array(row))
        return pa.RecordBatch.from_arrays([keys, *entities.flatten().flatten()], schema=self.schema)

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


def _taken(array: pa.Array, rows: pa.Array) -> pa.Array:
    """Return some rows of an array. *Shape:* that of ``rows``"""
    plain = _PLAIN_TYPES.get(array.type)
    return array.take(rows) if plain is None else array.cast(plain).take(rows).cast(array.type)


def _bounds(entities: pa.ListArray) -> Int64s:
    """Return the bounds of each row in the flat entities: row ``i`` has ``[i]:[i + 1]``. *Shape:* (rows + 1,)"""
    lengths = entities.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


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
