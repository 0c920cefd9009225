"""Read what nerd-tag wrote back as texts and entities, offsets in code points whatever unit the file has."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import Any, cast, get_args

import pyarrow as pa

from nerd_onnx.errors import Field, InputError, OptionError
from nerd_onnx.formats.base import RowBatch
from nerd_onnx.formats.columns import METADATA_PREFIX, OffsetUnit
from nerd_onnx.formats.jsonl.lines import parse_object
from nerd_onnx.formats.readers import Format, Source, detect_format, open_source
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import input_name

_BATCH_ROWS = 1024
_BATCH_BYTES = 8 << 20
_FIELDS = ("start", "end", "label")
_OFFSET_DIGITS = 18
# A number that is no offset may have any number of digits; int() refuses very long ones.
_DECODER = json.JSONDecoder(parse_int=lambda digits: (int if len(digits) <= _OFFSET_DIGITS else float)(digits))


@dataclass(frozen=True)
class TaggedEntity:
    """
    An entity of a row.

    :param start: offset of its first character, in code points
    :param end: one past its last character
    :param fine_label: None where the file has one level
    :param score: None where the file has none
    """

    start: int
    end: int
    label: str
    fine_label: str | None
    score: float | None


@dataclass(frozen=True)
class TaggedRow:
    """
    A row of a tagged file.

    :param number: its number in the file, from 0
    :param entities: in order of their start; None where the row was not tagged
    :param place: file and row, for messages
    :param file: its file, for messages
    :param shown_number: its number as messages show it
    """

    number: int
    text: str | None
    entities: Sequence[TaggedEntity] | None
    place: str = ""
    file: str = ""
    shown_number: int = 0

    @property
    def where(self) -> dict[str, Field]:
        """The fields of an error that say where the row is."""
        return {"file": self.file, "row": self.shown_number}


class TaggedFile(Closing):
    """
    A file that nerd-tag wrote, as batches with their rows read back.

    :param column: the entities
    :param unit: of their offsets; None for what the file says, else code points
    :param limit: stop after so many rows
    :param typed: give JSON Lines typed columns, as Parquet has them; lines may hold fields that no column could
    :raises InputError: when it cannot be read, or has no such columns
    :raises OptionError: when the file says another unit
    """

    def __init__(
        self,
        path: str,
        *,
        format: Format | None = None,  # noqa: A002 - the option's name
        text_column: str = "text",
        column: str = "entities",
        unit: OffsetUnit | None = None,
        limit: int | None = None,
        typed: bool = False,
    ) -> None:
        self.path = path
        self.column = column
        self.format = detect_format(path, format)
        self.source = open_source(
            path,
            format=self.format,
            text_column=text_column,
            typed=typed or self.format == "parquet",
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
        Yield batches, and what stands in their rows.

        :raises InputError: when the file is damaged, or offsets are outside of their text
        """
        for batch in self.source.batches():
            texts: list[str | None] = batch.texts.to_pylist()
            yield batch, map(self._row, repeat(batch), count(), texts, _column_of(self.path, batch, self.column))

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def _row(self, batch: RowBatch, i: int, text: str | None, entities: Any) -> TaggedRow:
        file = input_name(self.path)
        row = TaggedRow(batch.number(i), text, None, f"{file}, {batch.place(i)}", file, batch.shown_number(i))
        return replace(row, entities=_entities(row, entities, self._unit))


def tagged_rows(path: str, **options: Any) -> Iterator[TaggedRow]:
    """
    Read a tagged file row by row.

    :param options: those of :class:`TaggedFile`
    :raises InputError: when it cannot be read, has no such columns, or offsets outside of their text
    :raises OptionError: when the file says another unit
    """
    with TaggedFile(path, **options) as file:
        for _, rows in file.batches():
            yield from rows


def _column_of(path: str, batch: RowBatch, column: str) -> list[Any]:
    """Give the entities of a batch as the file has them."""
    if batch.table is not None:
        found: list[Any] = batch.table.column(column).to_pylist()
        return found
    file = input_name(path)
    lines = ((batch.shown_number(i), line) for i, line in enumerate(batch.lines or ()))
    return [parse_object(file, number, line, _DECODER, clean=True).get(column) for number, line in lines]


