"""Compress an output as a whole, by the suffix of its name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from typing import IO, cast

from nerd_onnx.storage.location import Location

_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_XZ_PRESET = 3  # takes 32 MiB of memory; 6, the default of xz, 94
_BZIP2_LEVEL = 9


def _gzip(file: IO[bytes]) -> IO[bytes]:
    # Without a name and a time, so that the same rows always give the same bytes.
    return cast("IO[bytes]", gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0))


def _zstd(file: IO[bytes]) -> IO[bytes]:
    import zstandard  # --help reads the names of the compressions, and does not compress

    return cast("IO[bytes]", zstandard.ZstdCompressor(_ZSTD_LEVEL).stream_writer(file, closefd=False))


def _xz(file: IO[bytes]) -> IO[bytes]:
    import lzma

    return cast("IO[bytes]", lzma.LZMAFile(file, "wb", preset=_XZ_PRESET))


def _bzip2(file: IO[bytes]) -> IO[bytes]:
    import bz2

    return cast("IO[bytes]", bz2.BZ2File(file, "wb", compresslevel=_BZIP2_LEVEL))


_COMPRESSORS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {".gz": _gzip, ".zst": _zstd, ".xz": _xz, ".bz2": _bzip2}
COMPRESSIONS = tuple(_COMPRESSORS)  # the suffixes


class CompressedTarget:
    """
    A file whose content is compressed if its name has the suffix of a compression.

    :param path: decides the compression
    :param file: the file to write to; it stays open
    :ivar file: write the content here
    """

    def __init__(self, path: Location, file: IO[bytes]) -> None:
        compressor = _COMPRESSORS.get((path.suffixes or [""])[-1])
        self._is_compressed = compressor is not None
        self.file = file if compressor is None else compressor(file)

    def finish(self) -> None:
        """
        Write the end of the compressed data.

        :raises OSError: if it cannot be written
        """
        if self._is_compressed:
            self.file.close()

    def release(self) -> None:
        """Let go of the compressor, in any state and without an exception."""
        # A compressor that failed raises its own error again, of a class that depends on the compression.
        with suppress(Exception):
            self.finish()
