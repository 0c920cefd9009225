"""At most one run per output: a lock that the operating system releases when its process dies."""

from __future__ import annotations

import json
import os
import socket
import stat
from contextlib import suppress
from datetime import UTC, datetime

from nerd_onnx.errors import BusyError, OutputError
from nerd_onnx.machine import system
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name

LOCK = "lock"  # its name in the work folder
_OWNER_BYTES = 4096


class RunLock(Closing):
    """
    The right to write an output, held from the creation of its work folder until its removal.

    :param output: the output, for messages
    :param folder: the work folder; created if it is missing
    :raises BusyError: if another run holds the lock; the message names its process and start time
    :raises OutputError: if the work folder belongs to another user or cannot be created
    """

    def __init__(self, output: Location, folder: str) -> None:
        self._path = os.path.join(folder, LOCK)
        self._descriptor = -1
        with output_errors(output):
            while self._descriptor < 0:
                self._descriptor = self._acquired(output, folder)
            self._sign()

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _acquired(self, output: Location, folder: str) -> int:
        """Return the descriptor of the locked file; -1 if another run removed the file meanwhile: then try again."""
        _make_folder(output, folder)

        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | system.NO_FOLLOW | system.BINARY, 0o600)
        except FileNotFoundError:
            return -1

        try:
            # Without locks a run is still safe against crashes, only not against a second run.
            system.lock(descriptor, wait=False)
        except BlockingIOError as err:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise BusyError(
                f"{output_name(output)}: another run is writing it ({owner}); wait for that run, or stop it",
                reason="busy",
                file=output_name(output),
            ) from err
        except OSError:
            os.close(descriptor)
            raise

        # Another run may have removed its folder between open and lock: the lock must be on the file that is there now.
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                return descriptor
        os.close(descriptor)
        return -1

    def _sign(self) -> None:
        """Write into the lock who holds it, for the message of another run."""
        facts = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "started": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        }

        # A process that died may have left a longer text.
        os.ftruncate(self._descriptor, 0)
        # At the start of the file, as nothing was read or written before.
        os.write(self._descriptor, json.dumps(facts).encode())


def _make_folder(output: Location, folder: str) -> None:
    """Create a folder that only this user may open; refuse a link, or another user's folder, in its place."""
    # In a shared folder, somebody could place a link there and have the run write elsewhere.
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)

    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        # Another run has just removed it, so the lock cannot be opened either: the caller tries again.
        return

    theirs = system.user() not in (None, found.st_uid)
    if not stat.S_ISDIR(found.st_mode) or theirs:
        raise OutputError(
            f"{output_name(output)}: its work folder {output_name(folder)} belongs to another user, or is not a "
            "folder; remove it, or write to another place",
            reason="foreign-work-folder",
            file=output_name(output),
            folder=output_name(folder),
        )


def _owner(descriptor: int) -> str:
    """Return a description of the run that holds the lock."""
    try:
        facts = json.loads(system.read_at(descriptor, _OWNER_BYTES, 0))
        return f"process {facts['process']} on {facts['host']}, started {facts['started']} UTC"
    except (OSError, ValueError, KeyError, TypeError):
        # The other run has locked the file and not yet written who it is.
        return "which began a moment ago"
