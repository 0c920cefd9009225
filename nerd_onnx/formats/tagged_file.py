"""Read a file that nerd-tag wrote: texts and entities, with offsets in code points whatever unit the file has."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import pyarrow as pa

from nerd_onnx.errors import Field, InputError, OptionError
from nerd_onnx.formats.columns import METADATA_PREFIX, CodePointOffsets, OffsetUnit
from nerd_onnx.formats.interfaces import RowBatch
from nerd_onnx.formats.jsonl.lines import parse_object, replace_surrogates
from nerd_onnx.formats.open_input import Format, Reader, detect_format, open_reader
from nerd_onnx.formats.registry import format_named
from nerd_onnx.formats.text_arrays import is_text
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location, Name

_BATCH_ROWS = 1024
_BATCH_BYTES = 8 << 20
_FIELDS = ("start", "end", "label")
_OFFSET_DIGITS = 18


def _number(digits: str) -> int | float:
    # A number that is not an offset may have any number of digits, and int() refuses very long ones.
    return int(digits) if len(digits) <= _OFFSET_DIGITS else float(digits)


_DECODER = json.JSONDecoder(parse_int=_number)


@dataclass(frozen=True)
class TaggedEntity:
    """
    An entity of a row.

    :param start: offset of the first character, in code points
    :param end: offset after the last character, in code points
    :param label: coarse label
    :param fine_label: None if the file has one level of labels
    :param score: None if the file has no scores
    """

    start: int
    end: int
    label: str
    fine_label: str | None
    score: float | None


@dataclass(frozen=True)
class TaggedRow:
    """
    A row of a tagged file, or one element of a row with a list of texts.

    :param number: number of the row in the file, from 0
    :param entities: ordered by their start; None if the row was not tagged
    :param place: file and row, for messages
    :param file: name of the file, for messages
    :param shown_number: number of the row as messages show it
    :param element: which element of the list of texts this is; None for a row with one text
    """

    number: int
    text: str | None
    entities: Sequence[TaggedEntity] | None
    place: str = ""
    file: str = ""
    shown_number: int = 0
    element: int | None = None

    @property
    def where(self) -> dict[str, Field]:
        """Fields of an error that name the file and the row."""
        return {"file": self.file, "row": self.shown_number}


class TaggedFile(Closing):
    """
    A file that nerd-tag wrote, as batches with their texts and entities.

    :param text_column: the column with the texts; ``NAME[]`` if it has lists of them
    :param column: the column with the entities
    :param unit: unit of the offsets; None for the unit that the file names, or code points if it names none
    :param limit: stop after this number of rows
    :param typed: read JSON Lines as typed columns; fails for lines whose fields fit no common schema
    :raises InputError: if the file cannot be read, or does not have these columns
    :raises OptionError: if the file names another unit
    """

    def __init__(
        self,
        path: Name,
        *,
        format: Format | None = None,  # noqa: A002 - the option's name
        text_column: str = "text",
        column: str = "entities",
        unit: OffsetUnit | None = None,
        limit: int | None = None,
        typed: bool = False,
    ) -> None:
        self.path = path = Location.of(path)
        self.column = column
        self.text_column = text_column
        self.format = detect_format(path, format)
        self.source = open_reader(
            path,
            format=self.format,
            text_column=text_column,
            typed=typed or format_named(self.format).has_types,
            batch_rows=_BATCH_ROWS,
            batch_bytes=_BATCH_BYTES,
            limit=limit,
        )

        try:
            self._unit = _unit(self.source, path, column, unit)
            _check_column(self.source, path, column, self.format)
        except BaseException:
            self.close()
            raise

    def batches(self) -> Iterator[tuple[RowBatch, Iterator[TaggedRow]]]:
        """
        Yield each batch with its rows, or with the elements of its rows.

        :raises InputError: if the file is damaged, or offsets are outside of their text
        """
        for batch in self.source.batches():
            yield batch, self._batch_rows(batch, _column_of(self.path, batch, self.column))

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def _batch_rows(self, batch: RowBatch, entities: list[Any]) -> Iterator[TaggedRow]:
        for i, (text, found) in enumerate(zip(batch.texts.to_pylist(), entities, strict=True)):
            yield from self._rows(batch, i, text, found)

    def _rows(self, batch: RowBatch, i: int, text: str | list[str | None] | None, found: Any) -> Iterator[TaggedRow]:
        file = input_name(self.path)
        row = TaggedRow(batch.number(i), None, None, f"{file}, {batch.place(i)}", file, batch.shown_number(i))
        if not isinstance(text, list):
            yield self._tagged(replace(row, text=text), found)
            return

        parts = _by_element(row, found, len(text))
        for element, one in enumerate(text):
            part = replace(row, text=one, element=element, place=f"{row.place}, element {element}")
            yield self._tagged(part, None if parts is None else parts[element])

    def _tagged(self, row: TaggedRow, found: Any) -> TaggedRow:
        return replace(row, entities=_entities(row, found, self._unit))


def tagged_rows(path: Name, **options: Any) -> Iterator[TaggedRow]:
    """
    Yield the rows of a tagged file.

    :param options: those of :class:`TaggedFile`
    :raises InputError: if the file cannot be read, does not have these columns, or has offsets outside of their text
    :raises OptionError: if the file names another unit
    """
    with TaggedFile(path, **options) as file:
        for _, rows in file.batches():
            yield from rows


def _column_of(path: Location, batch: RowBatch, column: str) -> list[Any]:
    """Return the entities of a batch as they are in the file, one value per row."""
    if batch.table is not None:
        values = _values(path, batch.table, batch, column)
        return [_parsed(value) for value in values] if is_text(batch.table.schema.field(column).type) else values

    file = input_name(path)
    lines = ((batch.shown_number(i), line) for i, line in enumerate(batch.lines or ()))
    return [parse_object(file, number, line, _DECODER, clean=True).get(column) for number, line in lines]


def _values(path: Location, table: pa.RecordBatch, batch: RowBatch, column: str) -> list[Any]:
    """
    Return the values of a column of a batch's table, one per row.

    :raises InputError: if a string in it is not valid UTF-8: Parquet can hold such strings
    """
    try:
        values: list[Any] = table.column(column).to_pylist()
    except UnicodeDecodeError as err:
        raise InputError(
            f"{input_name(path)}, {batch.place(0)} or later: column {column!r} is not valid UTF-8; tag the file again",
            reason="not-utf8",
            file=input_name(path),
            row=batch.shown_number(0),
            column=column,
        ) from err

    return values


def _parsed(value: str | None) -> Any:
    """Return the entities in a field of CSV, which are JSON text; other text stays as it is."""
    try:
        return None if value is None else replace_surrogates(_DECODER.decode(value))
    except (ValueError, RecursionError):
        return value


def sampled(rows: Iterator[TaggedRow], count: int, seed: int) -> list[TaggedRow]:
    """
    Return a random sample of the rows of a file of any length, in the order of the file.

    Reservoir sampling: algorithm R of Vitter (1985), "Random sampling with a reservoir".

    :param count: size of the sample; all rows if there are fewer
    """
    rng = random.Random(seed)  # noqa: S311 - not for cryptography
    kept: list[TaggedRow] = []
    for seen, row in enumerate(rows):
        if seen < count:
            kept.append(row)
        else:
            place = rng.randrange(seen + 1)
            if place < count:
                kept[place] = row

    return sorted(kept, key=lambda row: row.number)


def _unit(source: Reader, path: Location, column: str, asked: OffsetUnit | None) -> OffsetUnit:
    """Return the unit of the offsets: as the file names it, else as asked, else code points."""
    said = _metadata_value(source, column, "offset_unit")
    if not said:
        return asked or "codepoint"

    if said not in get_args(OffsetUnit):
        raise InputError(
            f"{input_name(path)}: the unit of its offsets is {said!r}; expected one of "
            f"{', '.join(get_args(OffsetUnit))}",
            reason="unknown-offset-unit",
            file=input_name(path),
            found=said,
        )

    if asked is not None and asked != said:
        raise OptionError(
            f"--offset-unit {asked}: {input_name(path)} says that its offsets are in {said}",
            reason="other-offset-unit",
            option="--offset-unit",
            file=input_name(path),
            found=said,
        )

    return cast("OffsetUnit", said)


def _metadata_value(source: Reader, column: str, fact: str) -> str:
    """Return a value of the schema's metadata about the entities column; empty if there is none."""
    metadata = (source.schema.metadata or {}) if source.schema is not None else {}
    said: bytes = metadata.get(f"{METADATA_PREFIX}.{column}.{fact}".encode(), b"")
    return said.decode(errors="replace")


