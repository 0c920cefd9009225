"""Output files that appear under their name whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol, TextIO, cast

import pyarrow as pa

from nerd_onnx.errors import OutputError, first_line
from nerd_onnx.tables.rows import STANDARD_STREAM, shown

_BUFFER_BYTES = 1 << 20
_NAME_CHARACTERS = 40
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Target(Protocol):
    """Where the bytes of an output go until it is committed or discarded."""

    file: IO[bytes]

    def commit(self) -> None:
        """Make the output visible, durably."""

    def discard(self) -> None:
        """Leave nothing. Does nothing after a commit."""


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
            _standard_output()  # refuses a closed one
            found = _stream_stat(sys.stdout)
        else:
            found = _stat(output_path)
        if found is not None and not _is_device(found) and _is_input(found, input_path):
            raise OutputError(f"{output_name(output_path)}: is the input itself; give the output another name")
        if output_path != STANDARD_STREAM:
            _check_place(output_path, found, overwrite=overwrite)


def open_target(path: str, *, overwrite: bool, spooled: bool) -> Target:
    """
    Open a place for the bytes of an output.

    :param path: a file, ``-`` for standard output, or a pipe or device
    :param overwrite: whether an existing file may be replaced
    :param spooled: whether a stream gets its bytes only on commit, all at once
    :raises OutputError: when it may not be written
    """
    with output_errors(path):
        if path == STANDARD_STREAM:
            return _Stream(path, spooled=spooled)
        found = _stat(path)
        _check_place(path, found, overwrite=overwrite)
        if found is not None and not stat.S_ISREG(found.st_mode):
            return _Stream(path, spooled=spooled)
        return _WholeFile(path, overwrite=overwrite, mode=found and stat.S_IMODE(found.st_mode))


class _WholeFile:
    """
    A file without a name, or with a temporary one where the system knows no other, until it is committed.

    A nameless file (Linux's ``O_TMPFILE``) leaves nothing behind however the process ends, ``kill -9`` included.
    """

    def __init__(self, path: str, *, overwrite: bool, mode: int | None) -> None:
        self._path = path
        self._final = os.path.realpath(path)  # a link stays a link; what it points to is replaced
        self._folder = os.path.dirname(self._final)  # noqa: PTH120 - paths are text all through tables/
        self._overwrite = overwrite
        self._temporary: str | None = None
        self.file: IO[bytes] = self._open(mode)

    def commit(self) -> None:
        with output_errors(self._path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self._name()
            self.file.close()
            _sync_folder(self._folder)

    def discard(self) -> None:
        with suppress(OSError):
            self.file.close()
        self._drop_temporary()

    def _open(self, mode: int | None) -> IO[bytes]:
        if _can_link_nameless(self._folder):
            descriptor = os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        else:
            self._temporary = self._temporary_path()
            descriptor = os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        if mode is not None:
            os.fchmod(descriptor, mode)
        return os.fdopen(descriptor, "wb", _BUFFER_BYTES)

    def _temporary_path(self) -> str:
        return _hidden_path(self._folder, os.path.basename(self._final))  # noqa: PTH119

    def _name(self) -> None:
        """Give the finished file its name: never over another file unless told, even one made a moment ago."""
        if self._overwrite:
            if self._temporary is None:
                path = self._temporary_path()
                _link_nameless(self.file.fileno(), path)
                self._temporary = path
            os.replace(self._temporary, self._final)  # noqa: PTH105
            self._temporary = None
            return
        try:
            if self._temporary is None:
                _link_nameless(self.file.fileno(), self._final)
            else:
                self._link_temporary(self._temporary)
        except FileExistsError as err:
            raise OutputError(
                f"{output_name(self._path)}: was made by another program meanwhile; not overwritten"
            ) from err

    def _link_temporary(self, temporary: str) -> None:
        try:
            os.link(temporary, self._final)
        except OSError as err:
            if err.errno not in _NO_LINKS:
                raise
            # A file system without hard links: the check and the renaming are two steps there.
            if os.path.lexists(self._final):
                raise FileExistsError from err
            os.rename(temporary, self._final)  # noqa: PTH104
            self._temporary = None
        self._drop_temporary()

    def _drop_temporary(self) -> None:
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary)  # noqa: PTH108
            self._temporary = None


class _Stream:
    """Standard output, a pipe or a device: nothing to make whole, unless spooled."""

    def __init__(self, path: str, *, spooled: bool) -> None:
        self._path = path
        self._copy = cast("IO[bytes]", tempfile.TemporaryFile(prefix="nerd-")) if spooled else None  # noqa: SIM115
        try:
            self._stream: IO[bytes] = _standard_output() if path == STANDARD_STREAM else open(path, "wb")  # noqa: PTH123, SIM115
        except BaseException:
            if self._copy:
                self._copy.close()
            raise
        self.file = self._copy or self._stream

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
        if self._path != STANDARD_STREAM:
            self._stream.close()


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


def _standard_output() -> IO[bytes]:
    if sys.stdout is None or sys.stdout.closed:
        raise OutputError(f"{output_name(STANDARD_STREAM)}: is closed; leave it open, or give a file name")
    stream: Any = sys.stdout.buffer
    return cast("IO[bytes]", _FullWrites(stream)) if isinstance(stream, io.RawIOBase) else stream


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return None


def _stream_stat(stream: TextIO | None) -> os.stat_result | None:
    """Tell what file a standard stream is; None where it is closed or was put in place by the program."""
    if stream is None or stream.closed:
        return None
    with suppress(OSError):
        return os.fstat(stream.fileno())
    return None


def _is_input(found: os.stat_result, input_path: str) -> bool:
    with suppress(OSError):  # what is wrong with the input is said when it is opened
        source = _stream_stat(sys.stdin) if input_path == STANDARD_STREAM else os.stat(input_path)  # noqa: PTH116
        return source is not None and os.path.samestat(source, found)
    return False


def _is_device(found: os.stat_result) -> bool:
    return not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode)


def _check_place(path: str, found: os.stat_result | None, *, overwrite: bool) -> None:
    name = output_name(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{name}: is a directory; give a file name")
    if found is not None and _is_device(found):
        return
    if found is not None and not overwrite:
        raise OutputError(f"{name}: exists already; give another name, or --overwrite")
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
    if not os.path.isdir(folder):  # noqa: PTH112
        raise OutputError(f"{name}: there is no folder {output_name(folder)}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{name}: permission denied to write into {output_name(folder)}")


def _refusal(err: OSError) -> str:
    if err.errno in _DISK_FULL:
        return "the disk is full; nothing was kept. Make room, or write elsewhere"
    if err.errno == errno.EFBIG:
        return "larger than files may be here; nothing was kept. Raise the limit (ulimit -f), or write elsewhere"
    return f"cannot be written: {err.strerror or first_line(err)}"


def _hidden_path(folder: str, name: str) -> str:
    return os.path.join(folder, f".{name[:_NAME_CHARACTERS]}.{secrets.token_hex(6)}.part")  # noqa: PTH118


def _link_nameless(descriptor: int, path: str) -> None:
    # With src_dir_fd Python calls linkat(2), which follows the /proc link to the open file; link(2) would not.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)


def _can_link_nameless(folder: str) -> bool:
    """Try on an empty file, at the start, what will be needed for the full one, at the end."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    probe = _hidden_path(folder, "probe")
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        _link_nameless(descriptor, probe)
        os.unlink(probe)  # noqa: PTH108
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _sync_folder(folder: str) -> None:
    # Some file systems cannot sync folders; the file itself is safe by now.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
