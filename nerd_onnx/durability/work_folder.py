"""The folder beside an output that holds what a run needs to go on after a crash."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nerd_onnx.durability.fingerprints import difference
from nerd_onnx.durability.journal import JOURNAL_VERSION, Journal, Progress, read_progress
from nerd_onnx.durability.lock import RunLock
from nerd_onnx.errors import OutputError
from nerd_onnx.storage.atomic_file import sync_folder
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.location import base_name, is_uri, place_name
from nerd_onnx.storage.output_place import output_errors, output_name
from nerd_onnx.storage.remote import cache_folder

_SUFFIX = ".nerd-work"
_JOURNAL = "journal.jsonl"
_READABLE_NAME = 40
_LONGEST_NAME = 200  # bytes: file systems take 255


def work_folder_of(output: str, *, many: bool, stores_folder: str | None = None) -> str:
    """
    Name the work folder of an output: hidden, beside a file, inside a folder; of one in a store, in a local folder.

    :param stores_folder: that local folder; None for one in the user's cache
    """
    if is_uri(output):
        place = place_name(output)
        digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
        name = f"{base_name(place)[:_READABLE_NAME]}-{digest}{_SUFFIX}"
        return os.path.join(os.path.realpath(stores_folder or cache_folder("work")), name)
    final = os.path.realpath(output)
    if many:
        return os.path.join(final, _SUFFIX)
    folder, name = os.path.split(final)
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}{_SUFFIX}")


def unfinished_run(output: str, *, many: bool, stores_folder: str | None = None) -> Progress | None:
    """
    Tell what an unfinished run at an output has done that is worth keeping; None where there is none.

    Nothing is locked or changed. The parameters are those of :func:`work_folder_of`.
    """
    progress = read_progress(os.path.join(work_folder_of(output, many=many, stores_folder=stores_folder), _JOURNAL))
    return progress if progress.header and progress.is_worth_keeping else None


def unfinished(output: str, progress: Progress) -> OutputError:
    """Make the error for a run that would forget an unfinished one."""
    return OutputError(
        f"{output_name(output)}: an earlier run was interrupted, {progress.safe_rows} of its rows are safe; continue "
        "it with --resume, or start again with --overwrite",
        reason="interrupted-run",
        file=output_name(output),
        safe_rows=progress.safe_rows,
    )


def may_go_on(output: str, progress: Progress, facts: Mapping[str, Any], *, resume: bool, overwrite: bool) -> bool:
    """
    Tell whether a run goes on with an unfinished one; else it forgets it.

    :param facts: what the outputs depend on: model and options
    :raises OutputError: when it was told neither, or the facts differ
    """
    name = output_name(output)
    if not resume:
        if overwrite:
            return False
        raise unfinished(output, progress)
    if progress.header.get("version") != JOURNAL_VERSION:
        raise OutputError(
            f"{name}: the interrupted run was started by another version of nerd-onnx; start again with --overwrite",
            reason="other-version",
            file=name,
        )
    if changed := difference(progress.header["facts"], facts):
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
    The work folder of a run: locked, with the journal of what is done.

    Closed without anything done that is worth keeping, it removes itself.

    :param output: the output
    :param many: it is a folder of outputs
    :param stores_folder: see :func:`work_folder_of`
    :raises OutputError: when another run is at this output, or the folder cannot be made
    """

    def __init__(self, output: str, *, many: bool, stores_folder: str | None = None) -> None:
        self._output = output
        self.path = work_folder_of(output, many=many, stores_folder=stores_folder)
        self._journal: Journal | None = None
        self._removed = False
        self._made = self._make_folders(many=many)
        self._lock = RunLock(output, self.path)

    @property
    def progress(self) -> Progress:
        """What is done."""
        return self._journal.progress if self._journal else Progress()

    @property
    def safe_rows(self) -> int:
        """Number of rows that need not be tagged again."""
        return self.progress.safe_rows

    def begin(self, facts: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Journal:
        """
        Open the journal: go on with an unfinished run, or begin a new one.

        :param facts: what the outputs depend on: model and options
        :param resume: an unfinished run may be gone on with, when its facts are the same
        :param overwrite: it may be forgotten
        :raises OutputError: when there is one and neither is allowed, or its facts differ
        """
        with output_errors(self._output):
            self._journal = Journal(os.path.join(self.path, _JOURNAL), self._output)
            header = self.progress.header
            if header and not (
                self._worth_keeping
                and may_go_on(self._output, self.progress, facts, resume=resume, overwrite=overwrite)
            ):
                self._clear()
                self._journal = Journal(os.path.join(self.path, _JOURNAL), self._output)
            if not self.progress.header:
                self._journal.append("run", version=JOURNAL_VERSION, overwrite=overwrite, facts=dict(facts))
                sync_folder(self.path)
        return self._journal

    def remove(self) -> None:
        """Delete the folder: the run is finished. The journal goes first; without it the rest means nothing."""
        self._clear()
        shutil.rmtree(self.path, ignore_errors=True)
        self._removed = True
        self._lock.close()
        if self._made:
            with suppress(OSError):
                os.rmdir(self._output)  # where nothing was put into it

    def close(self) -> None:
        """Let go of the output; what is worth keeping stays."""
        if not self._removed and not self._worth_keeping:
            self.remove()
        if self._journal is not None:
            self._journal.close()
        self._lock.close()

    @property
    def _worth_keeping(self) -> bool:
        if self._journal is None:  # not looked at
            return os.path.exists(os.path.join(self.path, _JOURNAL))
        return self.progress.is_worth_keeping

    def _make_folders(self, *, many: bool) -> bool:
        """Make the folder of outputs, or of work on stores; tell whether the former was not there."""
        with output_errors(self._output):
            if is_uri(self._output):
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
                return False
            if not many or os.path.isdir(self._output):
                return False
            os.makedirs(self._output)
        return True

    def _clear(self) -> None:
        """Delete everything but the lock."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        names = [_JOURNAL, *os.listdir(self.path)]
        for name in names:
            if name != "lock":
                with suppress(OSError):
                    os.unlink(os.path.join(self.path, name))