def _check_column(source: Reader, path: Location, column: str, format: Format) -> None:  # noqa: A002 - the option's name
    names = list(source.column_names)
    has_types = format_named(format).has_types
    if not has_types and (source.num_rows == 0 or not names):
        return  # no rows, so no line could have the field

    if column not in names:
        raise _no_column(source, path, column, "column" if has_types else "field")

    kind = source.schema.field(column).type if source.schema is not None else pa.null()
    if is_text(kind):
        return  # raw lines and JSON text are checked row by row when they are read

    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    fields = [inner.field(i).name for i in range(inner.num_fields)] if pa.types.is_struct(inner) else []
    # Lists of the type null are those of typed JSON Lines in which no row has an entity.
    if inner is kind or (not pa.types.is_null(inner) and not set(_FIELDS) <= set(fields)):
        raise InputError(
            f"{input_name(path)}: column {column!r} has type {kind}; expected a list of entities with "
            f"{', '.join(_FIELDS)}",
            reason="not-entities",
            file=input_name(path),
            column=column,
            found=str(kind),
        )


def _no_column(source: Reader, path: Location, column: str, what: str) -> InputError:
    """
    Return the error for a file without the column of entities.

    :param what: ``column``, or ``field`` for raw lines
    """
    missing = f"{input_name(path)}: has no {what} {column!r} with entities"
    layout = _metadata_value(source, column, "layout")
    if layout in ("wide", "long"):
        return InputError(
            f"{missing}: it was tagged with --layout {layout}, and the nested layout is needed; tag its input "
            "again without --layout",
            reason="not-nested",
            file=input_name(path),
            column=column,
            found=layout,
        )

    return InputError(
        f"{missing}; the {what}s are: {', '.join(source.column_names)}. Tag the file with nerd-tag first, or give the "
        f"{what} with --column",
        reason="column-missing",
        file=input_name(path),
        column=column,
    )