def sampled(rows: Iterator[TaggedRow], count: int, seed: int) -> list[TaggedRow]:
    """
    Draw rows by chance from a file of any length, in the order of the file (reservoir sampling, Vitter 1985).

    :param count: how many, or all where there are fewer
    """
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    kept: list[TaggedRow] = []
    for seen, row in enumerate(rows):
        if seen < count:
            kept.append(row)
        elif (place := rng.randrange(seen + 1)) < count:
            kept[place] = row
    return sorted(kept, key=lambda row: row.number)


def _unit(source: Source, path: str, column: str, asked: OffsetUnit | None) -> OffsetUnit:
    """Tell the unit of the offsets: as the file says, or as asked."""
    said = _said(source, column, "offset_unit")
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


def _said(source: Source, column: str, fact: str) -> str:
    """Give what the schema's metadata says of the entities; nothing where it does not."""
    metadata = (source.schema.metadata or {}) if source.schema is not None else {}
    said: bytes = metadata.get(f"{METADATA_PREFIX}.{column}.{fact}".encode(), b"")
    return said.decode(errors="replace")


def _check_column(source: Source, path: str, column: str, format: Format) -> None:  # noqa: A002 - the option's name
    names = list(source.column_names)
    if format == "jsonl" and (source.num_rows == 0 or not names):
        return  # without rows, where no line could name it
    if column not in names:
        layout = _said(source, column, "layout")
        what = "field" if format == "jsonl" else "column"
        missing = f"{input_name(path)}: has no {what} {column!r} with entities"
        if layout in ("wide", "long"):
            raise InputError(
                f"{missing}: it was tagged with --layout {layout}, and the nested layout is needed; tag its input "
                "again without --layout",
                reason="not-nested",
                file=input_name(path),
                column=column,
                found=layout,
            )
        raise InputError(
            f"{missing}; the {what}s are: {', '.join(names)}. Tag the file with nerd-tag first, or give the {what} "
            "with --column",
            reason="column-missing",
            file=input_name(path),
            column=column,
        )
    kind = source.schema.field(column).type if source.schema is not None else pa.null()
    if pa.types.is_null(kind):
        return  # lines are looked at one by one
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    fields = [inner.field(i).name for i in range(inner.num_fields)] if pa.types.is_struct(inner) else []
    if inner is kind or (not pa.types.is_null(inner) and not set(_FIELDS) <= set(fields)):
        raise InputError(
            f"{input_name(path)}: column {column!r} has type {kind}; expected a list of entities with "
            f"{', '.join(_FIELDS)}",
            reason="not-entities",
            file=input_name(path),
            column=column,
            found=str(kind),
        )


def _entities(row: TaggedRow, found: Any, unit: OffsetUnit) -> list[TaggedEntity] | None:
    """Turn a row's entities into ours, and check that they lie in its text."""
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
    place = _Places(text, unit)
    result = []
    for one in found:
        start, end = place.of(one["start"]), place.of(one["end"])
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"{row.place}: entity {one['start']}:{one['end']} is outside of its text, which has {len(text)} "
                "characters",
                reason="entity-outside-text",
                **row.where,
                start=one["start"],
                end=one["end"],
            )
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


def _is_entity(one: object) -> bool:
    if not isinstance(one, dict):
        return False
    numbers = [one.get("start"), one.get("end")]
    score, fine = one.get("score"), one.get("fine_label")
    return (
        all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        and isinstance(one.get("label"), str)
        and (fine is None or isinstance(fine, str))
        and (score is None or isinstance(score, int | float))
    )


class _Places:
    """
    Turns offsets into code points; what lies outside of the text stays outside.

    :param text: the text, encoded once where that is needed
    """

    def __init__(self, text: str, unit: OffsetUnit) -> None:
        self._codec, self._width = {"utf8": ("utf-8", 1), "utf16": ("utf-16-le", 2)}.get(unit, ("", 1))
        self._length = len(text)
        plain = not self._codec or text.isascii()
        self._encoded = None if plain else text.encode(self._codec, "surrogatepass")

    def of(self, offset: int) -> int:
        """Give the code points before an offset; below 0 or beyond the text where it is outside."""
        if self._encoded is None or offset < 0:
            return offset
        at = offset * self._width
        if at > len(self._encoded):
            return self._length + 1
        return len(self._encoded[:at].decode(self._codec, "surrogatepass" if self._width > 1 else "ignore"))
