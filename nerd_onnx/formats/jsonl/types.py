"""Infer one Arrow type for each field of JSON objects whose fields may differ from row to row."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from nerd_onnx.errors import InputError

Kind = Literal["null", "boolean", "integer", "number", "string", "array", "object", "mixed"]

MAX_FIELDS = 10_000
MAX_DEPTH = 100
_EXACT_IN_DOUBLE = 1 << 53
_KINDS: dict[type, Kind] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
_NUMBERS = ("integer", "number")
_PLAIN_TYPES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "number": pa.float64(),
    "string": pa.string(),
    "mixed": pa.string(),
}
# NaN and Infinity stay as they were written.
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_Undo = Callable[[], object]


class MixedTypesError(InputError):
    """The values of a field have no common Arrow type. The reader of the file adds the number of the row."""


@dataclass
class FieldShape:
    """
    The type of the values of one field that were read so far.

    null fits every type, and whole numbers fit other numbers. Other types do not mix, unless ``mixes`` is set. Strings
    stay strings, also dates.

    :param name: path of the field, for messages: ``meta.tags[]``
    :param kind: JSON type of the values; ``null`` until another type is found, ``mixed`` if they have no common type
    :param line: line on which that type was found first
    :param low: smallest whole number
    :param high: largest whole number
    :param item: type of the items of its arrays
    :param fields: types of the fields of its objects, in order of first appearance
    :param depth: number of arrays and objects around the field
    :param mixes: whether values without a common type become JSON text, instead of being an error
    """

    name: str
    kind: Kind = "null"
    line: int = 0
    low: int = 0
    high: int = 0
    item: FieldShape | None = None
    fields: dict[str, FieldShape] = field(default_factory=dict)
    depth: int = 0
    mixes: bool = False

    def add(self, value: Any, line: int) -> None:
        """
        Extend the type so that it fits one more value.

        :raises MixedTypesError: if no type fits the value and the earlier ones; the value is then ignored
        """
        # A rejected value must leave no trace, or it would make later good rows fail.
        changes: list[_Undo] = []
        try:
            self._add(value, line, changes)
        except MixedTypesError:
            for undo in reversed(changes):
                undo()
            raise

    def _add(self, value: Any, line: int, changes: list[_Undo]) -> None:
        """
        Extend the type by one value.

        :param changes: how to undo each change is appended to it
        """
        if value is None:
            return

        kind = _KINDS[type(value)]
        # A whole number changes nothing in a field of numbers.
        if self.kind not in (kind, "mixed") and (kind, self.kind) != _NUMBERS:
            self._note(changes)
            self._join(kind, line)

        if self.kind == "mixed":
            self._check_depth(value, self.depth)
        elif kind in ("object", "array"):
            self._add_members(value, line, changes)
        elif kind == "integer" and not self.low <= value <= self.high:
            self._note(changes)
            self.low, self.high = min(self.low, value), max(self.high, value)

        # At the end, because a fraction makes earlier whole numbers inexact too.
        if self.kind in _NUMBERS:
            self._check_range(line, changes)

    def _add_members(self, value: dict[str, Any] | list[Any], line: int, changes: list[_Undo]) -> None:
        """Extend the types of the fields of an object, or of the items of an array."""
        if isinstance(value, dict):
            for key, member in value.items():
                FieldShape._add(self._field(key, changes), member, line, changes)
            return

        if self.item is None:
            self._note(changes)
            self.item = self._inner(f"{self.name}[]")

        for member in value:
            FieldShape._add(self.item, member, line, changes)

    def _note(self, changes: list[_Undo]) -> None:
        """Note what this shape is before it changes; its fields are noted one by one."""
        before = {name: getattr(self, name) for name in ("kind", "line", "low", "high", "item")}
        changes.append(partial(self.__dict__.update, before))

    def arrow_type(self) -> pa.DataType:
        """Return the Arrow type for all values so far; ``null`` if there were only nulls and empty objects."""
        if self.kind == "object":
            return (
                pa.struct([(key, shape.arrow_type()) for key, shape in self.fields.items()])
                if self.fields
                else pa.null()
            )

        if self.kind == "array":
            return pa.list_(pa.field("element", self.item.arrow_type() if self.item else pa.null()))
        if self.kind == "integer":
            return pa.int64() if self.high < 1 << 63 else pa.uint64()

        return _PLAIN_TYPES[self.kind]

    @property
    def is_converted(self) -> bool:
        """
        Whether values, at any depth, are not written as they are.

        Parquet cannot hold objects that are always empty; values without a common type become text.
        """
        if self.kind == "object":
            return not self.fields or any(shape.is_converted for shape in self.fields.values())
        if self.kind == "array":
            return self.item is not None and self.item.is_converted
        return self.kind == "mixed"

    def converted(self, value: Any) -> Any:
        """
        Return a value as its column holds it: null for objects that are always empty, JSON text for mixed types.

        :raises TypeError: if it is not a value that was added
        """
        if value is None:
            return None
        if self.kind == "mixed":
            return _ENCODER.encode(value)

        kind = _KINDS[type(value)]
        if kind in ("array", "object") and kind != self.kind:
            raise TypeError(f"{self._called()} was not {_a(kind)} before")

        if kind == "array":
            item = self.item
            return [None if item is None else item.converted(member) for member in value]
        if kind == "object":
            return {key: shape.converted(value.get(key)) for key, shape in self.fields.items()} or None
        return value

    def _field(self, key: str, changes: list[_Undo]) -> FieldShape:
        shape = self.fields.get(key)
        if shape is None:
            # Ids as keys would make a column of each id.
            if len(self.fields) >= MAX_FIELDS:
                raise MixedTypesError(
                    f"{self._called()} has more than {MAX_FIELDS} different keys",
                    reason="too-many-keys",
                    column=self.name,
                    maximum=MAX_FIELDS,
                )

            shape = self.fields[key] = self._inner(f"{self.name}.{key}" if self.name else key)
            changes.append(partial(self.fields.pop, key))

        return shape

    def _inner(self, name: str) -> FieldShape:
        if self.depth >= MAX_DEPTH:
            raise self._too_deep()
        return FieldShape(name, depth=self.depth + 1, mixes=self.mixes)

    def _check_depth(self, value: Any, depth: int) -> None:
        """
        Check that a value that becomes text is not nested more deeply than one that does not.

        :param depth: number of arrays and objects around the value
        :raises MixedTypesError: if it is
        """
        if not isinstance(value, (dict, list)):
            return
        if depth >= MAX_DEPTH:
            raise self._too_deep()

        for member in value.values() if isinstance(value, dict) else value:
            self._check_depth(member, depth + 1)

    def _join(self, kind: Kind, line: int) -> None:
        if self.kind == "null":
            self.kind, self.line = kind, line
        elif self.kind in _NUMBERS and kind in _NUMBERS:
            self.kind = "number"
        elif self.mixes:
            self.kind = "mixed"
        else:
            raise MixedTypesError(
                f"{self._called()} is {_a(kind)} here and {_a(self.kind)} on line {self.line}",
                reason="mixed-types",
                column=self.name,
                found=kind,
                expected=self.kind,
            )

    def _too_deep(self) -> MixedTypesError:
        return MixedTypesError(
            f"{self._called()} is nested more than {MAX_DEPTH} levels deep",
            reason="too-deep",
            column=self.name,
            maximum=MAX_DEPTH,
        )

    def _check_range(self, line: int, changes: list[_Undo]) -> None:
        if self.kind == "number":
            # Mixed with fractions, whole numbers become doubles, which hold them exactly only up to 2^53.
            fits = self.low >= -_EXACT_IN_DOUBLE and self.high <= _EXACT_IN_DOUBLE
        else:
            # int64, or uint64 if none is negative.
            fits = self.low >= -(1 << 63) and self.high < (1 << 63 if self.low < 0 else 1 << 64)

        if not fits and self.mixes:
            self._note(changes)
            self.kind = "mixed"
        elif not fits:
            raise MixedTypesError(
                f"{self._called()} has whole numbers that are too large for one exact column, up to line {line}",
                reason="number-too-large",
                column=self.name,
            )

    def _called(self) -> str:
        return f"field {self.name!r}" if self.name else "the row"


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"
