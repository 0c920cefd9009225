"""Check before any work that an output may be written, and turn errors of the system into one-line messages."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO, cast

import pyarrow as pa

from nerd_onnx.errors import ExistsError, OutputError, first_line
from nerd_onnx.storage import remote
from nerd_onnx.storage.file_info import FileInfo
from nerd_onnx.storage.location import STANDARD_STREAM, Location, Name

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def output_name(path: Name) -> str:
    """Return the name of an output for messages."""
    return Location.of(path).shown("standard output")


@contextmanager
def output_errors(path: Name) -> Iterator[None]:
    """
    Turn errors of the system and of pyarrow into a one-line message about the output.

    A closed pipe stays a ``BrokenPipeError``: its reader wants no more, which is not an error.

    :raises OutputError: instead of ``OSError`` and ``ArrowException``
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


def check_output(source: Location, output: Location, *, overwrite: bool) -> None:
    """
    Check, before any work, that an output may be written.

    :raises OutputError: if it is the input (also through links or shell redirections), exists and may not be
        overwritten, is a folder or a closed standard output, or if its folder is missing or not writable
    """
    with output_errors(output):
        if output.is_standard_stream:
            standard_output()  # raises an error if it is closed
            found = _stream_info(sys.stdout)
        else:
            found = output.info_if_any()

        # A device, such as a terminal, can be input and output at the same time.
        if found is not None and not found.is_device and _is_input(found, source, output):
            raise OutputError(
                f"{output_name(output)}: is also the input; give the output another name",
                reason="output-is-input",
                file=output_name(output),
            )

        if not output.is_standard_stream:
            check_place(output, found, overwrite=overwrite)
            _check_remote(output)


class _FullWrites(io.RawIOBase):
    """Standard output without a buffer (``python -u``), where a single write may take only a part of the bytes."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        rest = memoryview(data)
        while rest:
            written = self._raw.write(rest)
            # None stands for a full pipe whose other end asked not to wait.
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "standard output takes no more without waiting")
            rest = rest[written:]

        return len(data)


def standard_output() -> IO[bytes]:
    """
    Return standard output as a binary file.

    :raises OutputError: if it is closed
    """
    if sys.stdout is None or sys.stdout.closed:
        raise OutputError(
            f"{output_name(STANDARD_STREAM)}: is closed; leave it open, or give a file name",
            reason="closed-stream",
            file=output_name(STANDARD_STREAM),
        )

    stream: Any = sys.stdout.buffer
    return cast("IO[bytes]", _FullWrites(stream)) if isinstance(stream, io.RawIOBase) else stream


def is_terminal(path: Location) -> bool:
    """Whether an output is standard output and that is a terminal."""
    stream = sys.stdout
    return path.is_standard_stream and stream is not None and not stream.closed and stream.isatty()


def is_pipe(path: Location) -> bool:
    """Whether an output is standard output, a pipe or another device: what is written to it cannot be changed later."""
    if path.is_standard_stream:
        return True
    if path.is_remote:
        return False

    with suppress(OSError):
        found = path.info_if_any()
        return found is not None and found.is_device

    return False


def _stream_info(stream: TextIO | None) -> FileInfo | None:
    """Return what a standard stream is connected to; None if it is closed or not a file of the system."""
    if stream is None or stream.closed:
        return None
    with suppress(OSError):
        return FileInfo.of_stat(os.fstat(stream.fileno()))
    return None


def _is_input(found: FileInfo, source: Location, output: Location) -> bool:
    if source.is_remote or output.is_remote:
        return source.is_same(output)
    with suppress(OSError):  # errors of the input are reported when it is opened
        read = _stream_info(sys.stdin) if source.is_standard_stream else source.info()
        return read is not None and found.is_same_file(read)

    return False


def check_place(path: Location, found: FileInfo | None, *, overwrite: bool) -> None:
    """
    Check that a file may be created, or replaced, at a path.

    :param found: facts about the existing file or folder; None if there is none
    :raises ExistsError: if a file exists and may not be overwritten
    :raises OutputError: if the file may not be written for another reason
    """
    name = output_name(path)
    if found is not None and found.is_folder:
        raise OutputError(f"{name}: is a folder; give a file name", reason="is-folder", file=name)
    if found is not None and found.is_device:
        return

    if found is not None and not overwrite:
        raise ExistsError(
            f"{name}: already exists; give another name, or replace it with --overwrite",
            reason="output-exists",
            file=name,
        )

    if path.is_remote:
        return

    # The folder of the file that a link leads to: it is this file that is replaced.
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise OutputError(
            f"{name}: the folder {output_name(folder)} does not exist; create it first",
            reason="missing-folder",
            file=name,
            folder=output_name(folder),
        )

    # Of the folder alone: a rename replaces the file, whatever the file's own permissions are.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{name}: no permission to write into the folder {output_name(folder)}",
            reason="no-permission",
            file=name,
            folder=output_name(folder),
        )


def make_folder_for(path: Location) -> None:
    """
    Create the folder of an output, if it is a local file: remote storage needs no folders.

    :raises OutputError: if the folder cannot be created
    """
    if not path.is_remote:
        with output_errors(path):
            os.makedirs(path.parent, exist_ok=True)


def _check_remote(path: Location) -> None:
    """Check that remote storage can be written to and has the bucket. Local outputs pass."""
    if not path.is_remote:
        return

    if not remote.is_writable(path.text):
        raise OutputError(
            f"{output_name(path)}: this remote storage is read-only; write to a file, or to other remote storage",
            reason="read-only-storage",
            file=output_name(path),
        )

    if not remote.has_bucket(path.text):
        raise OutputError(
            f"{output_name(path)}: the bucket does not exist; create it first",
            reason="missing-bucket",
            file=output_name(path),
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
