"""
The native library, as Python calls it. Only this module knows its functions, which are in ``src/library.cpp``.

ctypes releases the interpreter's lock during a call, so several threads compute at the same time.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.errors import ModelError
from nerd_onnx.native.build import LIBRARY, sources_digest

PORTABLE = "portable"  # the instruction set of plain C++
DEFAULT_FILE = Path(__file__).resolve().parent / LIBRARY
_FUNCTIONS = ("gelu", "exponential")
# Fields of ELF, 64 bits and little-endian: the place of the table of segments, the size of an entry, their number; and
# in an entry the place and the size of the segment in the file.
_ELF64 = b"\x7fELF\x02\x01"
_ELF_HEAD = struct.Struct("<32xQ14xHH6x")
_ELF_SEGMENT = struct.Struct("<8xQ16xQ")


class Levels(ctypes.Structure):
    """
    How the 256 integers of a token are divided.

    :ivar zero_point: the integer for 0.0
    :ivar positive: number of levels above it
    :ivar smallest_peak: lower bound of the value that the highest integer stands for
    """

    _fields_ = (("zero_point", ctypes.c_int32), ("positive", ctypes.c_int32), ("smallest_peak", ctypes.c_float))


class Shape(ctypes.Structure):
    """
    The sizes of a network, as ``src/network.h`` has them.

    :ivar positions: rows of the table of positions
    :ivar embedding: width of the embeddings; where it is not ``hidden``, a linear layer follows them
    :ivar padding: positions count from behind this id, and the id itself is a position; -1 if they count from 0
    :ivar relative: 1 if the distance of two tokens changes their attention score, else 0
    """

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "hidden", "heads", "intermediate", "labels")),
        *((name, ctypes.c_int32) for name in ("vocabulary", "positions", "token_types")),
        *((name, ctypes.c_int32) for name in ("embedding", "padding", "relative")),
        ("epsilon", ctypes.c_float),
        ("symmetric", Levels),
        ("after_gelu", Levels),
    )

    @property
    def longest(self) -> int:
        """Maximum number of tokens of a segment."""
        return int(self.positions - self.padding - 1)


class _Tensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64))


@dataclass(frozen=True)
class Library:
    """
    A loaded library.

    :param file: the file it was loaded from
    :param paths: the instruction sets of it that this processor has, fastest first
    :param functions: the functions of the library
    """

    file: Path
    paths: tuple[str, ...]
    functions: Any

    @property
    def is_fast(self) -> bool:
        """Whether this processor has an instruction set beside plain C++."""
        return self.paths[0] != PORTABLE

    @classmethod
    def load(cls, file: Path) -> Library:
        """
        Load a library.

        :raises OSError: when it is missing, cut off, or was compiled for another system
        :raises OtherSourcesError: when it was compiled from other sources
        """
        _check_whole(file)
        functions: Any = ctypes.CDLL(str(file))
        if _sources_of(functions) != sources_digest():
            raise OtherSourcesError(f"{file} was compiled from other sources")

        # Without these, ctypes takes each result for an int of 32 bits, which no address fits into.
        functions.nerd_open.restype = ctypes.c_void_p
        functions.nerd_path.restype = ctypes.c_char_p
        functions.nerd_scratch_open.restype = ctypes.c_void_p
        functions.nerd_function.restype = ctypes.c_bool

        names = ctypes.create_string_buffer(256)
        functions.nerd_paths(names, len(names))
        return cls(file, tuple(names.value.decode().split(",")), functions)

    def computed(self, function: str, values: npt.NDArray[np.float32], path: str) -> npt.NDArray[np.float32]:
        """
        Return ``gelu`` or ``exponential`` of values, as the encoder computes them with an instruction set.

        :param values: their number is a multiple of 16
        """
        result = np.array(values, dtype=np.float32)
        number, count = _FUNCTIONS.index(function), ctypes.c_int(result.size)

        if not self.functions.nerd_function(path.encode(), number, _address(result), count):
            raise ValueError(f"{path}, {result.size} values")
        return result


class OtherSourcesError(OSError):
    """A library was compiled from other sources than those of this package."""


@cache
def installed() -> Library | None:
    """Return the library that was compiled when the package was installed; None where there is none that loads."""
    try:
        return Library.load(DEFAULT_FILE)
    except OSError:
        return None


def missing_because() -> str:
    """Return why :func:`installed` found no library."""
    try:
        Library.load(DEFAULT_FILE)
    except OtherSourcesError:  # such as an editable installation whose sources were updated
        return "compiled from other sources, install the package again"
    except FileNotFoundError:
        pass
    except OSError:
        return "damaged or compiled for another system, install the package again"
    return "not installed"


def _check_whole(file: Path) -> None:
    """
    Check that an ELF file is as long as its segments say: the system maps one that was cut, and the process dies later.

    :raises OSError: if it is shorter, or missing
    """
    with file.open("rb") as opened:
        head = opened.read(_ELF_HEAD.size)
        if not head.startswith(_ELF64) or len(head) < _ELF_HEAD.size:
            return  # of another system; the loader of that system looks at it

        segments_at, segment_bytes, segments = _ELF_HEAD.unpack(head)

        opened.seek(segments_at)
        table = opened.read(segment_bytes * segments)
        size = opened.seek(0, os.SEEK_END)

    is_whole = len(table) == segment_bytes * segments >= _ELF_SEGMENT.size
    # A damaged file may say that an entry has no bytes, and range() takes no step of 0.
    for at in range(0, len(table) - _ELF_SEGMENT.size + 1, max(1, segment_bytes)):
        begin, length = _ELF_SEGMENT.unpack_from(table, at)
        is_whole = is_whole and begin + length <= size
    if not is_whole:
        raise OSError(f"{file} is cut off")


def _sources_of(functions: Any) -> str:
    """Return the digest of the sources of a library; empty for one of an earlier version."""
    try:
        functions.nerd_sources.restype = ctypes.c_char_p
        return str(functions.nerd_sources().decode())
    except AttributeError:
        return ""


class Encoder:
    """
    A network in the native library. Several threads may call it at the same time.

    :param library: the library
    :param path: instruction set; empty for the fastest that this processor has
    :param shape: sizes of the network
    :param tensors: its weights in the order in which ``src/library.cpp`` reads them; None for a bias that is not there
    :param name: name of the network, for messages
    :ivar path: the instruction set that runs
    :ivar labels: number of labels
    :ivar longest: maximum number of tokens of a segment
    :raises ModelError: when the library refuses the network
    """

    def __init__(
        self,
        library: Library,
        path: str,
        shape: Shape,
        tensors: Sequence[npt.NDArray[Any] | None],
        name: str,
    ) -> None:
        self._functions, self._name = library.functions, name
        self.labels, self.longest = int(shape.labels), shape.longest

        kept = [None if tensor is None else np.ascontiguousarray(tensor) for tensor in tensors]
        # The library reads the word embeddings where they are, so this object keeps them.
        self._words = kept[0]

        described = [_Tensor() if tensor is None else _Tensor(tensor.ctypes.data, tensor.nbytes) for tensor in kept]
        listed = (_Tensor * len(described))(*described)

        error = ctypes.c_char_p()
        opened = self._functions.nerd_open(
            path.encode(), ctypes.byref(shape), listed, ctypes.c_int(len(kept)), ctypes.byref(error)
        )
        if not opened:
            reason = (error.value or b"").decode()
            raise ModelError(f"{name}: the native encoder cannot run it: {reason}", reason="cannot-load", file=name)

        self._network = _Handle(opened, self._functions.nerd_close)
        self.path = self._functions.nerd_path(self._network.address).decode()
        # Calls of several threads run at the same time, so each thread has memory of its own.
        self._scratch = threading.local()

    def logits(self, ids: npt.NDArray[np.int64], types: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """
        Score segments of one length.

        :param ids: vocabulary ids. *Shape:* (batch, tokens)
        :param types: token types. *Shape:* (batch, tokens)
        :return: one score per segment, token and label. *Shape:* (batch, tokens, labels)
        :raises ModelError: when an id or a type is not in its table, or the segment is too long
        """
        ids, types = np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(types, np.int64)
        if ids.ndim != 2 or types.shape != ids.shape or not 1 <= ids.shape[1] <= self.longest:  # noqa: PLR2004
            raise ModelError(
                f"{self._name}: cannot score ids of shape {ids.shape} with types of shape {types.shape}; expected "
                f"segments of 1 to {self.longest} tokens",
                reason="cannot-run",
                file=self._name,
                tokens=int(ids.shape[-1]) if ids.ndim else 0,
            )

        result = np.empty((*ids.shape, self.labels), np.float32)
        failed = self._functions.nerd_encode(
            self._network.address,
            self._scratch_of(ids.shape[1]),
            _address(ids),
            _address(types),
            ctypes.c_int(ids.shape[0]),
            ctypes.c_int(ids.shape[1]),
            _address(result),
        )
        if failed:
            raise ModelError(
                f"{self._name}: a {'token type' if failed == 2 else 'token id'} is not in the network's table; the "  # noqa: PLR2004
                "tokenizer is not that of the network",
                reason="cannot-run",
                file=self._name,
                tokens=int(ids.shape[1]),
            )

        return result

    def _scratch_of(self, tokens: int) -> ctypes.c_void_p:
        """Return the memory of this thread, large enough for segments of ``tokens``."""
        room: int = getattr(self._scratch, "tokens", 0)
        if tokens > room:
            opened = self._functions.nerd_scratch_open(self._network.address, ctypes.c_int(tokens))
            if not opened:
                raise MemoryError(f"{self._name}: no memory for segments of {tokens} tokens")

            self._scratch.tokens = tokens
            self._scratch.handle = _Handle(opened, self._functions.nerd_scratch_close)

        handle: _Handle = self._scratch.handle
        return handle.address


class _Handle:
    """Memory of the library, which is released with this object."""

    def __init__(self, address: int, close: Any) -> None:
        self.address = ctypes.c_void_p(address)
        self._close = close

    def __del__(self) -> None:
        self._close(self.address)


def _address(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
