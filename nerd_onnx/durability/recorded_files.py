"""Files that a run finished earlier: whether each still is what the run recorded."""

from __future__ import annotations

import os
from typing import Literal

from nerd_onnx.durability.fingerprints import content_sha256, version_of
from nerd_onnx.storage.file_info import FileInfo
from nerd_onnx.storage.file_record import HEAD_BYTES, FileRecord
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors

# intact: the recorded content. missing: no file. cut: the recorded file, shorter. changed: another file or content.
FileState = Literal["intact", "missing", "cut", "changed"]


def state_of(path: Location, record: FileRecord, version: str | None, *, verify: bool = False) -> FileState:
    """
    Compare a file with what a run recorded of it.

    Size, identity and version are compared. The content is read and compared only if they leave a doubt: if the file
    was copied or touched, or the run did not record its version.

    :param path: a file or a URI
    :param record: what the run recorded
    :param version: what :func:`version_of` returned when the file had got its name; None if that was not recorded
    :param verify: compare the content in any case
    :raises OutputError: if the file cannot be read
    """
    with output_errors(path):
        found = path.info_if_any()
        if found is None:
            return "missing"
        if not found.is_file or found.size > record.size:
            return "changed"

        # Short for two reasons: a full or failed disk lost its end, or it is somebody else's.
        if found.size < record.size:
            return "cut" if _is_cut(path, found, record) else "changed"

        is_known = version is not None and version_of(path) == version
        if not path.is_remote:
            is_known &= (found.inode, found.modified_ns) == (record.inode, record.modified_ns)

        if is_known and not verify:
            return "intact"
        return "intact" if content_sha256(path) == record.sha256 else "changed"


def remove_cut_file(path: Location) -> None:
    """
    Delete a local file whose state is ``cut``, so that it can be made again.

    :raises OutputError: if it cannot be deleted
    """
    with output_errors(path):
        os.unlink(os.path.realpath(path))  # a symbolic link stays a link


def _is_cut(path: Location, found: FileInfo, record: FileRecord) -> bool:
    """Whether a file that is too short is the recorded one: the same file of the system, with the same beginning."""
    if path.is_remote or found.inode != record.inode:
        return False

    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES).hex()
    return record.head.startswith(head)
