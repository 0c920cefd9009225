"""Atomic folders on this machine: a folder gets its name when all of its files are there, and not before."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

from nerd_onnx.storage.closing import Closing

_LONGEST_NAME = 100  # in bytes: file systems allow 255, and the hidden name adds host, process and random letters


class AtomicFolder(Closing):
    """
    A new folder that has a hidden name beside its final one until it is committed.

    On exit it is removed, unless it was committed. A process that is killed leaves it behind; the next folder of the
    same name removes it then.

    :param target: the final name; its parent is created if it is missing
    :ivar path: the hidden folder to write into
    :raises OSError: if the folder cannot be created
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        name = target.name
        if len(os.fsencode(name)) > _LONGEST_NAME:
            name = hashlib.sha256(os.fsencode(name)).hexdigest()

        # The host belongs to the name: where machines share a file system, each knows only its own processes.
        self._prefix = f".{name}.{socket.gethostname()}-"
        target.parent.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()

        self.path = Path(tempfile.mkdtemp(prefix=f"{self._prefix}{os.getpid()}.", dir=target.parent))

    def commit(self, *, replace: bool) -> None:
        """
        Rename the folder to its final name.

        :param replace: whether a folder that is there is replaced, with all it contains; else only an empty one is
        :raises OSError: if the renaming fails; the folder that was there is then there again
        """
        # mkdtemp makes folders private; this one gets the permissions of an ordinary new folder.
        mask = os.umask(0)
        os.umask(mask)
        self.path.chmod(0o777 & ~mask)

        # rename(2) replaces an empty folder, and fails if there are files in it. Tried without a check before, because
        # another process may commit the same folder at this moment.
        try:
            self.path.replace(self._target)
        except OSError:
            if self._removed_empty():
                self.path.rename(self._target)
            elif replace and self._target.is_dir():
                self._take_place()
            else:
                raise

    def close(self) -> None:
        """Remove the folder if it was not committed."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _removed_empty(self) -> bool:
        """Remove the folder that is there if it is empty: Windows replaces not even an empty one."""
        try:
            self._target.rmdir()
        except OSError:
            return False

        return True

    def _take_place(self) -> None:
        """Move the folder that is there away, and this one to its name."""
        old = self.path.with_name(f"{self.path.name}.old")
        # No system replaces a folder with files in one step. After a crash between the two renames, the next
        # AtomicFolder of this name puts the old folder back: see _remove_leftovers.
        self._target.rename(old)

        try:
            self.path.rename(self._target)
        except OSError:
            old.rename(self._target)
            raise

        shutil.rmtree(old, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove the folders of processes that were killed; what was there before one of them is put back."""
        for path in self._target.parent.glob(f"{glob.escape(self._prefix)}*"):
            process = path.name.removeprefix(self._prefix).split(".", 1)[0]
            # Only where /proc lists processes: elsewhere a running process looks the same as a killed one.
            if not process.isdigit() or Path(f"/proc/{process}").exists() or not Path("/proc/self").exists():
                continue

            # The process was killed between two renames: without this, the only complete folder would be lost.
            if path.name.endswith(".old") and not self._target.exists():
                path.rename(self._target)
            else:
                shutil.rmtree(path, ignore_errors=True)
