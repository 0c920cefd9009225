"""Decompress an input by its first bytes: gzip, Zstandard, xz and bzip2, with any number of members."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from abc import abstractmethod
from collections.abc import Callable
from typing import IO, cast

import zstandard

from nerd_onnx.storage.signatures import is_bzip2, is_gzip, is_xz, is_zstd

MAX_ZSTD_WINDOW_BYTES = 1 << 31  # as `zstd --long=31` writes; only files with such a window take the memory
MAX_XZ_BYTES = 1 << 31  # of memory; `xz -9` needs 65 MiB
_READ_BYTES = 1 << 15
_ZSTD_READ_BYTES = 1 << 12  # decompressed at once, to 128 MiB at most: four bytes may be a block of 128 KiB
_BUFFER_BYTES = 1 << 20


class DamagedStreamError(Exception):
    """Data of bzip2 is damaged. The module bz2 raises an OSError, like a disk that cannot be read."""


DAMAGED_COMPRESSION = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    zstandard.ZstdError,
    lzma.LZMAError,
    DamagedStreamError,
)


def decompressed(head: bytes, raw: io.BufferedReader) -> io.BufferedReader:
    """
    Return the decompressed bytes of a reader; the reader itself if it is not compressed.

    Reading raises one of :data:`DAMAGED_COMPRESSION` if the data is cut off or damaged, or other bytes follow.

    :param head: the first bytes, not consumed
    """
    # pyarrow.CompressedInputStream would be shorter. Tried: it reads several members or frames, and raises an error for
    # cut streams and for other bytes after the end. But it refuses Zstandard windows over 128 MiB (`zstd --long=28` and
    # more), and gzip files padded with zeros, which both can be read today. It does not know xz.
    if is_gzip(head):
        # GzipFile can be read like a raw file, but its type is that of a buffered one.
        return io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=raw)), _BUFFER_BYTES)
    if is_zstd(head):
        return io.BufferedReader(_ZstdReader(raw), _BUFFER_BYTES)
    if is_xz(head):
        return io.BufferedReader(_StreamsReader(raw, _xz_stream, padding=b"\0"), _BUFFER_BYTES)
    if is_bzip2(head):
        return io.BufferedReader(_StreamsReader(raw, bz2.BZ2Decompressor), _BUFFER_BYTES)
    return raw


class _MembersReader(io.RawIOBase):
    """
    A reader of decompressed bytes; a subclass decompresses the next piece.

    After damage, every read raises the same error: decompressors say different things when they are used again.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._ready = memoryview(b"")
        self._read = 0
        self._damage: Exception | None = None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        """Return the number of decompressed bytes that were read."""
        return self._read

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        if self._damage is not None:
            raise self._damage

        # A piece may be empty, and 0 bytes would be the end of the file to the buffered reader.
        try:
            while not self._ready:
                if not self._advance():
                    return 0
        except DAMAGED_COMPRESSION as err:
            self._damage = err
            raise

        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        self._read += size
        return size

    @abstractmethod
    def _advance(self) -> bool:
        """Set ``_ready`` to the next piece, which may be empty; return False at a proper end."""


class _ZstdReader(_MembersReader):
    """Decompresses consecutive Zstandard frames; unlike in the reader of ``zstandard``, a cut frame is an error."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__(raw)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._rest = b""

    def _advance(self) -> bool:
        piece = self._rest or self._raw.read(_ZSTD_READ_BYTES)
        self._rest = b""

        if not piece:
            if self._frame is not None:
                raise EOFError("the last Zstandard frame has no end")
            return False

        self._frame = self._frame or self._decompressor.decompressobj()
        self._ready = memoryview(self._frame.decompress(piece))
        if self._frame.eof:
            self._rest = self._frame.unused_data
            self._frame = None

        return True


_Decompressor = lzma.LZMADecompressor | bz2.BZ2Decompressor


def _xz_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_BYTES)


class _StreamsReader(_MembersReader):
    """
    Decompresses consecutive streams of xz or bzip2 in bounded memory.

    Unlike in :class:`lzma.LZMAFile` and :class:`bz2.BZ2File`, other bytes after a stream are an error.

    :param new: returns a decompressor of one stream
    :param padding: the bytes that may follow a stream
    """

    def __init__(self, raw: IO[bytes], new: Callable[[], _Decompressor], padding: bytes = b"") -> None:
        super().__init__(raw)
        self._new = new
        self._padding = padding
        self._stream: _Decompressor | None = None
        self._rest = b""

    def _advance(self) -> bool:
        # The last call gave as much as it may, and the decompressor has more of the same piece.
        if self._stream is not None and not self._stream.needs_input:
            return self._decompress(self._stream, b"")

        piece = self._rest or self._raw.read(_READ_BYTES)
        self._rest = b""

        if not piece:
            if self._stream is not None:
                raise EOFError("the last stream has no end")
            return False

        if self._stream is None:
            piece = piece.lstrip(self._padding)
            # Padding goes on in the next piece, or to the end of the file.
            if not piece:
                return True
            self._stream = self._new()

        return self._decompress(self._stream, piece)

    def _decompress(self, stream: _Decompressor, piece: bytes) -> bool:
        # With a limit, because a few bytes may stand for gigabytes.
        try:
            self._ready = memoryview(stream.decompress(piece, _BUFFER_BYTES))
        except OSError as err:
            raise DamagedStreamError(str(err)) from err

        if stream.eof:
            self._rest = stream.unused_data
            self._stream = None

        return True
