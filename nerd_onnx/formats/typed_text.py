"""
Turn columns of text into columns of other types, and find the type that all values of a column have.

Whether a value fits a type depends on that value alone. So the types of a file do not depend on how it is read: in
blocks, in batches or after an interruption.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

import pyarrow as pa
import pyarrow.compute as pc

_DAY = r"(?:[1-9]\d{3}|0[1-9]\d\d|00[1-9]\d|000[1-9])-\d\d-\d\d"  # Python has no year 0
# Not more than six digits of a second: microseconds cannot hold them.
_TIME = r"[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?"
_ZONE = r"(?:Z|[+-]\d\d(?::?\d\d)?)"
_FRACTION = r"(?:\d+\.?\d*|\.\d+)"
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_INFINITE = r"[+-]?(?i:inf|infinity)"
_DECIMAL = re.compile(r"decimal\((\d{1,2}),(\d{1,2})\)")
_MOST_DIGITS = 38  # of decimal128
# From here on, doubles do not hold every whole number.
_EXACT_IN_DOUBLE = 1 << 53
_MAY_BE_ROUNDED = r"(?:\d\.?){16}|[eE][+-]?\d{3}"  # up to 15 digits, a double in this range has all of them
_MOST_CHARACTERS = 1100  # of a double with all its digits


@dataclass(frozen=True)
class Kind:
    """
    A type that texts can have.

    :param name: as users write it
    :param type: type of the column
    :param pattern: what a text must match as a whole; the conversion checks ranges, such as that of the days of a month
    :param is_exact: whether a column of fractions must have whole numbers exactly, and all digits of the others
    """

    name: str
    type: pa.DataType
    pattern: str
    is_exact: bool = False


_NAMED = (
    Kind("bool", pa.bool_(), r"(?i:true|false)|[01]"),
    *(Kind(f"int{bits}", getattr(pa, f"int{bits}")(), r"[+-]?\d+") for bits in (8, 16, 32, 64)),
    *(Kind(f"uint{bits}", getattr(pa, f"uint{bits}")(), r"\+?\d+") for bits in (8, 16, 32, 64)),
    *(
        Kind(f"float{bits}", getattr(pa, f"float{bits}")(), rf"[+-]?{_FRACTION}{_EXPONENT}|{_INFINITE}|(?i:nan)")
        for bits in (32, 64)
    ),
    Kind("date", pa.date32(), _DAY),
    Kind("timestamp", pa.timestamp("us"), rf"{_DAY}(?:{_TIME})?"),
    Kind("timestamptz", pa.timestamp("us", "UTC"), rf"{_DAY}{_TIME}{_ZONE}"),
)
# In this order. Leading zeros, a plus sign and NaN are what identifiers, telephone numbers and names have.
_FOUND = (
    Kind("bool", pa.bool_(), r"(?i:true|false)"),
    Kind("int64", pa.int64(), r"0|-?[1-9]\d*"),
    Kind("float64", pa.float64(), rf"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+){_EXPONENT}", is_exact=True),
    Kind("date", pa.date32(), _DAY),
    Kind("timestamp", pa.timestamp("us"), rf"{_DAY}{_TIME}"),
    Kind("timestamptz", pa.timestamp("us", "UTC"), rf"{_DAY}{_TIME}{_ZONE}"),
)
KIND_NAMES = ("text", *(kind.name for kind in _NAMED), "decimal(P,S)")


def kind_named(name: str) -> Kind | None:
    """
    Return the type with a name; None for ``text``.

    :raises KeyError: if there is none
    """
    if name == "text":
        return None
    if (found := _DECIMAL.fullmatch(name)) is not None:
        digits, scale = int(found[1]), int(found[2])
        if not 1 <= digits <= _MOST_DIGITS or scale > digits:
            raise KeyError(name)
        return Kind(name, pa.decimal128(digits, scale), rf"[+-]?{_FRACTION}")

    return {kind.name: kind for kind in _NAMED}[name]


def converted(texts: pa.Array, kind: Kind) -> tuple[pa.Array, pa.BooleanArray]:
    """
    Convert texts. White space around a value is ignored, and an empty text is null.

    :param texts: of type ``string``. *Shape:* (rows,)
    :return: the values, null where a text does not fit; and which texts do not fit. *Shape:* (rows,) each
    """
    trimmed = pc.ascii_trim_whitespace(texts)
    nothing = pa.scalar(None, texts.type)
    trimmed = pc.if_else(pc.equal(trimmed, ""), nothing, trimmed)

    matches = pc.match_substring_regex(trimmed, rf"\A(?:{kind.pattern})\z")
    # The conversion of pyarrow reads more, such as hexadecimal numbers, and it reads no plus sign before whole numbers.
    plain = pc.replace_substring_regex(pc.if_else(matches, trimmed, nothing), r"\A\+", "")

    values = _cast(plain, kind.type)
    if pa.types.is_floating(kind.type):
        values = _without_rounded(values, plain, kind)
    return values, pc.and_(trimmed.is_valid(), values.is_null())


def _cast(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Convert texts; what pyarrow cannot convert becomes null and is found by bisection. *Shape:* (rows,)"""
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, kind)

        middle = len(texts) // 2
        return pa.concat_arrays([_cast(texts.slice(0, middle), kind), _cast(texts.slice(middle), kind)])


