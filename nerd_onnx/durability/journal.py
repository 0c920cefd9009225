"""What is finished, by which model and options: an append-only file of JSON lines, each on disk before work goes on."""

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
    What a journal tells.

    :param header: how the run was begun: its fingerprint; empty where there is no journal
    :param finished: what is said of each input that is done, by name
    :param unfinished: the input that was begun and is not done, with its fingerprint; None for none
    :param chunks: finished chunks of that input, in order
    :param commit: its output as it was about to be named, None where it did not come to that
    :param rejects: the file of rejects as it was about to be named, None where it did not come to that
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
        """Whether something is done that another run need not do again."""
        return bool(self.finished or self.chunks or self.commit)

    def begun(self, name: str) -> Event | None:
        """Give what is said of an input where it is the one that was under way; None for others."""
        return self.unfinished if self.unfinished is not None and self.unfinished["name"] == name else None

    def take(self, event: Event) -> None:
        """Take one more line into account."""
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
            self.unfinished, self.chunks, self.commit = None, [], None
        elif kind == "done":
            self.finished[event["name"]] = event
            self.unfinished, self.chunks, self.commit = None, [], None


class Journal(Closing):
    """
    The journal of a run, open for what comes next.

    A line that was torn by a crash at its end is cut away: what it would have said did not happen.

    :param path: the file; made when it is missing
    :param output: the run's output, for messages
    :raises OutputError: when the disk refuses, here and later
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
        """Add a line; it is on disk when this returns."""
        line: Mapping[str, Any] = {"event": event, **facts}
        with output_errors(self._output):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.progress.take(dict(line))

    def close(self) -> None:
        """Close the file; a line that the disk refused is tried once more there, and then given up."""
        with suppress(OSError):
            self._file.close()


def read_progress(path: str) -> Progress:
    """Read what a journal tells, and leave it as it is; of one that is not there or cannot be read, nothing."""
    progress = Progress()
    with suppress(OSError), open(path, "rb") as file:
        _take_lines(file, progress)
    return progress


def _take_lines(lines: Iterable[bytes], progress: Progress) -> int:
    """Take the whole lines into account, and give the bytes they take."""
    size = 0
    for line in lines:
        try:
            if not line.endswith(b"\n"):
                break
            progress.take(json.loads(line))
        except (ValueError, KeyError, TypeError):
            break
        size += len(line)
    return size
