"""The rejects file: one JSON object per rejected row, with its address and the reason; written and read back."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, Any

from nerd_onnx.durability.events import PartRecord
from nerd_onnx.errors import InputError
from nerd_onnx.formats.interfaces import RejectedRow
from nerd_onnx.storage.atomic_file import Target, open_target
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import input_name, open_bytes
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors
from nerd_onnx.storage.regular_file import create_regular, open_regular, regular_sha256

_BUFFER_BYTES = 1 << 20


def reject_record(file: str, row: RejectedRow) -> dict[str, Any]:
    """
    Return the record of a rejected row: its file, row, line or row group, reason, and the bytes that did not parse.

    These bytes are ``raw`` if they are valid UTF-8, else ``raw_base64``.
    """
    record: dict[str, Any] = {"file": file, "row": row.row}
    if row.line is not None:
        record["line"] = row.line
    if row.row_group is not None:
        record["row_group"] = row.row_group

    record["reason"] = row.reason
    if row.raw is not None:
        try:
            record["raw"] = row.raw.decode()
        except UnicodeDecodeError:
            record["raw_base64"] = base64.b64encode(row.raw).decode()
    return record


class RejectsPart(Closing):
    """
    The rejected rows of one input, in a file of the work folder. Without a rejected row, no file is created.

    :param path: the file; existing content is replaced
    :param output: the run's output, for messages
    :param before_first: called before the first row; it may raise an error if a rejects file cannot be written
    """

    def __init__(self, path: str, output: Location, before_first: Callable[[], None]) -> None:
        self.path = path
        self.rows = 0
        self._output = output
        self._before_first = before_first
        self._file: IO[bytes] | None = None

    def write(self, file: str, row: RejectedRow) -> None:
        """Add a rejected row of an input."""
        self._append(reject_record(file, row))

    def refuse(self, file: str, reason: str) -> None:
        """Add an unreadable input: its record's ``row`` is null."""
        self._append({"file": file, "row": None, "reason": reason})

    def _append(self, record: dict[str, Any]) -> None:
        if self._file is None:
            self._before_first()

        with output_errors(self._output):
            # Created at the first row: most inputs have no rejected row.
            if self._file is None:
                self._file = create_regular(self.path)
            self._file.write(json.dumps(record).encode() + b"\n")
        self.rows += 1

    def finish(self) -> PartRecord | None:
        """Flush all records to the disk; return the facts about the file, None without a rejected row."""
        if self._file is None:
            return None
        with output_errors(self._output):
            self._file.flush()
            os.fsync(self._file.fileno())
            return PartRecord(os.fstat(self._file.fileno()).st_size, regular_sha256(self.path))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):  # finish() has reported it
                self._file.close()


def part_path(folder: str, name: str) -> str:
    """Return the path for the rejected rows of a file, in the work folder. ``name`` is the file's name."""
    # Inputs in different folders may have equal names, and a path may be too long for a file name.
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return os.path.join(folder, f"rejects-{digest}.jsonl")


def is_part(path: str, record: PartRecord) -> bool:
    """Whether the file with the rejected rows of a finished file is what was recorded."""
    with suppress(OSError):
        return os.stat(path).st_size == record.size and regular_sha256(path) == record.sha256
    return False


def gather_rejects(path: Location, parts: Iterable[str], *, overwrite: bool, scratch: str) -> Target:
    """
    Copy the rejected rows of all inputs into one file, ready to be committed.

    :param path: the rejects file that the user named
    :param parts: the files of the inputs
    :param overwrite: whether an existing file may be replaced
    :param scratch: the work folder
    :raises OutputError: if the file cannot be written
    """
    target = open_target(path, overwrite=overwrite, spooled=False, scratch=scratch)
    try:
        for part in parts:
            with output_errors(path), open_regular(part) as file:
                shutil.copyfileobj(file, target.file, _BUFFER_BYTES)
    except BaseException:
        target.discard()
        raise
    return target


def rejected_rows(path: Location) -> dict[str, frozenset[int] | None]:
    """
    Read a rejects file.

    :return: the numbers of the rejected rows by the name of their file; None for a file that was rejected as a whole
    :raises InputError: if it is not a rejects file
    """
    rows: dict[str, set[int]] = {}
    whole: set[str] = set()
    number = 0

    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - named in the message
                record = json.loads(line)

                of_file = rows.setdefault(str(record["file"]), set())
                if record["row"] is None:
                    whole.add(str(record["file"]))
                else:
                    of_file.add(int(record["row"]))
    except OSError as err:
        raise InputError(
            f"{input_name(path)}: cannot be read: {err.strerror}", reason="cannot-read", file=input_name(path)
        ) from err
    except (ValueError, KeyError, TypeError) as err:
        raise InputError(
            f"{input_name(path)}, line {number}: is not a rejected row; expected a rejects file, written by --rejects",
            reason="not-rejects-file",
            file=input_name(path),
            row=number,
        ) from err

    return {file: None if file in whole else frozenset(numbers) for file, numbers in rows.items()}
