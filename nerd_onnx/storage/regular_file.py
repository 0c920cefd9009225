"""Open or create a file that must be a regular one, without a wait for the other end of a pipe or for a device."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress
from io import BufferedReader, BufferedWriter

from nerd_onnx.machine import system


class NotRegularFileError(OSError):
    """A name leads to a pipe, a device or something else that is no regular file."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """
    Open a regular file to read.

    :raises NotRegularFileError: if it is something else
    :raises OSError: if it cannot be opened
    """
    # Without a wait, and the open file is looked at, not the name: that may lead elsewhere meanwhile.
    descriptor = os.open(path, os.O_RDONLY | system.NO_WAIT | system.BINARY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularFileError(errno.EINVAL, "is not a regular file", os.fspath(path))

    return os.fdopen(descriptor, "rb")


def create_regular(path: str | os.PathLike[str]) -> BufferedWriter:
    """
    Create a regular file to write. What has its name is removed, also a pipe, a device or a link.

    :raises OSError: if it cannot be created
    """
    with suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.BINARY
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def regular_sha256(path: str | os.PathLike[str]) -> str:
    """
    Return the SHA-256 of a regular file, as hexadecimal digits.

    :raises NotRegularFileError: if it is something else
    :raises OSError: if it cannot be read
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
