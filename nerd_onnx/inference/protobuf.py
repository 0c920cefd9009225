"""
Read the fields of a Protocol Buffers message, the encoding of ONNX files, without a library for it.

The onnx package is no dependency of the runtime, and only a few fields are needed.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # kinds of fields
_FIXED_SIZES = {_FIXED_32: 4, _FIXED_64: 8}
_VARINT_BITS = 70  # of the longest number


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """
    Yield the fields of a message: number, and an integer or the bytes of a string or an inner message.

    Fields of fixed size, such as floats, are left out.

    :raises ValueError: when the message is damaged
    """
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        # The lowest three bits of a key are the kind of the field, the others its number.
        kind = key & 7
        if kind == _VARINT:
            value, place = varint(message, place)
            yield key >> 3, value
            continue

        if kind == _BYTES:
            size, place = varint(message, place)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise ValueError(f"wire type {kind}")

        if place + size > len(message):
            raise ValueError("a field ends behind its message")
        if kind == _BYTES:
            yield key >> 3, message[place : place + size]
        place += size


def byte_fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """
    Yield only the strings and inner messages of a message, with their numbers.

    :raises ValueError: when the message is damaged
    """
    for number, value in fields(message):
        if not isinstance(value, int):
            yield number, value


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """
    Return a number of variable length, and the place behind it.

    :raises ValueError: when it does not end
    """
    number = 0
    for shift in range(0, _VARINT_BITS, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more bytes follow
            return number, place
    raise ValueError("a number does not end")
