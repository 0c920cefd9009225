"""Where an output is to go: named, checked before any work, its refusals in one line each."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO, cast

import pyarrow as pa

from nerd_onnx.errors import ExistsError, OutputError, first_line
from nerd_onnx.tables import stores
from nerd_onnx.tables.rows import STANDARD_STREAM, shown

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def output_name(path: str) -> str:
    """Name an output for a message."""
    return shown(path, "standard output")


@contextmanager
def output_errors(path: str) -> Iterator[None]:
    """
    Turn what the system or pyarrow refuses into one line about the output.

    A closed pipe stays a ``BrokenPipeError``: its reader has seen enough, which is nobody's mistake.

    :raises OutputError: in place of ``OSError`` and ``ArrowException``
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as err:
        raise OutputError(f"{output_name(path)}: {_refusal(err)}") from err
    except pa.ArrowException as err:
        raise OutputError(f"{output_name(path)}: cannot be written: {first_line(err)}") from err


def check_output(input_path: str, output_path: str, overwrite: bool) -> None:  # noqa: FBT001 - the option's name
    """
    Check, before any work, that an output may be written.

    :raises OutputError: when it is the input (through links and shell redirections too), exists and ``overwrite`` is
        off, is a folder, its folder is missing or may not be written to, or it is a closed standard output
    """
    with output_errors(output_path):
        if output_path == STANDARD_STREAM:
            standard_output()  # refuses a closed one
            found = _stream_stat(sys.stdout)
        else:
            found = find(output_path)
        if found is not None and not is_device(found) and _is_input(found, input_path, output_path):
            raise OutputError(f"{output_name(output_path)}: is the input itself; give the output another name")
        if output_path != STANDARD_STREAM:
            check_place(output_path, found, overwrite=overwrite)
            _check_store(output_path)


class _FullWrites(io.RawIOBase):
    """Standard output where it has no buffer: a write there may take a part of the bytes and say so only in passing."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        rest = memoryview(data)
        while rest:
            written = self._raw.write(rest)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "standard output takes no more without waiting")
            rest = rest[written:]
        return len(data)


def standard_output() -> IO[bytes]:
    """
    Give the bytes of standard output.

    :raises OutputError: when it is closed
    """
    if sys.stdout is None or sys.stdout.closed:
        raise OutputError(f"{output_name(STANDARD_STREAM)}: is closed; leave it open, or give a file name")
    stream: Any = sys.stdout.buffer
    return cast("IO[bytes]", _FullWrites(stream)) if isinstance(stream, io.RawIOBase) else stream


def find(path: str) -> os.stat_result | None:
    """Tell what stands at a path or URI; None where there is nothing."""
    try:
        return stores.find(path)
    except FileNotFoundError:
        return None


def _stream_stat(stream: TextIO | None) -> os.stat_result | None:
    """Tell what file a standard stream is; None where it is closed or was put in place by the program."""
    if stream is None or stream.closed:
        return None
    with suppress(OSError):
        return os.fstat(stream.fileno())
    return None


def _is_input(found: os.stat_result, input_path: str, output_path: str) -> bool:
    if stores.is_uri(input_path) or stores.is_uri(output_path):
        return stores.same(input_path, output_path)
    with suppress(OSError):  # what is wrong with the input is said when it is opened
        source = _stream_stat(sys.stdin) if input_path == STANDARD_STREAM else os.stat(input_path)
        return source is not None and os.path.samestat(source, found)
    return False


def is_device(found: os.stat_result) -> bool:
    """Tell a pipe or device: neither file nor folder."""
    return not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode)


def check_place(path: str, found: os.stat_result | None, *, overwrite: bool) -> None:
    """
    Check that a file may be made, or replaced, at a path.

    :param found: what stands there
    :raises ExistsError: when a file is there, and ``overwrite`` is off
    :raises OutputError: when it may not for another reason
    """
    name = output_name(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{name}: is a directory; give a file name")
    if found is not None and is_device(found):
        return
    if found is not None and not overwrite:
        raise ExistsError(f"{name}: exists already; give another name, or --overwrite")
    if stores.is_uri(path):
        return
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise OutputError(f"{name}: there is no folder {output_name(folder)}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{name}: permission denied to write into {output_name(folder)}")


def make_folder_for(path: str) -> None:
    """
    Make the folder that an output is to lie in; stores have none.

    :raises OutputError: when the system refuses
    """
    if not stores.is_uri(path):
        with output_errors(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)


def _check_store(uri: str) -> None:
    """Check that a store takes files; where the output is here, there is nothing to check."""
    if not stores.is_writable(uri):
        raise OutputError(f"{output_name(uri)}: can only be read; write to a file, or to another store")
    if stores.is_uri(uri) and not stores.has_bucket(uri):
        raise OutputError(f"{output_name(uri)}: there is no such bucket; make it first")


def _refusal(err: OSError) -> str:
    if err.errno in _DISK_FULL:
        return "the disk is full; make room, or write elsewhere"
    if err.errno == errno.EFBIG:
        return "larger than files may be here; raise the limit (ulimit -f), or write elsewhere"
    return f"cannot be written: {err.strerror or first_line(err)}"
