"""Where the entities of an output stand: in one column, in a column a label, or in rows of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError, OptionError
from nerd_onnx.formats.base import KEYS_SHOWN, RowBatch, Source
from nerd_onnx.formats.columns import extended_schema, place_column
from nerd_onnx.storage.input_stream import input_name

LayoutName = Literal["nested", "wide", "long"]

ROW_COLUMN = "row"
_LABEL = "label"

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """
    The layout of an output.

    :param entities: name and type of the nested column, a list of entities a row
    :param name: ``nested`` for that column, ``wide`` for a list column a label, ``long`` for a row an entity, which
        begins with the key of the row that the entity is in
    :param labels: the labels that have a column in the wide layout
    :param prefix: stands before the names of these columns
    :param key: the column that is the key in the long layout; None for the row's number in its file
    """

    entities: pa.Field
    name: LayoutName = "nested"
    labels: Sequence[str] = ()
    prefix: str = ""
    key: str | None = None

    @property
    def is_long(self) -> bool:
        """Whether the rows of the output are entities."""
        return self.name == "long"

    @property
    def key_name(self) -> str:
        """Name of the key in the long layout."""
        return self.key or ROW_COLUMN

    @property
    def facts(self) -> dict[str, str]:
        """What the schema's metadata says of it."""
        own = {"key": self.key_name} if self.is_long else {"labels": ",".join(self.labels)} if self.labels else {}
        return {"layout": self.name, **own}

    @property
    def fields(self) -> list[pa.Field]:
        """The columns that are put beside those of the input; none in the long layout."""
        if self.is_long:
            return []
        if self.name == "nested":
            return [self.entities]
        kind = pa.list_(pa.field("element", pa.struct([part for part in self.parts if part.name != _LABEL])))
        return [pa.field(f"{self.prefix}{label}", kind) for label in self.labels]

    @property
    def parts(self) -> list[pa.Field]:
        """What an entity has: start, end, label and so on."""
        return list(self.entities.type.value_type)

    def columns(self, entities: pa.ListArray) -> list[pa.Array]:
        """
        Give the columns of :attr:`fields` for a batch.

        :param entities: the nested column. *Shape:* (rows,)
        """
        if self.name == "nested":
            return [entities]
        flat, bounds = entities.flatten(), _bounds(entities)
        named = flat.field(_LABEL)
        return [
            _of_label(flat, pc.equal(named, label), bounds, entities.is_null(), field.type)
            for label, field in zip(self.labels, self.fields, strict=True)
        ]

    def check_names(self, text_column: str) -> None:
        """
        Check that the names of the new columns fit each other and the input.

        :raises OptionError: when they do not
        """
        if self.is_long and self.key in [part.name for part in self.parts]:
            raise OptionError(
                f"--key {self.key}: the long layout has its own column with this name; rename the column of the input",
                reason="key-name-taken",
                option="--key",
                column=self.key or "",
            )
        if text_column in [field.name for field in self.fields]:
            raise OptionError(
                f"--column: the new column cannot have the name of the text column {text_column!r}; choose another "
                "name",
                reason="column-is-text-column",
                option="--column",
                column=text_column,
            )

    def check_key(self, source: Source) -> None:
        """
        Check that the input has the key, as far as the first rows of raw lines tell.

        :raises InputError: when it has not, or has it twice
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


class NewColumns:
    """
    A schema with the entities added or replaced, nested or wide, and beside them why a row has none.

    :param source: the schema of the rows
    :param layout: gives the new columns
    :param reasons: name and type of the last one; None for none
    :param metadata: joins the schema's own
    :param replace: whether columns of these names may be replaced, in their places
    :raises OutputError: when one exists and may not be replaced
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
        for field in [*layout.fields, *([] if reasons is None else [reasons])]:
            self._steps.append(extended_schema(self.schema, field, metadata, replace=replace))
            self.schema = self._steps[-1][0]

    @property
    def places(self) -> list[int]:
        """Indices of the new columns, in the order in which they were placed."""
        return [place for _, place in self._steps]

    def placed(self, rows: RowBatch, entities: pa.ListArray, reasons: pa.Array | None) -> pa.RecordBatch:
        """Put the new columns into typed rows; reasons that have no column are passed over."""
        batch = rows.table
        for column, (schema, place) in zip([*self._layout.columns(entities), reasons], self._steps, strict=False):
            batch = place_column(batch, column, schema, place)
        return batch


class EntityRows:
    """
    The schema of the long layout: the key and what an entity has.

    :param source: the schema of the rows
    :param layout: gives the key and the parts of an entity
    :param metadata: the schema's
    """

    places: Sequence[int] = ()

    def __init__(self, source: pa.Schema, layout: Layout, metadata: Mapping[str, str]) -> None:
        self._key = layout.key
        known = layout.key is not None and layout.key in source.names
        kind = source.field(layout.key).type if known else pa.int64() if layout.key is None else pa.null()
        self.schema = pa.schema([pa.field(layout.key_name, kind), *layout.parts], metadata=dict(metadata))
        self.source = self.schema

    def placed(self, rows: RowBatch, entities: pa.ListArray, _reasons: pa.Array | None) -> pa.RecordBatch:
        """Give the entities of typed rows, each behind the key of its row. *Shape:* (entities,)"""
        row = np.repeat(np.arange(len(entities)), np.diff(_bounds(entities)))
        keys = self._keys(rows).take(pa.array(row))
        return pa.RecordBatch.from_arrays([keys, *entities.flatten().flatten()], schema=self.schema)

    def _keys(self, rows: RowBatch) -> pa.Array:
        if rows.table is not None and self._key is not None:
            return rows.table.column(self._key)
        return pa.array([rows.number(i) for i in range(rows.num_rows)], pa.int64())


def typed_rows(
    layout: Layout, source: pa.Schema, reasons: pa.Field | None, metadata: Mapping[str, str], *, replace: bool
) -> NewColumns | EntityRows:
    """
    Prepare to lay out typed rows.

    :raises OutputError: when a new column exists and may not be replaced
    """
    if layout.is_long:
        return EntityRows(source, layout, metadata)
    return NewColumns(source, layout, reasons, metadata, replace=replace)


def _bounds(entities: pa.ListArray) -> Int64s:
    """Tell where each row's entities begin among all, and where the last one's end. *Shape:* (rows + 1,)"""
    lengths = entities.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _of_label(
    flat: pa.StructArray, wanted: pa.BooleanArray, bounds: Int64s, no_text: pa.BooleanArray, kind: pa.DataType
) -> pa.ListArray:
    """Keep the entities of one label, in the rows in which they are."""
    before = np.concatenate([[0], np.cumsum(wanted.to_numpy(zero_copy_only=False), dtype=np.int64)])
    kept = flat.filter(wanted)
    parts = pa.StructArray.from_arrays(
        [kept.field(part.name) for part in kind.value_type], fields=list(kind.value_type)
    )
    offsets = pa.array(before[bounds].astype(np.int32))
    return pa.ListArray.from_arrays(offsets, parts, type=kind, mask=no_text)
