"""Numbers in pages of Parquet that headers do not tell: how many values a row has, and how many lengths texts have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nerd_onnx.formats.parquet.thrift import varint

_LEAST_BLOCK = 32  # differences; pyarrow reads no shorter ones


def level_bytes(data: bytes, at: int, maximum: int) -> tuple[bytes, int]:
    """
    Return the levels that begin at an offset of a page of version 1, and where they end.

    :param maximum: the maximum level; with 0 there are none
    """
    if not maximum:
        return b"", at
    size = int.from_bytes(data[at : at + 4], "little")
    return data[at + 4 : at + 4 + size], at + 4 + size


class RowSizes:
    """
    Sizes of the rows of a column with lists, of which pages say only how many values and bytes all have.

    :ivar values: at least the number of values of the largest row so far; packed levels are only counted, so it may be
        larger by as many values as lie in a run of these
    :ivar size: bytes of the row that takes the most so far: an average of its page, or all its pages if it has several
    """

    def __init__(self) -> None:
        self.values = self.size = 1
        self._open_values = self._open_size = 0  # of the last row, which may go on

    def add(self, levels: bytes, values: int, maximum: int, size: int) -> None:
        """
        Add a page.

        :param levels: its repetition levels, of which 0 begins a row
        :param values: number of its values
        :param maximum: the maximum repetition level
        :param size: its bytes, decompressed
        """
        rows = 0
        for begun, count in _runs(levels, values, maximum.bit_length()):
            rows += begun
            self.values = max(self.values, self._open_values + count - begun)
            self._open_values = count - begun + 1 if begun else self._open_values + count

        average = size // max(1, rows)
        self.size = max(self.size, average, 0 if rows else self._open_size + size)
        self._open_size = average if rows else self._open_size + size


def lengths_claimed(data: bytes, at: int, *, with_prefixes: bool) -> int:
    """
    Return the number of lengths of texts that a page says to have; pyarrow takes the memory for all at once.

    :param at: where its values begin
    :param with_prefixes: whether a text begins like the one before; such pages have two lengths for each text
    :raises IndexError: if they are cut off
    :raises ValueError: if they are damaged
    """
    count, end = _deltas(data, at)
    return max(count, _deltas(data, end)[0]) if with_prefixes else count


def _runs(levels: bytes, values: int, width: int) -> Iterator[tuple[int, int]]:
    """
    Yield runs of levels: how many of them are 0, and how many there are.

    :param width: bits of a level
    """
    at, size = 0, -(-width // 8)
    while values > 0 and at < len(levels):
        head, at = varint(levels, at)
        if not head & 1:
            count = min(values, head >> 1)
            yield 0 if any(levels[at : at + size]) else count, count
            at += size
        else:
            count = min(values, (head >> 1) * 8)
            packed = levels[at : at + -(-count * width // 8)]
            yield count - _not_zero(packed, count, width), count
            at += (head >> 1) * width
        values -= count


def _not_zero(packed: bytes, count: int, width: int) -> int:
    """Return how many of packed levels are not 0."""
    if width == 1:  # bits behind the last level count as none
        return (int.from_bytes(packed, "little") & (1 << count) - 1).bit_count()
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    levels = bits[: len(bits) // width * width].reshape(-1, width)[:count]
    return int(np.count_nonzero(np.bitwise_or.reduce(levels, axis=1)))


def _deltas(data: bytes, at: int) -> tuple[int, int]:
    """Return how many integers are stored at an offset as differences, and where they end."""
    block, at = varint(data, at)
    parts, at = varint(data, at)
    total, at = varint(data, at)
    _, at = varint(data, at)

    if block < _LEAST_BLOCK or not 0 < parts <= block:
        raise ValueError("its lengths are damaged")
    rest = total - 1
    while rest > 0:
        _, at = varint(data, at)
        widths = data[at : at + parts]
        at += parts
        for width in widths[: -(-min(rest, block) * parts // block)]:
            at += width * (block // parts) // 8
        rest -= block
    return total, at
