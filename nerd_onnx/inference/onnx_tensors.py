"""
Read the constants of an ONNX file without the onnx package, which is no runtime dependency.

Only the few fields of Protocol Buffers are read that lead to the initializers of the graph (onnx.proto of ONNX 1.x).
The numbers stay in the bytes of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.inference.model_files import open_regular_file
from nerd_onnx.inference.protobuf import byte_fields, fields, varint

_GRAPH, _INITIALIZER = 7, 5  # fields of ModelProto and of GraphProto
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9  # fields of TensorProto
# By the number that TensorProto.DataType has for it.
_TYPES: dict[int, npt.DTypeLike] = {1: "<f4", 2: "u1", 3: "i1"}


def initializers(file: Path) -> dict[str, npt.NDArray[Any]]:
    """
    Return the constants of a graph by name, those of 8-bit integers and of floats whose numbers are in the file.

    :return: read-only arrays in the bytes of the file, possibly not aligned
    :raises ValueError: when the file is no ONNX file or is damaged
    :raises OSError: when it cannot be read
    """
    with open_regular_file(file) as opened:
        # Not mapped: the process dies of SIGBUS if another program cuts a mapped file.
        content = memoryview(opened.read())

    if not content:
        raise ValueError("the file is empty")

    found: dict[str, npt.NDArray[Any]] = {}
    for field, graph in byte_fields(content):
        if field == _GRAPH:
            for inner, tensor in byte_fields(graph):
                if inner == _INITIALIZER:
                    found.update(_tensor(tensor))
    return found


def _tensor(message: memoryview) -> dict[str, npt.NDArray[Any]]:
    """Return a constant by its name; empty for one of another type, or whose numbers are elsewhere."""
    shape: list[int] = []
    kind, name, raw = 0, "", None
    for field, value in fields(message):
        if field == _DIMS:
            # Some writers pack all numbers into one field, others write a field per number.
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
        number, place = varint(values, place)
        numbers.append(number)
    return numbers
