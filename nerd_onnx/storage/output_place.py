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
from nerd_onnx.storage import location, remote
from nerd_onnx.storage.location import STANDARD_STREAM, shown

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
        raise _refusal(output_name(path), err) from err
    except pa.ArrowException as err:
        raise OutputError(
            f"{output_name(path)}: cannot be written: {first_line(err)}", reason="cannot-write", file=output_name(path)
        ) from err


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
            raise OutputError(
                f"{output_name(output_path)}: is also the input; give the output another name",
                reason="output-is-input",
                file=output_name(output_path),
            )
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
        raise OutputError(
            f"{output_name(STANDARD_STREAM)}: is closed; leave it open, or give a file name",
            reason="closed-stream",
            file=output_name(STANDARD_STREAM),
        )
    stream: Any = sys.stdout.buffer
    return cast("IO[bytes]", _FullWrites(stream)) if isinstance(stream, io.RawIOBase) else stream


def find(path: str) -> os.stat_result | None:
    """Tell what stands at a path or URI; None where there is nothing."""
    try:
        return remote.find(path)
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
    if location.is_uri(input_path) or location.is_uri(output_path):
        return location.same(input_path, output_path)
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
        raise OutputError(f"{name}: is a folder; give a file name", reason="is-folder", file=name)
    if found is not None and is_device(found):
        return
    if found is not None and not overwrite:
        raise ExistsError(
            f"{name}: already exists; give another name, or replace it with --overwrite",
            reason="output-exists",
            file=name,
        )
    if location.is_uri(path):
        return
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise OutputError(
            f"{name}: the folder {output_name(folder)} does not exist; create it first",
            reason="missing-folder",
            file=name,
            folder=output_name(folder),
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{name}: no permission to write into the folder {output_name(folder)}",
            reason="no-permission",
            file=name,
            folder=output_name(folder),
        )


def make_folder_for(path: str) -> None:
    """
    Make the folder that an output is to lie in; stores have none.

    :raises OutputError: when the system refuses
    """
    if not location.is_uri(path):
        with output_errors(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)


def _check_store(uri: str) -> None:
    """Check that a store takes files; where the output is here, there is nothing to check."""
    if not remote.is_writable(uri):
        raise OutputError(
            f"{output_name(uri)}: this remote storage is read-only; write to a file, or to other remote storage",
            reason="read-only-storage",
            file=output_name(uri),
        )
    if location.is_uri(uri) and not remote.has_bucket(uri):
        raise OutputError(
            f"{output_name(uri)}: the bucket does not exist; create it first",
            reason="missing-bucket",
            file=output_name(uri),
        )


def _refusal(name: str, err: OSError) -> OutputError:
    if err.errno in _DISK_FULL:
        return OutputError(
            f"{name}: the disk is full; free some space, or write to another place", reason="disk-full", file=name
        )
    if err.errno == errno.EFBIG:
        return OutputError(
            f"{name}: is larger than a file may be here; raise the limit (ulimit -f), or write to another place",
            reason="file-too-large",
            file=name,
        )
    return OutputError(
        f"{name}: cannot be written: {err.strerror or first_line(err)}", reason="cannot-write", file=name
    )
