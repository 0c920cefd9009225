"""What a run records about a complete file, so that it can be recognized later."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Self

from nerd_onnx.machine import system

HEAD_BYTES = 64


@dataclass(frozen=True)
class FileRecord:
    """
    Facts about a complete file, from shortly before it gets its name.

    :param size: in bytes
    :param sha256: of its content
    :param inode: number of a local file in its file system; 0 for an object in remote storage
    :param modified_ns: time of its last change, in nanoseconds since 1970; 0 for an object in remote storage
    :param head: its first 64 bytes as hexadecimal digits: a file that was cut still begins like this
    """

    size: int
    sha256: str
    inode: int
    modified_ns: int
    head: str

    @classmethod
    def of(cls, descriptor: int, *, is_remote: bool = False) -> Self:
        """
        Return the facts about an open file; its content is read once. The file's position stays.

        :param descriptor: of a file that is open for reading
        :param is_remote: the file will be uploaded, so it has neither inode nor time
        :raises OSError: if it cannot be read
        """
        position = os.lseek(descriptor, 0, os.SEEK_CUR)

        os.lseek(descriptor, 0, os.SEEK_SET)
        # By the descriptor: a file without a name cannot be opened a second time.
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.lseek(descriptor, position, os.SEEK_SET)

        found = os.fstat(descriptor)
        inode, modified_ns = (0, 0) if is_remote else (found.st_ino, found.st_mtime_ns)
        return cls(found.st_size, digest, inode, modified_ns, system.read_at(descriptor, HEAD_BYTES, 0).hex())
