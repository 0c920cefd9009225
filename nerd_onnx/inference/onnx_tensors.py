"""
Read the constants of an ONNX file without the onnx package, which is no runtime dependency.

Only the few fields of Protocol Buffers are read that lead to the initializers of the graph (onnx.proto of ONNX 1.x).
The numbers stay in the bytes of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.inference.model_files import open_regular_file

_GRAPH, _INITIALIZER = 7, 5  # fields of ModelProto and of GraphProto
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9  # fields of TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_TYPES: dict[int, npt.DTypeLike] = {1: "<f4", 2: "u1", 3: "i1"}
_VARINT_BITS = 70  # of the longest varint


def initializers(file: Path) -> dict[str, npt.NDArray[Any]]:
    """
    Return the constants of a graph by name, those of 8-bit integers and of floats whose numbers are in the file.

    :return: read-only arrays in the bytes of the file, possibly not aligned
    :raises ValueError: when the file is no ONNX file or is damaged
    :raises OSError: when it cannot be read
    """
    with open_regular_file(file) as opened:
        content = memoryview(opened.read())  # not mapped: a mapped file that is cut ends the process

    if not content:
        raise ValueError("the file is empty")

    found: dict[str, npt.NDArray[Any]] = {}
    for field, graph in _fields(content):
        if field == _GRAPH and not isinstance(graph, int):
            for inner, tensor in _fields(graph):
                if inner == _INITIALIZER and not isinstance(tensor, int):
                    found.update(_tensor(tensor))
    return found


def _tensor(message: memoryview) -> dict[str, npt.NDArray[Any]]:
    """Return a constant by its name; empty for one of another type, or whose numbers are elsewhere."""
    shape: list[int] = []
    kind, name, raw = 0, "", None
    for field, value in _fields(message):
        if field == _DIMS:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif field == _TYPE and isinstance(value, int):
            kind = value
        elif field == _NAME and not isinstance(value, int):
            name = bytes(value).decode("utf-8", "replace")
        elif field == _RAW and not isinstance(value, int):
            raw = value

    if raw is None or kind not in _TYPES:
        return {}
    return {name: np.frombuffer(raw, np.dtype(_TYPES[kind])).reshape(shape)}


def _packed(values: memoryview) -> list[int]:
    """Return the numbers of a packed field."""
    numbers, place = [], 0
    while place < len(values):
        number, place = _varint(values, place)
        numbers.append(number)
    return numbers


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """
    Yield the fields of a message: their number, and an integer or the bytes.

    :raises ValueError: when the message is damaged
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        wire = key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue

        if wire == _BYTES:
            size, place = _varint(message, place)
        elif wire in {_FIXED32, _FIXED64}:
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(message):
            raise ValueError("a field ends behind its message")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
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
