"""
Long lines of JSON Lines: their long strings are read in pieces.

Python's parser needs the whole line as characters, and again the whole string: 600 MB for a text of 100 MB. So a line
is shortened first: each long string is replaced by a short one. The rest is parsed as usual, and the string in pieces.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nerd_onnx.long_text import LONG_BYTES

_PIECE_BYTES = 1 << 20
_ESCAPE_BYTES = 12  # of the longest escape: two surrogates
_MAX_STRINGS = 100_000  # of one line; more are left to Python's parser, which is faster
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F]")
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB]")


@dataclass(frozen=True)
class ShortLine:
    """
    A line without its long strings.

    :param content: the line, with a mark in place of each of them
    :param strings: where each long string begins and ends in the line, without its quotes, by its mark
    """

    content: bytes
    strings: dict[str, tuple[int, int]]


def shortened(line: bytes) -> ShortLine | None:
    """Return a line without its long strings; None if it has none, or is no JSON."""
    if len(line) < LONG_BYTES:
        return None

    # Random, so that no line can have a mark of its own.
    token = secrets.token_hex(16)
    strings: dict[str, tuple[int, int]] = {}
    kept: list[bytes] = []

    at = count = 0
    begin = line.find(b'"')
    while begin >= 0 and count < _MAX_STRINGS:
        end = _string_end(line, begin + 1)
        if end < 0:
            return None

        if end - begin > LONG_BYTES // 4:
            mark = f"{token}{len(strings)}"
            strings[mark] = (begin + 1, end)
            kept += [line[at : begin + 1], mark.encode()]
            at = end

        begin = line.find(b'"', end + 1)
        count += 1

    if begin >= 0 or not strings:
        return None
    return ShortLine(b"".join([*kept, line[at:]]), strings)


def long_string(line: bytes, begin: int, end: int) -> pa.Array:
    """
    Return a string of a line as an Arrow array of one text; lone surrogates become U+FFFD.

    :param begin: its first byte, behind the quote
    :param end: one past its last byte
    :raises ValueError: if it is no valid JSON string
    """
    # A character never takes more bytes than its escape.
    content, size = memoryview(bytearray(end - begin)), 0
    for piece in decoded(line, begin, end):
        encoded = _SURROGATE.sub("\ufffd", piece).encode()
        content[size : size + len(encoded)] = encoded
        size += len(encoded)

    # 32 bits are enough: no line has more than 1 GiB. pa.array() would take a Python string of the text.
    offsets = pa.array([0, size], pa.int32()).buffers()[1]
    return pa.StringArray.from_buffers(1, offsets, pa.py_buffer(content[:size]))


def decoded(line: bytes, begin: int, end: int, piece_bytes: int = _PIECE_BYTES) -> Iterator[str]:
    """
    Yield the characters of a string in pieces.

    :param piece_bytes: maximum size of a piece; at least two of the longest escapes, 24
    :raises ValueError: if it is no valid JSON string
    """
    while begin < end:
        cut = _cut(line, begin, min(begin + piece_bytes, end)) if begin + piece_bytes < end else end
        yield json.loads(b'"' + line[begin:cut] + b'"')
        begin = cut


def is_marked(record: dict[str, Any], short: ShortLine) -> bool:
    """Whether a key of a record is one of the long strings."""
    return not short.strings.keys().isdisjoint(record)


def _string_end(line: bytes, at: int) -> int:
    """Return where the quote is that ends a string; -1 if none does."""
    begin = at
    while (end := line.find(b'"', at)) >= 0:
        # Behind an odd number of backslashes, the last one escapes the quote.
        if (end - _run_start(line, begin, end)) % 2 == 0:
            return end
        at = end + 1

    return -1


def _run_start(line: bytes, lowest: int, place: int) -> int:
    """Return where the backslashes begin that end just before a place; the place itself if there are none."""
    while place > lowest and line[place - 1] == _BACKSLASH:
        place -= 1
    return place


def _cut(line: bytes, begin: int, place: int) -> int:
    """
    Return where a piece ends: at a place or a few bytes before, between two characters.

    :param begin: where the piece begins, between two characters
    """
    last = line.rfind(b"\\", max(begin, place - _ESCAPE_BYTES), place)
    if last < 0:
        while line[place] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8: not the first byte of a character
            place -= 1
        return place

    # The first of several backslashes begins an escape.
    start = _run_start(line, begin, last)
    # The whole piece may be backslashes: it ends between two pairs of them.
    if start == begin:
        return begin + (last - begin) // 2 * 2

    before = start - _ESCAPE_BYTES // 2
    if before < begin or not (_LOW_SURROGATE.match(line, start) and _HIGH_SURROGATE.match(line, before)):
        return start

    # Two surrogates are one character, unless the backslash of the first is escaped itself.
    is_pair = (before - _run_start(line, begin, before)) % 2 == 0
    if not is_pair:
        return start

    # A piece that begins with the pair has it as a whole: an empty one would go on for ever.
    return before if before > begin else begin + _ESCAPE_BYTES
