"""The journal of a run: an append-only file of JSON lines, each of which is on disk before the run continues."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.output_place import output_errors

JOURNAL_VERSION = 2
Event = dict[str, Any]


@dataclass
class Progress:
    """
    The progress of a run, as its journal records it.

    :param header: version and fingerprint of the run; empty without a journal
    :param finished: the ``done`` event of each finished input, by its name
    :param unfinished: the ``begin`` event of the input that was started and is not finished, or None
    :param chunks: the ``chunk`` events of that input, in order
    :param commit: size and identity of its output just before it was renamed into place, or None
    :param rejects: size and identity of the rejects file just before it was renamed into place, or None
    """

    header: Event = field(default_factory=dict)
    finished: dict[str, Event] = field(default_factory=dict)
    unfinished: Event | None = None
    chunks: list[Event] = field(default_factory=list)
    commit: Event | None = None
    rejects: Event | None = None

    @property
    def safe_rows(self) -> int:
        """Number of rows that need not be tagged again."""
        finished = sum(int(facts["totals"]["rows"]) for facts in self.finished.values())
        return finished + sum(int(chunk["rows"]) for chunk in self.chunks)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether a later run can reuse any of the work."""
        return bool(self.finished or self.chunks or self.commit)

    def begun(self, name: str) -> Event | None:
        """Return the ``begin`` event of an input if it is the unfinished one, else None."""
        return self.unfinished if self.unfinished is not None and self.unfinished["name"] == name else None

    def take(self, event: Event) -> None:
        """Apply one event of the journal."""
        kind = event["event"]

        if kind == "run":
            self.header = event
        elif kind == "begin":
            self.unfinished, self.chunks, self.commit = event, [], None
        elif kind == "chunk":
            self.chunks.append(event)
        elif kind == "keep":
            del self.chunks[event["chunks"] :]
        elif kind == "commit":
            self.commit = event
        elif kind == "rejects":
            self.rejects = event
        elif kind == "refused":
            # A later run tries the file again, so nothing of it is kept.
            self.unfinished, self.chunks, self.commit = None, [], None
        elif kind == "done":
            self.finished[event["name"]] = event
            self.unfinished, self.chunks, self.commit = None, [], None


class Journal(Closing):
    """
    The journal of a run, open for appending.

    A crash may leave an incomplete last line. It is removed, and its event counts as not having happened.

    :param path: the file; created if it is missing
    :param output: the run's output, for messages
    :raises OutputError: if the file cannot be written, here or in :meth:`append`
    """

    def __init__(self, path: str, output: str) -> None:
        self.progress = Progress()
        self._output = output
        with output_errors(output):
            self._open(path)

    def _open(self, path: str) -> None:
        self._file = open(path, "ab+")  # noqa: SIM115 - closed by close()
        try:
            self._file.seek(0)
            self._file.truncate(_take_lines(self._file, self.progress))
        except BaseException:
            self._file.close()
            raise

    def append(self, event: str, **facts: Any) -> None:
        """Append an event; it is on disk when this method returns."""
        line: Mapping[str, Any] = {"event": event, **facts}

        with output_errors(self._output):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

        # Only now: progress must never be ahead of what a crash would leave on disk.
        self.progress.take(dict(line))

    def close(self) -> None:
        """Close the file; a buffered line that could not be written is lost."""
        with suppress(OSError):
            self._file.close()


def read_progress(path: str) -> Progress:
    """Return the progress that a journal records, without changing it; empty if it is missing or cannot be read."""
    progress = Progress()
    with suppress(OSError), open(path, "rb") as file:
        _take_lines(file, progress)
    return progress


def _take_lines(lines: Iterable[bytes], progress: Progress) -> int:
    """Apply all complete lines up to the first damaged one, and return their size in bytes."""
    size = 0

    for line in lines:
        try:
            if not line.endswith(b"\n"):
                break  # a crash interrupted the write of this line
            progress.take(json.loads(line))
        except (ValueError, KeyError, TypeError):
            break
        size += len(line)

    return size
