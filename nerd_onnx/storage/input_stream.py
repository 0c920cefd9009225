"""Open a file or standard input, decompress it and split it into lines; every failure is an InputError."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache
from typing import IO, cast

from nerd_onnx.errors import InputError, first_line
from nerd_onnx.interruption import stop_if_asked, waiting
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.decompression import DAMAGED_COMPRESSION, decompressed
from nerd_onnx.storage.file_info import FileInfo
from nerd_onnx.storage.hub import is_hub_id
from nerd_onnx.storage.location import STANDARD_STREAM, Location, Name
from nerd_onnx.storage.signatures import bytes_to_tell, is_compressed

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A line is in memory as a whole, and its text must be short enough for the 32-bit offsets of Arrow.
MAX_LINE_BYTES = 1 << 30
# Of a line in a compressed file, beyond 32 times the size of the file: a file of a few bytes may hold gigabytes.
MAX_GROWN_LINE_BYTES = 128 << 20
_GROWTH = 32
_DAMAGE = (*DAMAGED_COMPRESSION, OSError)
_LINE_HEAD_BYTES = 4096  # of a longer line only so much is waited for
_BUFFER_BYTES = 1 << 20
_LINES_PER_LOOK = 1 << 16  # for a signal
_REMOTE_BUFFER_BYTES = 8 << 20  # large, because each read is a request


def input_name(path: Name) -> str:
    """Return the name of an input for messages."""
    return Location.of(path).shown("standard input")


def is_stream(path: Location) -> bool:
    """Whether an input can be read only once: standard input, a pipe or a device."""
    return path.is_standard_stream or not (path.is_remote or _info(path).is_file)


def check_readable(path: Location) -> None:
    """
    Check that an input exists, may be read, and is not a folder.

    :raises InputError: if it does not, or is a closed standard input
    """
    if path.is_standard_stream:
        _standard_input()
        return

    found = _info(path)
    if found.is_folder:
        _check_listable(path)
        raise InputError(
            f"{input_name(path)}: is a folder; expected one file",
            reason="is-folder",
            file=input_name(path),
        )

    if not path.is_remote and not os.access(path, os.R_OK):
        raise InputError(
            f"{input_name(path)}: cannot be read: permission denied", reason="no-permission", file=input_name(path)
        )


def _check_listable(folder: Location) -> None:
    if folder.is_remote:
        return

    try:
        os.scandir(folder).close()
    except OSError as err:
        raise InputError(
            f"{input_name(folder)}: cannot be listed: {err.strerror}; give access to the folder, or move it elsewhere",
            reason="cannot-list",
            file=input_name(folder),
        ) from err


def read_head(path: Location, size: int) -> bytes:
    """
    Return the first bytes of an input without consuming them.

    Of standard input these are the bytes that have arrived already, but at least a line.

    :param size: maximum number of bytes
    :raises InputError: if the input cannot be read, or is a pipe or device other than standard input
    """
    if path.is_standard_stream:
        return _head(path, _standard_input())[:size]

    check_readable(path)
    if is_stream(path):
        raise InputError(
            f"{input_name(path)}: the format of a pipe or device cannot be detected; give it with --format",
            reason="unknown-format",
            file=input_name(path),
            option="--format",
        )

    with open_bytes(path) as file:
        try:
            return file.read(size)
        except OSError as err:
            raise _unreadable(path, err) from err


def open_bytes(path: Location, buffer_bytes: int | None = None) -> io.BufferedReader:
    """
    Open an input other than standard input.

    :param path: a file, or a URI
    :param buffer_bytes: size of a read; None for a size that suits reading the whole file
    :raises InputError: if it cannot be opened
    """
    try:
        file = path.open(buffer_bytes or (_REMOTE_BUFFER_BYTES if path.is_remote else _BUFFER_BYTES))
    except OSError as err:
        raise _unreadable(path, err) from err

    return io.BufferedReader(_WholeHead(file, closes=True), _BUFFER_BYTES) if is_stream(path) else file


class ByteStream(Closing):
    """
    The decompressed bytes of a file or of standard input, as lines.

    gzip, Zstandard (also with frames to skip), xz and bzip2, each also with several members, are detected by their
    first bytes, whatever the file name is.

    :param path: a file, or ``-`` for standard input
    :param line_bytes: maximum length of a line, in bytes
    :raises InputError: if it cannot be opened
    """

    def __init__(self, path: Location, line_bytes: int | None = None) -> None:
        check_readable(path)
        self.path = path
        self._line_bytes = MAX_LINE_BYTES if line_bytes is None else line_bytes
        self._advice = "raise --max-memory"
        self._raw = _standard_input() if path.is_standard_stream else open_bytes(path)
        self._size = None if is_stream(path) else _info(path).size

        try:
            self._reader = decompressed(_head(path, self._raw), self._raw)
            if self._reader is not self._raw and self._size is not None:
                self._limit_growth(self._size)
        except BaseException:
            self.close()
            raise

    def progress(self) -> float | None:
        """Return the share of the file's (compressed) bytes that was consumed, 0 to 1; None for a stream."""
        if not self._size:
            return None
        if self._raw.closed:
            return 1.0

        share = self._raw.tell() / self._size
        if self._reader is not self._raw:
            # Decompressed bytes that wait in buffers are not consumed; they may be the whole of a small file.
            share *= self._reader.tell() / max(1, self._reader.raw.tell())

        return min(1.0, share)

    def head(self, size: int) -> bytes:
        """
        Return the first decompressed bytes without consuming them: as many as have arrived, at most ``size``.

        None are returned of a file that cannot be read: :meth:`lines` raises the error, with the line.
        """
        try:
            return self._reader.peek(size)[:size]
        except _DAMAGE:
            return b""

    def lines(self, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
        """
        Yield the lines, each with its physical number (from 1) and without its line feed.

        A byte order mark before the first line is removed; a carriage return stays in its line.

        :param blank: yield blank lines too
        :raises InputError: if the compressed data is cut off or damaged, or a line is too long
        """
        number = 0
        while line := self._read_line(number):
            number += 1
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if number % _LINES_PER_LOOK == 0:
                stop_if_asked()  # lines without rows may go on for ever

            # Only the line feed: a raw line of an output keeps its carriage return.
            line = line.removesuffix(b"\n")
            if blank or line.strip():
                yield number, line

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if not self.path.is_standard_stream:
            self._raw.close()

    def _limit_growth(self, size: int) -> None:
        """Allow shorter lines in a small compressed file."""
        grown = MAX_GROWN_LINE_BYTES + _GROWTH * size
        if grown < self._line_bytes:
            self._line_bytes, self._advice = grown, "decompress the file first"

    def _read_line(self, number: int) -> bytes:
        try:
            # One byte more than allowed, to detect a longer line without reading it completely.
            line = self._reader.readline(self._line_bytes + 1)
        except DAMAGED_COMPRESSION as err:
            raise InputError(
                f"{input_name(self.path)}, after line {number}: the compressed data is cut off or damaged "
                f"({first_line(err).rstrip('.')}); create the file again",
                reason="damaged-compression",
                file=input_name(self.path),
                row=number,
            ) from err
        except OSError as err:
            raise InputError(
                f"{input_name(self.path)}, after line {number}: cannot be read: {_reason(err)}",
                reason="cannot-read",
                file=input_name(self.path),
                row=number,
            ) from err

        if len(line) > self._line_bytes:
            raise InputError(
                f"{input_name(self.path)}, line {number + 1}: is longer than {_size(self._line_bytes)}; expected one "
                f"row per line. If one row is that long, {self._advice}",
                reason="line-too-long",
                file=input_name(self.path),
                row=number + 1,
                maximum=self._line_bytes,
            )

        return line


class ReadableFile(Closing):
    """
    An input that can be opened by name more than once: a stream is copied to a temporary file.

    :param path: a file, or ``-``
    :raises InputError: if the temporary folder cannot hold the copy
    :ivar path: the file to open
    """

    def __init__(self, path: Location) -> None:
        self._copy = _spool(path) if is_stream(path) else None
        self.path = Location(self._copy.name) if self._copy else path

    def close(self) -> None:
        """Delete the temporary copy."""
        if self._copy is not None:
            self._copy.close()


def _spool(path: Location) -> IO[bytes]:
    """
    Copy a stream into a temporary file, which has a name and is deleted when it is closed.

    :raises InputError: if the temporary folder cannot hold it
    """
    copy = tempfile.NamedTemporaryFile(prefix="nerd-", suffix=".input")  # noqa: SIM115 - the caller closes it
    try:
        # Standard input stays open: it belongs to the process.
        opened = nullcontext(_standard_input()) if path.is_standard_stream else open_bytes(path)
        with opened as source:
            shutil.copyfileobj(source, copy, _BUFFER_BYTES)
        copy.flush()
    except OSError as err:
        copy.close()
        raise InputError(
            f"{input_name(path)}: cannot be copied to {tempfile.gettempdir()}: {_reason(err)}; set TMPDIR to a folder "
            "with free space, or give a file",
            reason="cannot-buffer",
            file=input_name(path),
            folder=tempfile.gettempdir(),
        ) from err
    except BaseException:
        copy.close()
        raise

    return cast("IO[bytes]", copy)


def _size(size: int) -> str:
    return "1 GiB" if size == 1 << 30 else f"{size / 1e6:.1f} MB"


def _info(path: Location) -> FileInfo:
    try:
        return path.info()
    except FileNotFoundError as err:
        # The name of a data set on the hub, such as owner/name, looks like a path.
        advice = (
            f"; a data set of the hub is hf://datasets/{path}"
            if is_hub_id(path.text) and path.text.count("/") == 1
            else ""
        )
        raise InputError(
            f"{input_name(path)}: no such file{advice}", reason="missing-file", file=input_name(path)
        ) from err
    except (OSError, ValueError) as err:
        raise _unreadable(path, err) from err


def _unreadable(path: Location, err: Exception) -> InputError:
    return InputError(
        f"{input_name(path)}: cannot be read: {_reason(err)}", reason="cannot-read", file=input_name(path)
    )


def _standard_input() -> io.BufferedReader:
    if sys.stdin is None or sys.stdin.closed:
        raise InputError(
            f"{input_name(STANDARD_STREAM)}: is closed; leave it open, or give a file name",
            reason="closed-stream",
            file=input_name(STANDARD_STREAM),
        )

    return _with_whole_head(cast("io.BufferedReader", sys.stdin.buffer))


@lru_cache(maxsize=1)
def _with_whole_head(stdin: io.BufferedReader) -> io.BufferedReader:
    """Return the same reader on each call, so that bytes which one caller peeked at are there for the next."""
    return io.BufferedReader(_WholeHead(stdin, closes=False), _BUFFER_BYTES)


def _reason(err: Exception) -> str:
    return (isinstance(err, OSError) and err.strerror) or first_line(err)


def _head(path: Location, reader: io.BufferedReader) -> bytes:
    try:
        return reader.peek(1)
    except OSError as err:
        raise _unreadable(path, err) from err


def _tells_format(head: bytes) -> bool:
    """Whether the first bytes of a stream are enough to detect its format: a whole line, unless it is compressed."""
    if len(head) < bytes_to_tell(head):
        return False

    # Compressed bytes have no lines, and waiting for more of them could delay rows that are complete.
    return is_compressed(head) or len(head) >= _LINE_HEAD_BYTES or b"\n" in head.removeprefix(BYTE_ORDER_MARK).lstrip()


class _WholeHead(io.RawIOBase):
    """A stream whose first read returns enough bytes to detect its format, even if the writer sends single bytes."""

    def __init__(self, source: io.BufferedReader, *, closes: bool) -> None:
        self._source = source
        self._closes = closes
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        view = memoryview(buffer)

        # A piece of 0 bytes is the end, or a buffer without room.
        size = piece = self._read(view)
        while piece and not self._begun and not _tells_format(bytes(view[:size])):
            piece = self._read(view[size:])
            size += piece

        self._begun = True
        return size

    def close(self) -> None:
        if self._closes:
            self._source.close()
        super().close()

    def _read(self, view: memoryview) -> int:
        # What has arrived: readinto() would wait until the view is full, and complete rows would wait with it.
        with waiting():
            size: int | None = self._source.readinto1(view)

        if size is None:  # no bytes available yet, which the buffered reader would take for the end of the file
            raise BlockingIOError(errno.EAGAIN, "it has no more without waiting; open it in blocking mode")
        return size
