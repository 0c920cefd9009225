"""The work folder beside an output: the state from which an interrupted run is resumed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nerd_onnx.durability.events import JOURNAL_VERSION, RunEvent
from nerd_onnx.durability.fingerprints import difference
from nerd_onnx.durability.journal import Journal, Progress, read_progress
from nerd_onnx.durability.lock import LOCK, RunLock
from nerd_onnx.errors import OutputError
from nerd_onnx.machine import system
from nerd_onnx.storage.atomic_file import sync_folder
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name
from nerd_onnx.storage.remote import cache_folder

_SUFFIX = ".nerd-work"
_JOURNAL = "journal.jsonl"
_READABLE_NAME = 40
_LONGEST_NAME = 200  # bytes; file systems allow 255, and the suffix is added


def work_folder_of(output: Location, *, many: bool, remote_work_dir: str | None = None) -> str:
    """
    Return the path of an output's work folder: hidden beside an output file, or hidden inside an output folder.

    The work folder of an output in remote storage is local, because locks and renames need a local file system.

    :param many: the output is a folder
    :param remote_work_dir: folder for the work folders of remote outputs; None for the user's cache
    """
    if output.is_remote:
        digest = hashlib.sha256(os.fsencode(output.identity)).hexdigest()[:16]
        # The digest tells outputs of the same name apart, the name helps people who look into the folder.
        name = f"{Location(output.identity).name[:_READABLE_NAME]}-{digest}{_SUFFIX}"
        return os.path.join(os.path.realpath(remote_work_dir or cache_folder("work")), name)

    # The real path: whatever links lead to an output, it has one work folder and one lock.
    final = os.path.realpath(output)
    if many:
        return os.path.join(final, _SUFFIX)

    folder, name = os.path.split(final)
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}{_SUFFIX}")


def unfinished_run(output: Location, *, many: bool, remote_work_dir: str | None = None) -> Progress | None:
    """
    Return the progress of an interrupted run at an output; None without one, or if it finished nothing worth keeping.

    Nothing is locked or changed. The parameters are those of :func:`work_folder_of`.
    """
    progress = recorded_progress(output, many=many, remote_work_dir=remote_work_dir)
    return progress if progress.is_worth_keeping else None


def recorded_progress(output: Location, *, many: bool, remote_work_dir: str | None = None) -> Progress:
    """Return what the journal at an output records, as :func:`unfinished_run` does; empty without a journal."""
    folder = work_folder_of(output, many=many, remote_work_dir=remote_work_dir)
    return read_progress(os.path.join(folder, _JOURNAL))


def unfinished(output: Location, progress: Progress) -> OutputError:
    """Return the error for a run that would discard the work of an interrupted run."""
    return OutputError(
        f"{output_name(output)}: an earlier run was interrupted, {progress.safe_rows} of its rows are safe; continue "
        "it with --resume, or start again with --overwrite",
        reason="interrupted-run",
        file=output_name(output),
        safe_rows=progress.safe_rows,
    )


def other_version(output: Location, version: int) -> OutputError:
    """Return the error for an interrupted run whose journal this program cannot read."""
    return OutputError(
        f"{output_name(output)}: the interrupted run was started by another version of nerd-onnx (its journal has "
        f"version {version}, this program reads version {JOURNAL_VERSION}); finish it with that version, or start "
        "again with --overwrite",
        reason="other-version",
        file=output_name(output),
        found=version,
        expected=JOURNAL_VERSION,
    )


def may_resume(
    output: Location, progress: Progress, facts: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> bool:
    """
    Whether a run resumes an interrupted one; False if it discards its work.

    :param facts: fingerprint of the run: the model and the options that decide the outputs
    :param resume: the user allows resuming
    :param overwrite: the user allows discarding
    :raises OutputError: if the user allows neither, the fingerprint differs, or another version wrote the journal
    """
    name = output_name(output)

    if overwrite and not resume:
        return False
    if progress.other_version is not None:
        raise other_version(output, progress.other_version)
    if not resume:
        raise unfinished(output, progress)

    if progress.header is not None and (changed := difference(progress.header.facts, facts)):
        raise OutputError(
            f"{name}: cannot resume: {changed} changed since the run started; change it back, or start again with "
            "--overwrite",
            reason="run-changed",
            file=name,
            changed=changed,
        )

    return True


class WorkFolder(Closing):
    """
    The locked work folder of a run, with its journal.

    When it is closed with nothing worth keeping, it is removed.

    :param output: the output
    :param many: the output is a folder
    :param remote_work_dir: see :func:`work_folder_of`
    :raises BusyError: if another run is writing this output
    :raises OutputError: if the folder cannot be created
    """

    def __init__(self, output: Location, *, many: bool, remote_work_dir: str | None = None) -> None:
        self._output = output
        self.path = work_folder_of(output, many=many, remote_work_dir=remote_work_dir)
        self._journal: Journal | None = None
        self._removed = False

        self._made_output = self._make_folders(many=many)
        self._lock = RunLock(output, self.path)

    @property
    def progress(self) -> Progress:
        """The progress that the journal records."""
        return self._journal.progress if self._journal else Progress()

    @property
    def is_in_place(self) -> bool:
        """Whether the folder still has its name and the journal: somebody may have removed or moved it."""
        return self._journal is not None and self._journal.is_in_place

    def begin(self, facts: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Journal:
        """
        Open the journal: resume an interrupted run, or start a new one.

        :param facts: fingerprint of the run: the model and the options that decide the outputs
        :param resume: an interrupted run with the same fingerprint is resumed
        :param overwrite: the work of an interrupted run may be discarded, and outputs may be replaced
        :raises OutputError: if there is an interrupted run and neither is allowed, or its fingerprint differs
        """
        with output_errors(self._output):
            self._journal = Journal(os.path.join(self.path, _JOURNAL), self._output)

            # Taken now, because the journal may be discarded below. The new one must still know of lost outputs.
            damage = self._journal.damage if resume else []
            # Also if the interrupted run stored nothing: else an output that it was to replace would count as finished.
            header = self.progress.header if resume else None
            overwrites = overwrite or (header is not None and header.overwrite)

            if not (
                self._worth_keeping
                and may_resume(self._output, self.progress, facts, resume=resume, overwrite=overwrite)
            ):
                self._clear(keep_rejects=resume)
                self._journal = Journal(os.path.join(self.path, _JOURNAL), self._output)

            if self.progress.header is None:
                self._journal.append(RunEvent(JOURNAL_VERSION, overwrites, dict(facts)))
                for event in damage:
                    self._journal.append(event)
                # The lines are on disk already; the name of the journal is not.
                sync_folder(self.path)

        return self._journal

    def remove(self) -> None:
        """Delete the folder of a finished run, in the order of :meth:`_clear`."""
        self._clear()

        # While the lock is held, so that no other run begins in a folder that is half gone. Windows keeps what is open:
        # there the lock goes last.
        if system.open_files_can_be_removed():
            shutil.rmtree(self.path, ignore_errors=True)
        self._removed = True

        self._lock.close()
        if not system.open_files_can_be_removed():
            self._remove_lock()

        if self._made_output:
            with suppress(OSError):
                os.rmdir(self._output)  # succeeds only if no output was written

    def close(self) -> None:
        """Release the lock; work that is worth keeping stays."""
        if not self._removed and not self._worth_keeping:
            self.remove()

        if self._journal is not None:
            self._journal.close()
        self._lock.close()

    @property
    def _worth_keeping(self) -> bool:
        if self._journal is None:  # not read yet, so it may be worth keeping
            return os.path.exists(os.path.join(self.path, _JOURNAL))
        return self.progress.is_worth_keeping

    def _make_folders(self, *, many: bool) -> bool:
        """Create the parent of the work folder; return whether this created the output folder."""
        with output_errors(self._output):
            if self._output.is_remote:
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
                return False
            if not many or os.path.isdir(self._output):
                return False
            os.makedirs(self._output)
        return True

    def _remove_lock(self) -> None:
        """Delete the lock, which was released, and the empty folder; keep both if another run has just locked it."""
        with suppress(OSError):
            os.unlink(os.path.join(self.path, LOCK))
            os.rmdir(self.path)

    def _clear(self, *, keep_rejects: bool = False) -> None:
        """
        Delete everything but the lock: first the rejected rows of files, then the journal, then the rest.

        Without the journal, no other file is ever used. But rejected rows without the journal show that it was lost,
        and then a run is refused; so a kill between two steps must not leave them alone. A file whose rejected rows are
        gone is made again.

        :param keep_rejects: keep the rejected rows: if the journal lost lines, they show which files it had
        """
        if self._journal is not None:
            self._journal.close()
            self._journal = None

        with suppress(FileNotFoundError):  # somebody has removed it
            names = os.listdir(self.path)
            rejects = [name for name in names if name.startswith("rejects")]
            for name in [*rejects, _JOURNAL, *(name for name in names if name not in rejects)]:
                # Deleting the lock would let a second run create and lock another file of this name.
                if name != LOCK and not (keep_rejects and name in rejects):
                    with suppress(OSError):
                        os.unlink(os.path.join(self.path, name))
