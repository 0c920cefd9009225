"""Atomic writes: an output gets its name when it is complete, and not before."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from typing import IO, Protocol, cast

from nerd_onnx.errors import OutputError
from nerd_onnx.interruption import waiting
from nerd_onnx.machine import system
from nerd_onnx.storage.file_record import FileRecord
from nerd_onnx.storage.location import Location, Name
from nerd_onnx.storage.output_place import check_place, output_errors, output_name, standard_output
from nerd_onnx.storage.uploads import StoredFile

_BUFFER_BYTES = 1 << 20
_NAME_CHARACTERS = 40  # of up to four bytes each: file systems allow 255 bytes in a name
# What file systems without hard links answer to link(2), such as FAT and some network shares.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Target(Protocol):
    """An open output, until it is committed or discarded."""

    file: IO[bytes]

    def flush(self) -> FileRecord | None:
        """Write everything to disk (fsync) and return the facts about the complete file; None for a stream."""

    def commit(self) -> None:
        """Rename the output to its final name, and write that name to disk (fsync)."""

    def discard(self) -> None:
        """Delete the output. Does nothing after a commit."""


def open_target(name: Name, *, overwrite: bool, spooled: bool, scratch: str | None = None) -> Target:
    """
    Open an output for writing.

    :param name: a file, ``-`` for standard output, a pipe or device, or a URI
    :param overwrite: whether an existing file may be replaced
    :param spooled: whether a stream gets its bytes only on commit, all at once
    :param scratch: folder for temporary files; None for the folder of the output
    :raises OutputError: if the output may not be written
    """
    path = Location.of(name)
    with output_errors(path):
        if path.is_standard_stream:
            return _Stream(path, spooled=spooled)

        found = path.info_if_any()
        check_place(path, found, overwrite=overwrite)

        if path.is_remote:
            return StoredFile(path, overwrite=overwrite, scratch=scratch)
        if found is not None and not found.is_file:
            return _Stream(path, spooled=spooled)

        mode = None if found is None else found.permissions
        return _AtomicFile(path, overwrite=overwrite, mode=mode, scratch=scratch)


def open_own_file(path: str) -> Target:
    """
    Open a file of the program's own folders for writing. On commit it replaces what has its name, also a pipe or link.

    :raises OutputError: if it cannot be created
    """
    with output_errors(path):
        return _AtomicFile(Location(path), overwrite=True, mode=None, scratch=None, follows_link=False)


def write_whole(path: Name, content: bytes, *, overwrite: bool) -> None:
    """
    Write a file atomically, or standard output.

    :param path: see :func:`open_target`
    :param overwrite: whether an existing file may be replaced
    :raises OutputError: if the output may not or cannot be written
    """
    target = open_target(path, overwrite=overwrite, spooled=True)
    try:
        with output_errors(path):
            target.file.write(content)

        target.commit()
    finally:
        target.discard()


class _AtomicFile:
    """
    A local file that gets its name on commit.

    Before that it has no name (``O_TMPFILE`` of Linux), so nothing is left behind however the process ends, also after
    ``kill -9``. On systems without such files it has a temporary name.
    """

    def __init__(
        self, path: Location, *, overwrite: bool, mode: int | None, scratch: str | None, follows_link: bool = True
    ) -> None:
        self._path = path
        # A symbolic link of the user stays a link; its target is replaced.
        self._final = os.path.realpath(path) if follows_link else os.path.abspath(path)
        self._folder = os.path.dirname(self._final)
        # No file can be renamed or linked from one file system into another.
        self._scratch = scratch if scratch and _same_device(scratch, self._folder) else self._folder
        self._overwrite = overwrite
        self._temporary: str | None = None
        self.file: IO[bytes] = self._open(mode)

    def flush(self) -> FileRecord:
        with output_errors(self._path):
            self._sync()
            return FileRecord.of(self.file.fileno())

    def commit(self) -> None:
        with output_errors(self._path):
            # Before the file is named: after a crash, the name must not lead to missing bytes.
            self._sync()
            if self._temporary is not None:
                self.file.close()  # Windows renames no open file

            self._name()
            self.file.close()
            sync_folder(self._folder)

    def discard(self) -> None:
        with suppress(OSError):
            self.file.close()

        self._drop_temporary()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def _open(self, mode: int | None) -> IO[bytes]:
        # 0o666, from which the system takes the user's mask: module tempfile would make a private file.
        if can_link_nameless(self._scratch):
            descriptor = os.open(self._scratch, system.NAMELESS | os.O_RDWR, 0o666)
        else:
            self._temporary = self._temporary_path()
            descriptor = os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | system.BINARY, 0o666)

        # The permissions of the file that is replaced.
        if mode is not None:
            system.set_permissions(descriptor, mode)

        return os.fdopen(descriptor, "wb", _BUFFER_BYTES)

    def _temporary_path(self) -> str:
        return temporary_path(self._scratch, os.path.basename(self._final))

    def _name(self) -> None:
        """Name the complete file. Without ``overwrite`` not even a file created a moment ago is replaced."""
        if self._overwrite:
            # linkat(2) cannot replace a file, so the file gets a temporary name first.
            if self._temporary is None:
                path = self._temporary_path()
                _link_nameless(self.file.fileno(), path)
                self._temporary = path

            os.replace(self._temporary, self._final)
            self._temporary = None
            return

        try:
            if self._temporary is None:
                _link_nameless(self.file.fileno(), self._final)
            else:
                self._link_temporary(self._temporary)
        except FileExistsError as err:
            raise OutputError(
                f"{output_name(self._path)}: another program created it during the run; it was not overwritten",
                reason="exists-elsewhere",
                file=output_name(self._path),
            ) from err

    def _link_temporary(self, temporary: str) -> None:
        try:
            os.link(temporary, self._final)
        except OSError as err:
            if err.errno not in _NO_LINKS:
                raise

            # Without hard links, the check and the renaming are two steps: another program may come between them.
            if os.path.lexists(self._final):
                raise FileExistsError from err
            os.rename(temporary, self._final)
            self._temporary = None

        self._drop_temporary()

    def _drop_temporary(self) -> None:
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None


class _Stream:
    """Standard output, a pipe or a device. Not atomic; if spooled, all bytes are written at the end."""

    def __init__(self, path: Location, *, spooled: bool) -> None:
        self._path = path
        self._copy = cast("IO[bytes]", tempfile.TemporaryFile(prefix="nerd-")) if spooled else None  # noqa: SIM115
        try:
            with waiting():  # for the reader of a pipe
                self._stream: IO[bytes] = standard_output() if path.is_standard_stream else open(path, "wb")  # noqa: SIM115
        except BaseException:
            if self._copy:
                self._copy.close()
            raise

        self.file = self._copy or self._stream

    def flush(self) -> None:
        return None

    def commit(self) -> None:
        with output_errors(self._path):
            if self._copy is not None:
                self._copy.seek(0)
                shutil.copyfileobj(self._copy, self._stream, _BUFFER_BYTES)
                self._copy.close()

            self._stream.flush()
            self._release()

    def discard(self) -> None:
        if self._copy is not None:
            with suppress(OSError):
                self._copy.close()

        with suppress(OSError):
            self._release()

    def _release(self) -> None:
        if not self._path.is_standard_stream:
            self._stream.close()


def temporary_path(folder: str, name: str) -> str:
    """Return an unused hidden path in a folder, for something that gets the name ``name`` when it is complete."""
    return os.path.join(folder, f".{name[:_NAME_CHARACTERS]}.{secrets.token_hex(6)}.part")


def _link_nameless(descriptor: int, path: str) -> None:
    # With src_dir_fd Python calls linkat(2), which follows the /proc link to the open file; link(2) would not.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)


def can_link_nameless(folder: str) -> bool:
    """Whether a file without a name can be created in a folder and named later. Tried with an empty file."""
    if not system.NAMELESS:
        return False

    # Some file systems can create such files but not name them, and in some containers /proc is missing.
    probe = temporary_path(folder, "probe")
    try:
        descriptor = os.open(folder, system.NAMELESS | os.O_RDWR, 0o600)
    except OSError:
        return False

    try:
        _link_nameless(descriptor, probe)
        os.unlink(probe)
    except OSError:
        return False
    finally:
        os.close(descriptor)

    return True


def _same_device(folder: str, other: str) -> bool:
    return os.stat(folder).st_dev == os.stat(other).st_dev


def sync_folder(folder: str) -> None:
    """Write the names in a folder to disk (fsync). Errors are ignored: some file systems do not support it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
