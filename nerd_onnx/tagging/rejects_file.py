"""Rows that could not be read or tagged, as JSON Lines with address and reason; and such a file read back."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any

from nerd_onnx.errors import InputError
from nerd_onnx.formats.base import Fault
from nerd_onnx.storage.atomic_file import Target, open_target
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import input_name, open_bytes
from nerd_onnx.storage.output_place import output_errors

_BUFFER_BYTES = 1 << 20


def reject_record(file: str, fault: Fault) -> dict[str, Any]:
    """
    Say in one JSON object which row is rejected and why.

    Bytes that did not parse are ``raw`` where they are UTF-8, else ``raw_base64``.
    """
    record: dict[str, Any] = {"file": file, "row": fault.row}
    if fault.line is not None:
        record["line"] = fault.line
    if fault.row_group is not None:
        record["row_group"] = fault.row_group
    record["reason"] = fault.reason
    if fault.raw is not None:
        try:
            record["raw"] = fault.raw.decode()
        except UnicodeDecodeError:
            record["raw_base64"] = base64.b64encode(fault.raw).decode()
    return record


class RejectsPart(Closing):
    """
    The rejects of one input, in a file of the work folder that is made when there is one.

    :param path: the file; what stands there is replaced
    :param output: the run's output, for messages
    """

    def __init__(self, path: str, output: str) -> None:
        self.path = path
        self.rows = 0
        self._output = output
        self._file: IO[bytes] | None = None

    def write(self, file: str, fault: Fault) -> None:
        """Add a row of an input."""
        self._append(reject_record(file, fault))

    def refuse(self, file: str, reason: str) -> None:
        """Add an input as a whole: its ``row`` is null."""
        self._append({"file": file, "row": None, "reason": reason})

    def _append(self, record: dict[str, Any]) -> None:
        with output_errors(self._output):
            if self._file is None:
                self._file = open(self.path, "wb")  # noqa: SIM115 - closed by close()
            self._file.write(json.dumps(record).encode() + b"\n")
        self.rows += 1

    def finish(self) -> None:
        """Bring what was written onto the disk."""
        if self._file is not None:
            with output_errors(self._output):
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):  # the disk refused its last bytes before
                self._file.close()


def gathered(path: str, parts: Iterable[str], *, overwrite: bool, scratch: str) -> Target:
    """
    Put the rejects of all inputs into one file, ready to be committed.

    :param path: the file the user named
    :param parts: the files of the inputs
    :param overwrite: whether an existing file may be replaced
    :param scratch: the work folder
    :raises OutputError: when the system refuses
    """
    target = open_target(path, overwrite=overwrite, spooled=False, scratch=scratch)
    try:
        for part in parts:
            with output_errors(path), open(part, "rb") as file:
                shutil.copyfileobj(file, target.file, _BUFFER_BYTES)
    except BaseException:
        target.discard()
        raise
    return target


def rejected_rows(path: str) -> dict[str, frozenset[int] | None]:
    """
    Read which rows were rejected: their numbers, by the name of their file; None for all of them.

    :raises InputError: when it is no file of rejects
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
