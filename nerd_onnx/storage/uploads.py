"""Outputs in remote storage: written to a local file first, then uploaded atomically."""

from __future__ import annotations

import ctypes
import os
import tempfile
from contextlib import suppress
from functools import partial
from typing import IO, Any, cast

from nerd_onnx.errors import NerdError, OutputError, first_line
from nerd_onnx.storage.file_record import FileRecord
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name
from nerd_onnx.storage.remote import Place
from nerd_onnx.storage.time_limit import UPLOAD_FACTOR, within_limit

WRITE_BYTES = 8 << 20
# Storage, by pyarrow's name of it, where a key with slashes needs no folder.
_WITHOUT_FOLDERS = ("gcs", "abfs")
_FLUSH_BYTES = 64 << 20  # maximum that waits in memory for a slow network


class StoredFile:
    """
    A local file without a name that is uploaded when it is committed.

    :param path: the URI of the upload
    :param overwrite: whether an existing object may be replaced
    :param scratch: folder of the local file; None for the system's folder of temporary files
    """

    def __init__(self, path: Location, *, overwrite: bool, scratch: str | None) -> None:
        self._path = path
        self._overwrite = overwrite
        self.file = cast("IO[bytes]", tempfile.TemporaryFile(prefix="nerd-", dir=scratch))  # noqa: SIM115

    def flush(self) -> FileRecord:
        """Write everything to the local disk (fsync) and return the facts about the complete file."""
        with output_errors(self._path):
            self.file.flush()
            os.fsync(self.file.fileno())
            return FileRecord.of(self.file.fileno(), is_remote=True)

    def commit(self) -> None:
        """Upload the file."""
        with output_errors(self._path):
            self.file.flush()
            # Checked again, because the run may have taken hours. Two runs that end at once can still collide.
            if not self._overwrite and self._path.exists():
                raise OutputError(
                    f"{output_name(self._path)}: another program created it during the run; it was not overwritten",
                    reason="exists-elsewhere",
                    file=output_name(self._path),
                )

            self.file.seek(0)
            upload(self.file, self._path.text)

        self.file.close()

    def discard(self) -> None:
        """Delete the local file. Does nothing after a commit."""
        with suppress(OSError):
            self.file.close()


def upload(file: IO[bytes], uri: str) -> None:
    """
    Upload a file. Its name exists when all of its bytes have arrived.

    S3 shows an object only when its upload is complete. Elsewhere it is written under a hidden name and then moved.

    :raises OutputError: if remote storage reports an error
    """
    try:
        _send(file, within_limit(uri, lambda: Place.of(uri)), uri)
    except (OSError, NerdError):
        raise
    except Exception as err:  # several libraries, each with its own errors
        raise OutputError(
            f"{output_name(uri)}: cannot be written: {first_line(err)}", reason="cannot-write", file=output_name(uri)
        ) from err


def _send(file: IO[bytes], place: Place, uri: str) -> None:
    filesystem = place.filesystem
    if filesystem.type_name == "s3":
        copy_to(file, filesystem, place.path, uri)
        return

    folder, slash, name = place.path.rpartition("/")
    # Always the same name, so that the next upload replaces what a killed one left behind.
    part = f"{folder}{slash}.{name}.nerd-part"
    if filesystem.type_name not in _WITHOUT_FOLDERS:
        within_limit(uri, lambda: filesystem.create_dir(folder, recursive=True))

    try:
        copy_to(file, filesystem, part, uri)
        # The storage copies the whole file, if it cannot rename it.
        within_limit(uri, lambda: filesystem.move(part, place.path), factor=UPLOAD_FACTOR)
    except BaseException:
        with suppress(Exception):
            within_limit(uri, lambda: filesystem.delete_file(part))
        raise


def copy_to(file: IO[bytes], filesystem: Any, path: str, uri: str) -> None:
    """Copy a file into remote storage, in pieces that each have the time limit."""
    # By default pyarrow would compress a file named .gz again.
    target = within_limit(uri, lambda: filesystem.open_output_stream(path, compression=None))

    waiting = 0
    try:
        while piece := file.read(WRITE_BYTES):
            within_limit(uri, partial(target.write, piece), factor=UPLOAD_FACTOR)
            waiting += len(piece)

            # pyarrow uploads in the background; without a limit, a slow network would fill the memory.
            if waiting >= _FLUSH_BYTES:
                within_limit(uri, target.flush, factor=UPLOAD_FACTOR)
                waiting = 0

        within_limit(uri, target.close, factor=UPLOAD_FACTOR)
    except BaseException:
        _give_up(target)
        raise


def _give_up(target: Any) -> None:
    """
    Keep a stream alive until the process ends: pyarrow would complete its upload on deletion, and has no way to abort.

    The reference count is raised because an ordinary reference would be dropped when the process ends, where pyarrow
    would wait for bytes that no longer come.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(target))
