"""
The messages of Arrow IPC: where they are, and what they say of their record batches without reading these.

pyarrow reads the batches. It does not tell how they are compressed, how large they are, or whether a stream has its
end, so the little of the format's flatbuffers that says so is read here. What is read is verified again by pyarrow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, Any

FILE_MAGIC = b"ARROW1"
_FILE_START = 8  # bytes: the magic bytes, padded
_FILE_END = struct.Struct("<i6s")  # length of the footer, magic bytes
_PREFIX_BYTES = 8  # before the metadata of a message
_CONTINUATION = -1  # before the length of a message; programs before 2019 did not write it
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # values of _MessageField.HEADER_TYPE
_CODECS = {0: "lz4", 1: "zstd"}  # BodyCompression.codec
_BLOCK = struct.Struct("<qixxxxq")  # Block in a footer: offset, bytes before the body, bytes of the body
_BUFFER = struct.Struct("<qq")  # Buffer of a record batch: its place in the body, and its length
# Before a compressed buffer: its bytes when it is decompressed, or -1 if it is not compressed.
_LENGTH = struct.Struct("<q")
MAX_METADATA_BYTES = 64 << 20  # of one message, or a footer
MAX_GROWTH_BYTES = 256 << 20  # of a record batch, beyond 32 times its bytes in the file
_GROWTH = 32


# The numbers of fields: their places in Message.fbs and File.fbs, where a union takes two.
class _MessageField:
    """Fields of ``Message``."""

    HEADER_TYPE, HEADER, BODY_LENGTH = 1, 2, 3


class _BatchField:
    """Fields of ``RecordBatch`` and of its ``BodyCompression``."""

    LENGTH, BUFFERS, COMPRESSION = 0, 2, 3
    CODEC = 0


class _DictionaryField:
    """Fields of ``DictionaryBatch``."""

    BATCH = 1


class _FooterField:
    """Fields of ``Footer``."""

    DICTIONARIES, RECORD_BATCHES = 2, 3


class DamagedError(Exception):
    """The messages cannot be found."""


@dataclass(frozen=True)
class Contents:
    """
    What the messages of a file or stream say.

    :param is_stream: whether it is a stream, without a footer
    :param codec: compression of the first record batch, ``lz4`` or ``zstd``; None without
    :param rows: number of rows
    :param largest: bytes of the largest record batch, as it is in the file
    """

    is_stream: bool = False
    codec: str | None = None
    rows: int = 0
    largest: int = 0

    def with_batch(self, batch: _Table, size: int) -> Contents:
        """Return the contents with one more record batch. ``size`` is that of its body, in bytes."""
        compression = batch.table(_BatchField.COMPRESSION)
        codec = None if compression is None else _CODECS.get(compression.integer(_BatchField.CODEC, "b"))
        return replace(
            self,
            # Of the first batch that has rows: an empty one need not be compressed.
            codec=self.codec if self.rows or self.largest else codec,
            rows=self.rows + batch.integer(_BatchField.LENGTH, "q"),
            largest=max(self.largest, size),
        )


def contents_of(file: IO[bytes], size: int, *, all_batches: bool) -> Contents:
    """
    Read what the messages say, and check that the last one is complete.

    :param file: a file or stream of Arrow IPC that can seek
    :param size: its size, in bytes
    :param all_batches: whether to look at all record batches; else only at the first one and the end, which takes few
        requests
    :raises DamagedError: if the file is cut off or damaged; its text says how
    """
    try:
        head = _read(file, 0, min(size, _FILE_START))
        is_file = head.startswith(FILE_MAGIC)
        # Otherwise all messages of a stream are read up to its end.
        if not (is_file or all_batches):
            _check_end(file, size)

        found = Contents(is_stream=not is_file)
        for message, begin, length in _file_messages(file, size) if is_file else _stream_messages(file, size):
            # A stream has its schema in a message too.
            kind, batch = message.integer(_MessageField.HEADER_TYPE, "B"), message.table(_MessageField.HEADER)
            if batch is not None and kind == _DICTIONARY_BATCH:
                batch = batch.table(_DictionaryField.BATCH)
            if batch is None or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
                continue

            if batch.table(_BatchField.COMPRESSION) is not None:
                _check_growth(file, batch, begin, length)
            if kind == _RECORD_BATCH:
                found = found.with_batch(batch, length)
                if not all_batches:
                    break
    except (struct.error, IndexError) as err:
        raise DamagedError("the description of a record batch is damaged") from err

    return found


def _check_growth(file: IO[bytes], batch: _Table, begin: int, size: int) -> None:
    """
    Check, before pyarrow takes the memory, how large the buffers of a record batch are when they are decompressed.

    :param begin: where its body begins in the file
    :param size: bytes of its body
    """
    total = 0
    for place, length in batch.structs(_BatchField.BUFFERS, _BUFFER):
        if length >= _LENGTH.size and 0 <= place <= size - length:
            total += max(length, _LENGTH.unpack(_read(file, begin + place, _LENGTH.size))[0])
    if total > MAX_GROWTH_BYTES + _GROWTH * size:
        raise DamagedError(
            f"a record batch has {size} bytes, and {total // 10**6} MB when it is decompressed. If that is right, "
            "write it again in smaller batches, or without compression"
        )


def _file_messages(file: IO[bytes], size: int) -> Iterator[tuple[_Table, int, int]]:
    """Yield the messages with dictionaries and record batches of a file, each with the place and size of its body."""
    if size < _FILE_START + _FILE_END.size:
        raise DamagedError("it is cut off")

    length, magic = _FILE_END.unpack(_read(file, size - _FILE_END.size, _FILE_END.size))
    if magic != FILE_MAGIC:
        raise DamagedError("it is cut off: the footer is missing at its end")
    if not 0 < length <= min(MAX_METADATA_BYTES, size - _FILE_START - _FILE_END.size):
        raise DamagedError("its footer is damaged")

    footer = _Table.root(_read(file, size - _FILE_END.size - length, length))
    dictionaries = footer.structs(_FooterField.DICTIONARIES, _BLOCK)
    for offset, before, body in chain(dictionaries, footer.structs(_FooterField.RECORD_BATCHES, _BLOCK)):
        if offset < _FILE_START or before < _PREFIX_BYTES or body < 0 or offset + before + body > size:
            raise DamagedError("its footer names a record batch that is not in the file")

        begin, metadata = _prefix(file, offset)
        yield _Table.root(_metadata(file, begin, metadata, size)), offset + before, body


def _stream_messages(file: IO[bytes], size: int) -> Iterator[tuple[_Table, int, int]]:
    """Yield all messages of a stream, each with the place and size of its body."""
    at = 0
    while True:
        begin, length = _prefix(file, at)
        if length == 0:
            break

        message = _Table.root(_metadata(file, begin, length, size))
        body = message.integer(_MessageField.BODY_LENGTH, "q")
        at = begin + length + body
        # A negative length would lead back, and the loop would not end.
        if body < 0 or at > size:
            raise DamagedError("it is cut off")
        yield message, at - body, body

    if begin != size:
        raise DamagedError(f"{size - begin} bytes follow its end; several streams in one file are not read")


def _check_end(file: IO[bytes], size: int) -> None:
    """Check that a stream has the mark of its end: a message without metadata, with a prefix like that of the first."""
    prefix = _prefix(file, 0)[0]
    if size < prefix or _prefix(file, size - prefix) != (size, 0):
        raise DamagedError("it is cut off: the mark of its end is missing")


def _prefix(file: IO[bytes], at: int) -> tuple[int, int]:
    """Return where the metadata of a message begins, and its length; 0 at the end of a stream."""
    (length,) = struct.unpack("<i", _read(file, at, 4))
    if length != _CONTINUATION:
        return at + 4, length
    return at + 8, struct.unpack("<i", _read(file, at + 4, 4))[0]


def _metadata(file: IO[bytes], at: int, length: int, size: int) -> bytes:
    # Before the bytes are read: a damaged length may be 2 GiB.
    if not 0 < length <= MAX_METADATA_BYTES or at + length > size:
        raise DamagedError("it is cut off, or a message in it is damaged")
    return _read(file, at, length)


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    content = file.read(size)
    if len(content) < size:
        raise DamagedError("it is cut off: the mark of its end is missing")
    return content


@dataclass(frozen=True)
class _Table:
    """
    A table of a flatbuffer.

    :param content: the flatbuffer
    :param at: where the table begins
    """

    content: bytes
    at: int

    @classmethod
    def root(cls, content: bytes) -> _Table:
        """Return the table that a flatbuffer is."""
        return cls(content, _unpacked("I", content, 0))

    def integer(self, number: int, kind: str) -> int:
        """Return a field that is a number, 0 by default. ``kind`` is its letter in :mod:`struct`."""
        place = self._place(number)
        return 0 if place is None else _unpacked(kind, self.content, place)

    def table(self, number: int) -> _Table | None:
        """Return a field that is a table; None without it."""
        place = self._place(number)
        return None if place is None else _Table(self.content, place + _unpacked("I", self.content, place))

    def structs(self, number: int, kind: struct.Struct) -> Iterator[tuple[Any, ...]]:
        """Yield the members of a field that is a vector of structs."""
        place = self._place(number)
        if place is None:
            return

        vector = place + _unpacked("I", self.content, place)
        for i in range(_unpacked("I", self.content, vector)):
            yield kind.unpack_from(self.content, vector + 4 + i * kind.size)

    def _place(self, number: int) -> int | None:
        """Return where a field is; None without it."""
        # A table begins with the distance back to its list of fields. That one has its own size and the size of the
        # table, of two bytes each, then the offset of each field in the table; 0 for a field that is not there.
        fields = self.at - _unpacked("i", self.content, self.at)
        entry = 4 + 2 * number
        # Older programs know fewer fields.
        if entry >= _unpacked("H", self.content, fields):
            return None

        offset = _unpacked("H", self.content, fields + entry)
        return self.at + offset if offset else None


def _unpacked(kind: str, content: bytes, at: int) -> int:
    # A negative offset would count from the end.
    if at < 0:
        raise IndexError(at)
    number: int = struct.unpack_from(f"<{kind}", content, at)[0]
    return number
