"""Infer one Arrow type for each field of JSON objects whose fields may differ from row to row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from nerd_onnx.errors import InputError

Kind = Literal["null", "boolean", "integer", "number", "string", "array", "object"]

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


class MixedTypesError(InputError):
    """The values of a field have no common Arrow type. The reader of the file adds the number of the row."""


@dataclass
class FieldShape:
    """
    The type of the values of one field that were read so far.

    null fits every type, and whole numbers fit other numbers. No other types mix. Strings stay strings, also dates.

    :param name: path of the field, for messages: ``meta.tags[]``
    :param kind: JSON type of the values; ``null`` until another type is found
    :param line: line on which that type was found first
    :param low: smallest whole number
    :param high: largest whole number
    :param item: type of the items of its arrays
    :param fields: types of the fields of its objects, in order of first appearance
    :param depth: number of arrays and objects around the field
    """

    name: str
    kind: Kind = "null"
    line: int = 0
    low: int = 0
    high: int = 0
    item: FieldShape | None = None
    fields: dict[str, FieldShape] = field(default_factory=dict)
    depth: int = 0

    def add(self, value: Any, line: int) -> None:
        """
        Extend the type so that it fits one more value.

        :raises MixedTypesError: if no type fits the value and the earlier ones; the value is then ignored
        """
        if value is None:
            return

        # A rejected value must leave no trace, or it would make later good rows fail.
        before = self.kind, self.line, self.low, self.high
        try:
            self._add(value, line)
        except MixedTypesError:
            self.kind, self.line, self.low, self.high = before
            raise

    def _add(self, value: Any, line: int) -> None:
        kind = _KINDS[type(value)]
        if kind != self.kind:
            self._join(kind, line)
        if kind == "object":
            for key, member in value.items():
                self._field(key).add(member, line)
        elif kind == "array":
            self.item = self.item or self._inner(f"{self.name}[]")
            for member in value:
                self.item.add(member, line)
        elif kind == "integer":
            self.low, self.high = min(self.low, value), max(self.high, value)

        if self.kind in _NUMBERS:
            self._check_range(line)

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

        return {"null": pa.null(), "boolean": pa.bool_(), "number": pa.float64(), "string": pa.string()}[self.kind]

    def only_empty_objects(self) -> bool:
        """Whether some field, at any depth, had only empty objects, which Parquet cannot hold."""
        if self.kind == "object":
            return not self.fields or any(shape.only_empty_objects() for shape in self.fields.values())
        return self.item is not None and self.item.only_empty_objects()

    def _field(self, key: str) -> FieldShape:
        shape = self.fields.get(key)
        if shape is None:
            if len(self.fields) >= MAX_FIELDS:
                raise MixedTypesError(
                    f"{self._called()} has more than {MAX_FIELDS} different keys",
                    reason="too-many-keys",
                    column=self.name,
                    maximum=MAX_FIELDS,
                )

            shape = self.fields[key] = self._inner(f"{self.name}.{key}" if self.name else key)

        return shape

    def _inner(self, name: str) -> FieldShape:
        if self.depth >= MAX_DEPTH:
            raise MixedTypesError(
                f"{self._called()} is nested more than {MAX_DEPTH} levels deep",
                reason="too-deep",
                column=self.name,
                maximum=MAX_DEPTH,
            )
        return FieldShape(name, depth=self.depth + 1)

    def _join(self, kind: Kind, line: int) -> None:
        if self.kind == "null":
            self.kind, self.line = kind, line
        elif self.kind in _NUMBERS and kind in _NUMBERS:
            self.kind = "number"
        else:
            raise MixedTypesError(
                f"{self._called()} is {_a(kind)} here and {_a(self.kind)} on line {self.line}",
                reason="mixed-types",
                column=self.name,
                found=kind,
                expected=self.kind,
            )

    def _check_range(self, line: int) -> None:
        if self.kind == "number":
            # Mixed with fractions, whole numbers become doubles, which hold them exactly only up to 2^53.
            fits = self.low >= -_EXACT_IN_DOUBLE and self.high <= _EXACT_IN_DOUBLE
        else:
            fits = self.low >= -(1 << 63) and self.high < (1 << 63 if self.low < 0 else 1 << 64)

        if not fits:
            raise MixedTypesError(
                f"{self._called()} has whole numbers that are too large for one exact column, up to line {line}",
                reason="number-too-large",
                column=self.name,
            )

    def _called(self) -> str:
        return f"field {self.name!r}" if self.name else "the row"


def conform(value: Any, kind: pa.DataType) -> Any:
    """Return a JSON value with null wherever the Arrow type is ``null``: objects that are always empty have it."""
    if value is None or pa.types.is_null(kind):
        return None
    if pa.types.is_list(kind):
        return [conform(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: conform(value.get(field.name), field.type) for field in kind}
    return value


def _a(kind: Kind) -> str:
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"