def _entities(row: TaggedRow, found: Any, unit: OffsetUnit) -> list[TaggedEntity] | None:
    """Return the entities of a row with offsets in code points, after checking that they are inside of its text."""
    if found is None:
        return None

    if not isinstance(found, list) or not all(map(_is_entity, found)):
        raise InputError(
            f"{row.place}: its entities do not have the layout that nerd-tag writes; expected a list of objects with "
            "the whole numbers start and end, and a label",
            reason="not-entities",
            **row.where,
        )

    text = row.text or ""
    offsets = CodePointOffsets(text, unit)
    result = []
    for one in found:
        start, end = offsets.of(one["start"]), offsets.of(one["end"])
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"{row.place}: entity {one['start']}:{one['end']} is outside of its text, which has {len(text)} "
                "characters",
                reason="entity-outside-text",
                **row.where,
                start=one["start"],
                end=one["end"],
            )

        # In a wrong unit, offsets may still lie inside of the text: only its words show the mistake.
        if "text" in one and one["text"] != text[start:end]:
            raise InputError(
                f"{row.place}: entity {one['start']}:{one['end']} has the text {one['text']!r}, and the text at these "
                "offsets is another one; give the unit of the offsets with --offset-unit",
                reason="entity-text-differs",
                **row.where,
                start=one["start"],
                end=one["end"],
            )

        result.append(TaggedEntity(start, end, one["label"], one.get("fine_label"), one.get("score")))

    return sorted(result, key=lambda entity: (entity.start, entity.end))


def _by_element(row: TaggedRow, found: Any, elements: int) -> list[list[Any]] | None:
    """Return the entities of each element of a row with a list of texts; None if the row was not tagged."""
    if found is None:
        return None

    parts: list[list[Any]] = [[] for _ in range(elements)]
    for one in found if isinstance(found, list) else [found]:
        element = one.get("element") if isinstance(one, dict) else None
        if not isinstance(element, int) or isinstance(element, bool) or not 0 <= element < elements:
            raise InputError(
                f"{row.place}: an entity does not say in which of the {elements} texts of the row it is; expected the "
                "field element, as nerd-tag writes it for --text-column NAME[]",
                reason="not-entities",
                **row.where,
            )

        parts[element].append(one)

    return parts


def _is_entity(one: object) -> bool:
    if not isinstance(one, dict):
        return False

    # In Python, True is an int.
    numbers = [one.get("start"), one.get("end")]
    score, fine = one.get("score"), one.get("fine_label")
    return (
        all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        and isinstance(one.get("label"), str)
        and (fine is None or isinstance(fine, str))
        and (score is None or (isinstance(score, int | float) and not isinstance(score, bool)))
    )