def _without_rounded(values: pa.Array, texts: pa.Array, kind: Kind) -> pa.Array:
    """Return numbers with null for those beyond their range, and for those that would lose digits. *Shape:* (rows,)"""
    # pyarrow reads a number that is too large as infinity.
    is_named = pc.match_substring_regex(texts, rf"\A{_INFINITE}\z")
    lost = pc.and_(pc.is_inf(values), pc.invert(is_named))

    if kind.is_exact:
        is_whole = pc.match_substring_regex(texts, r"\A-?\d+\z")
        lost = pc.or_(lost, pc.and_(is_whole, pc.greater_equal(pc.abs(values), _EXACT_IN_DOUBLE)))
        lost = pc.or_(lost, _are_rounded(texts, values))

    return pc.if_else(lost, pa.scalar(None, kind.type), values)


def _are_rounded(texts: pa.Array, values: pa.Array) -> pa.BooleanArray:
    """Return which numbers have digits that their double does not have. *Shape:* (rows,)"""
    rounded = [False] * len(texts)
    for row in pc.indices_nonzero(pc.match_substring_regex(texts, _MAY_BE_ROUNDED)).to_pylist():
        rounded[row] = _is_rounded(texts[row].as_py(), values[row].as_py())
    return pa.array(rounded, pa.bool_())


def _is_rounded(text: str, value: float) -> bool:
    """Whether a program that has the double would write another number with as many digits."""
    if len(text) > _MOST_CHARACTERS:
        return True
    given = Decimal(text)
    return Context(prec=len(given.as_tuple().digits)).create_decimal(Decimal(value)) != given


class KindSearch:
    """
    Finds the type that all values of a column have.

    :ivar left: the types that fit all values so far
    """

    def __init__(self) -> None:
        self.left = list(_FOUND)
        self._has_values = False

    def add(self, texts: pa.Array) -> None:
        """Take more values into account. *Shape:* (rows,)"""
        # A copy, because types are removed meanwhile.
        for kind in list(self.left):
            values, misfits = converted(texts, kind)
            if misfits.true_count:
                self.left.remove(kind)
            elif values.null_count < len(values):
                self._has_values = True

    @property
    def found(self) -> Kind | None:
        """The type; None for text, also if there are no values."""
        # A column without values fits every type.
        return self.left[0] if self.left and self._has_values else None


def first_misfits(columns: Sequence[tuple[int, pa.BooleanArray]]) -> dict[int, int]:
    """
    Return the rows in which a value does not fit, each with the first column of that kind.

    :param columns: index of a column, and which of its values do not fit, in the order of the columns
    """
    found: dict[int, int] = {}
    for column, misfits in columns:
        for row in pc.indices_nonzero(misfits).to_pylist():
            found.setdefault(row, column)

    return found
