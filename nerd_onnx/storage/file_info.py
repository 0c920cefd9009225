"""Facts about a file or folder, the same for local paths, standard streams and remote storage."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Literal, Self

from nerd_onnx.errors import first_line


@dataclass(frozen=True)
class FileInfo:
    """
    Facts about something that exists at a path or URI.

    :param kind: ``device`` is everything that is neither a file nor a folder: pipes, terminals, sockets
    :param size: in bytes
    :param modified_ns: time of the last change, in nanoseconds since 1970; 0 if remote storage does not report it
    :param changed_ns: time of the last change of content, name or permissions of a local file, which no program can set
        back; 0 in remote storage
    :param inode: number of a local file in its file system; 0 in remote storage
    :param volume: number of the file system; 0 in remote storage
    :param permissions: permission bits of a local file; None in remote storage
    """

    kind: Literal["file", "folder", "device"]
    size: int = 0
    modified_ns: int = 0
    changed_ns: int = 0
    inode: int = 0
    volume: int = 0
    permissions: int | None = None

    @classmethod
    def of_stat(cls, found: os.stat_result) -> Self:
        """Return the facts about a local file, folder or device."""
        is_file, is_folder = stat.S_ISREG(found.st_mode), stat.S_ISDIR(found.st_mode)
        return cls(
            kind="file" if is_file else "folder" if is_folder else "device",
            size=found.st_size,
            modified_ns=found.st_mtime_ns,
            changed_ns=found.st_ctime_ns,
            inode=found.st_ino,
            volume=found.st_dev,
            permissions=stat.S_IMODE(found.st_mode),
        )

    @classmethod
    def of_path(cls, path: str) -> Self:
        """
        Return the facts about what exists at a local path.

        :raises OSError: if nothing exists there, or the system cannot look there
        """
        try:
            return cls.of_stat(os.stat(path))
        except ValueError as err:  # a NUL in the name
            raise OSError(errno.EINVAL, first_line(err), path) from err

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, or an object in remote storage."""
        return self.kind == "file"

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.kind == "folder"

    @property
    def is_device(self) -> bool:
        """Whether it is a pipe, a terminal or another device."""
        return self.kind == "device"

    def is_same_file(self, other: FileInfo) -> bool:
        """Whether both are the same local file, whatever their names are."""
        return (self.volume, self.inode) == (other.volume, other.inode)
