"""A very long text as its UTF-8 bytes, of which a window is decoded: a Python string takes up to four times as much."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

LONG_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 20
_FOLLOWING = 0x80  # the highest two bits of all other bytes of a character


class LongText:
    """
    A text that has what tagging needs of a string: its length, slices and characters.

    Slices are cheap when they come in order: the chunks of the last one stay decoded.

    :param content: valid UTF-8, in any object with a buffer; it is not copied
    :param chunk_bytes: approximate size of a chunk
    """

    def __init__(self, content: Any, chunk_bytes: int = _CHUNK_BYTES) -> None:
        self._bytes = memoryview(content).cast("B")

        # A place in characters leads to its chunk by the counts of characters, and within the chunk by decoding it.
        borders, points = [0], [0]
        while borders[-1] < len(self._bytes):
            end = self._character_at(min(borders[-1] + chunk_bytes, len(self._bytes)))
            chunk = np.frombuffer(self._bytes[borders[-1] : end], np.uint8)

            borders.append(end)
            points.append(points[-1] + int(np.count_nonzero(_is_first(chunk))))

        self._borders = borders  # first byte of each chunk, and the number of bytes at the end
        self._points = np.array(points)  # first character of each chunk, and the number of characters at the end
        self._window, self._window_begin = "", 0

    def __len__(self) -> int:
        return int(self._points[-1])

    def __getitem__(self, place: int | slice) -> str:
        """Return one character, or the characters of a slice with the step 1; negative places are not supported."""
        if not isinstance(place, slice):
            return self[place : place + 1]

        begin, end, _ = place.indices(len(self))
        if end <= begin:
            return ""

        if not self._window_begin <= begin or end > self._window_begin + len(self._window):
            self._decode(begin, end)
        return self._window[begin - self._window_begin : end - self._window_begin]

    def isascii(self) -> bool:
        """Whether all characters are ASCII: each is then one byte."""
        return len(self) == len(self._bytes)

    def _decode(self, begin: int, end: int) -> None:
        """Decode the chunks that contain a range of characters."""
        first = int(np.searchsorted(self._points, begin, side="right")) - 1
        last = int(np.searchsorted(self._points, end, side="left"))

        # The old window goes first: else both would be in memory.
        self._window = ""
        self._window = str(self._bytes[self._borders[first] : self._borders[last]], "utf-8")
        self._window_begin = int(self._points[first])

    def _character_at(self, place: int) -> int:
        """Return the first byte of a character, at a place or up to three bytes behind it."""
        while place < len(self._bytes) and not _is_first(self._bytes[place]):
            place += 1
        return place


def release_unused() -> None:
    """Return memory to the system that was freed after a long text was read; the allocators keep it for later use."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def _is_first(byte: Any) -> Any:
    """Whether a byte of UTF-8, or each of an array, is the first of a character."""
    return byte & 0xC0 != _FOLLOWING
