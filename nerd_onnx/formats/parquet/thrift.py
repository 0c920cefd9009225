"""
Structs in Thrift's compact protocol, as in a Parquet footer. A struct keeps every field that it does not know.

Our own code, because libraries build classes from ``parquet.thrift`` and lose what these do not know (``thrift``,
``thriftpy2``), or come with pandas (``fastparquet``). Here the value of a field stays the bytes that were read, and is
decoded when it is asked for. So a field of tomorrow's Parquet is written again exactly as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

# Types of values.
TRUE, _FALSE, _BYTE, I16, I32, I64, _DOUBLE, BINARY, LIST, _SET, _MAP, STRUCT, _UUID = range(1, 14)
_FIXED_BYTES = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}
_MAX_DEPTH = 64
_MAX_VARINT_BYTES = 10
_LONG = 15  # larger steps between fields, and this and larger sizes of lists, do not fit into the first byte
_MORE = 0x80  # the bit of an integer's byte that says that another byte follows
_STOP = b"\0"


class ThriftError(ValueError):
    """The bytes are no struct in the compact protocol, or a field has another type than expected."""


class Struct:
    """
    A struct: the type and the encoded value of each field, by the field's number.

    :param data: the struct encoded; all of these bytes belong to it
    :raises ThriftError: if the bytes are something else
    """

    def __init__(self, data: bytes = _STOP) -> None:
        self._fields: dict[int, tuple[int, bytes]] = {}
        end = self._read(data)
        if end != len(data):
            raise ThriftError(f"{len(data) - end} other bytes follow it")

    @classmethod
    def leading(cls, data: bytes) -> tuple[Self, int]:
        """
        Return the struct at the beginning of some bytes, and its size.

        :raises ThriftError: if there is none, or it is cut off
        """
        found = cls()
        return found, found._read(data)

    def _read(self, data: bytes) -> int:
        """Read the fields of the struct at the beginning of some bytes, and return where it ends."""
        at = number = 0
        try:
            # The head of a field has its type and the step from the number before; the stop byte is 0.
            while head := data[at]:
                number, at = _field_number(data, at, number)
                end = _end(data, at, head & 15, 0)
                # Which of the two other readers take is not known: such a file is not copied.
                if number in self._fields:
                    raise ThriftError(f"field {number} occurs twice")

                self._fields[number] = (head & 15, data[at:end])
                at = end
        except IndexError:
            raise ThriftError("it is cut off") from None
        return at + 1

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def __bytes__(self) -> bytes:
        """Return the struct encoded, with its fields in ascending order."""
        parts, before = [], 0
        for number in sorted(self._fields):
            kind, value = self._fields[number]
            step = number - before
            # A step that does not fit into half a byte is 0 in the head, and the number itself follows.
            parts += [bytes([step << 4 | kind]) if 0 < step <= _LONG else bytes([kind]) + zigzag(number), value]
            before = number
        return b"".join((*parts, _STOP))

    def integer(self, number: int, default: int = 0) -> int:
        """Return an integer; the default without the field."""
        value = self._value(number, I16, I32, I64)
        return default if value is None else _signed(varint(value, 0)[0])

    def binary(self, number: int) -> bytes | None:
        """Return bytes, or the bytes of a string; None without the field."""
        value = self._value(number, BINARY)
        return None if value is None else value[varint(value, 0)[1] :]

    def boolean(self, number: int, *, default: bool) -> bool:
        """Return a truth value; the default without the field."""
        kind, _ = self._fields.get(number, (0, b""))
        if kind not in (0, TRUE, _FALSE):
            raise ThriftError(f"field {number} has type {kind}")
        return kind == TRUE if kind else default

    def struct(self, number: int) -> Struct | None:
        """Return a struct in this one; None without the field."""
        value = self._value(number, STRUCT)
        return None if value is None else Struct(value)

    def items(self, number: int, expected: int = STRUCT) -> list[bytes]:
        """
        Return the encoded items of a list; an empty list without the field.

        :param expected: the type of the items
        """
        value = self._value(number, LIST)
        if value is None:
            return []

        kind, count, at = _list_header(value, 0)
        if count and kind != expected:
            raise ThriftError(f"the items of field {number} have type {kind}")

        found = []
        for _ in range(count):
            end = _end(value, at, kind, 0, in_list=True)
            found.append(value[at:end])
            at = end

        return found

    def count(self, number: int) -> int:
        """Return the number of items of a list; 0 without the field."""
        value = self._value(number, LIST)
        return 0 if value is None else _list_header(value, 0)[1]

    def structs(self, number: int) -> list[Struct]:
        """Return the structs of a list; an empty list without the field."""
        return [Struct(item) for item in self.items(number)]

    def set_integer(self, number: int, value: int, kind: int = I64) -> Self:
        """Set an integer; a field that is there keeps its type. Return the struct."""
        self._fields[number] = (self._fields.get(number, (kind, b""))[0], zigzag(value))
        return self

    def set_binary(self, number: int, value: bytes) -> Self:
        """Set bytes, or the bytes of a string. Return the struct."""
        self._fields[number] = (BINARY, _unsigned(len(value)) + value)
        return self

    def set_struct(self, number: int, value: Struct) -> Self:
        """Set a struct in this one. Return this one."""
        self._fields[number] = (STRUCT, bytes(value))
        return self

    def set_items(self, number: int, items: Iterable[bytes], kind: int = STRUCT) -> Self:
        """Set a list of encoded items of one type. Return the struct."""
        found = list(items)
        self._fields[number] = (LIST, _encoded_header(kind, len(found)) + b"".join(found))
        return self

    def extend(self, number: int, items: Iterable[bytes]) -> Self:
        """Add encoded items to a list that is there, without a look at those that it has. Return the struct."""
        value = self._value(number, LIST)
        if value is None:
            raise ThriftError(f"field {number} is missing")

        kind, count, at = _list_header(value, 0)
        added = list(items)
        # With another count the header may take another number of bytes.
        parts = (_encoded_header(kind, count + len(added)), value[at:], *added)
        self._fields[number] = (LIST, b"".join(parts))
        return self

    def remove(self, *numbers: int) -> Self:
        """Remove fields, where they are there. Return the struct."""
        for number in numbers:
            self._fields.pop(number, None)
        return self

    def _value(self, number: int, *kinds: int) -> bytes | None:
        kind, value = self._fields.get(number, (0, b""))
        if kind and kind not in kinds:
            raise ThriftError(f"field {number} has type {kind}")
        return value if kind else None


def zigzag(value: int) -> bytes:
    """Return a signed integer encoded."""
    return _unsigned(value << 1 if value >= 0 else (-value << 1) - 1)


def _field_number(data: bytes, at: int, before: int) -> tuple[int, int]:
    """Return the number of the field whose head is at ``at``, and where its value begins."""
    step = data[at] >> 4
    if step:
        return before + step, at + 1

    number, at = varint(data, at + 1)
    return _signed(number), at


def _end(data: bytes, at: int, kind: int, depth: int, *, in_list: bool = False) -> int:
    """Return where the value that begins at ``at`` ends."""
    if kind in (I32, I64, I16):
        # Most values are integers, and most integers are short: a call for each would take twice the time.
        return at + 1 if data[at] < _MORE else varint(data, at)[1]

    # Each level is a call of Python, of which a hostile footer could ask for more than there may be.
    if depth == _MAX_DEPTH:
        raise ThriftError("it is nested too deeply")

    if kind == STRUCT:
        at = _struct_end(data, at, depth)
    elif kind == BINARY:
        size, at = varint(data, at)
        at += size
    elif kind in (TRUE, _FALSE):
        at += in_list  # a field has its value in its type; the items of a list share one type, so each takes a byte
    elif kind in (LIST, _SET, _MAP):
        at = _container_end(data, at, kind, depth)
    elif kind in _FIXED_BYTES:
        at += _FIXED_BYTES[kind]
    else:
        raise ThriftError(f"there is no type {kind}")

    if at > len(data):
        raise ThriftError("it is cut off")
    return at


def _struct_end(data: bytes, at: int, depth: int) -> int:
    """Return where the struct that begins at ``at`` ends."""
    while head := data[at]:
        at = at + 1 if head >= 16 else varint(data, at + 1)[1]  # noqa: PLR2004
        at = _end(data, at, head & 15, depth + 1)
    return at + 1


def _container_end(data: bytes, at: int, kind: int, depth: int) -> int:
    """Return where the list, set or map that begins at ``at`` ends."""
    kinds: tuple[int, ...] = ()
    if kind != _MAP:
        item, count, at = _list_header(data, at)
        kinds = (item,)
    else:
        count, at = varint(data, at)
        if count:
            kinds, at = (data[at] >> 4, data[at] & 15), at + 1

    # Each item takes a byte at least, so this bounds the loop by the size of the data.
    if count > len(data) - at:
        raise ThriftError("it is cut off")

    for _ in range(count):
        for inner in kinds:
            at = _end(data, at, inner, depth + 1, in_list=True)
    return at


def _list_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the type of the items of a list, their number, and where they begin."""
    kind, count, at = data[at] & 15, data[at] >> 4, at + 1
    if count == _LONG:
        count, at = varint(data, at)
    return kind, count, at


def _encoded_header(kind: int, count: int) -> bytes:
    return bytes([count << 4 | kind]) if count < _LONG else bytes([_LONG << 4 | kind]) + _unsigned(count)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """
    Return an unsigned integer, and where it ends.

    :raises IndexError: if it is cut off
    :raises ThriftError: if it is too long
    """
    found = data[at]
    if found < _MORE:  # most often the only byte
        return found, at + 1

    found -= _MORE
    for place in range(1, _MAX_VARINT_BYTES):
        byte = data[at + place]
        found |= (byte & ~_MORE) << 7 * place
        if byte < _MORE:
            return found, at + place + 1

    raise ThriftError("an integer is too long")


def _signed(value: int) -> int:
    # 0, 1, 2, 3 stand for 0, -1, 1, -2, so that small numbers of either sign are short.
    return value >> 1 ^ -(value & 1)


def _unsigned(value: int) -> bytes:
    """Return an unsigned integer encoded."""
    parts = []
    while value >= _MORE:
        parts.append(value & ~_MORE & 0xFF | _MORE)
        value >>= 7
    return bytes([*parts, value])
