"""
The journal of a run: an append-only file of events, each of which is on disk before the run continues.

A journal counts up to the first line that is not the one that was written in its place. The work that later lines
record is done again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from nerd_onnx.durability.events import (
    JOURNAL_VERSION,
    NO_HASH,
    BeginEvent,
    ChunkEvent,
    CommitEvent,
    DamageEvent,
    DoneEvent,
    Event,
    KeepEvent,
    RefusedEvent,
    RejectsEvent,
    ReplaceEvent,
    RunEvent,
    event_anywhere,
    event_of,
    line_of,
    version_of_journal,
)
from nerd_onnx.storage.atomic_file import write_whole
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors
from nerd_onnx.storage.regular_file import open_regular


@dataclass(frozen=True)
class Finished:
    """
    A file whose output has its name.

    :param commit: what is known of it
    :param version: version of the output just after it got its name; None if the run ended before it was recorded
    """

    commit: CommitEvent
    version: str | None = None


@dataclass
class Progress:
    """
    The progress of a run, as its journal records it.

    :param header: version and fingerprint of the run; None without a journal
    :param other_version: version of a journal that this program cannot read; None for others
    :param finished: the finished files, by their names
    :param replaced: files that were finished and are tagged again, because their output was lost, or because damaged
        lines of the journal recorded it
    :param unfinished: the file that was begun and is not finished, or None
    :param chunks: the stored results of that file, in order
    :param commit: its output, just before that got its name, or None
    :param rejects: the rejects file, just before it got its name, or None
    :param damaged_lines: number of lines that did not count, from the first one on that was not what had been written
        in its place
    """

    header: RunEvent | None = None
    other_version: int | None = None
    finished: dict[str, Finished] = field(default_factory=dict)
    replaced: dict[str, Finished] = field(default_factory=dict)
    unfinished: BeginEvent | None = None
    chunks: list[ChunkEvent] = field(default_factory=list)
    commit: CommitEvent | None = None
    rejects: RejectsEvent | None = None
    damaged_lines: int = 0

    @property
    def stored_rows(self) -> int:
        """Number of rows in the chunks."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def stored_tokens(self) -> int:
        """Number of tokens of these rows."""
        return sum(chunk.tokens for chunk in self.chunks)

    @property
    def safe_rows(self) -> int:
        """Number of rows that need not be tagged again, if all files are what the journal records."""
        return sum(finished.commit.totals.rows for finished in self.finished.values()) + self.stored_rows

    @property
    def is_worth_keeping(self) -> bool:
        """Whether a later run, perhaps of another version, can reuse any of the work."""
        has_results = self.finished or self.chunks or self.commit
        # These are no results. Without them, outputs that are to be made again would count as finished.
        knows_outputs = self.header and (self.replaced or self.damaged_lines)
        return bool(has_results or knows_outputs or self.other_version)

    def begun(self, name: str) -> BeginEvent | None:
        """Return the ``begin`` event of an input if it is the unfinished one, else None."""
        return self.unfinished if self.unfinished is not None and self.unfinished.name == name else None

    def take(self, event: Event) -> None:  # noqa: C901 - one case per event
        """
        Apply one event of the journal.

        :raises ValueError: if the event cannot follow the ones before it
        """
        if isinstance(event, RunEvent) != (self.header is None):
            raise ValueError("the run must be the first event, and no other one")

        match event:
            case RunEvent():
                self.header = event
            case BeginEvent():
                # Its output was lost. Until the new one has its name, what is there may be replaced.
                if event.name in self.finished:
                    self.replaced[event.name] = self.finished.pop(event.name)
                self._leave(event)
            case ChunkEvent():
                # Chunks are named by their number only: without a gap, each holds the rows that follow the one before.
                self._require(self.unfinished is not None and event.first_row == self.stored_rows)
                self.chunks.append(event)
            case KeepEvent():
                self._require(event.chunks <= len(self.chunks))
                del self.chunks[event.chunks :]
            case CommitEvent():
                self._require(self.begun(event.name) is not None)
                self.commit = event
            case DoneEvent():
                if self.commit is None or self.commit.name != event.name:
                    raise ValueError("done without a commit")
                self.finished[event.name] = Finished(self.commit, event.version)
                self.replaced.pop(event.name, None)
                self._leave(None)
            case RefusedEvent():
                self._leave(None)  # a later run tries the file again, so nothing of it is kept
            case RejectsEvent():
                self.rejects = event
            case DamageEvent() | ReplaceEvent():
                self.note(event)

    def note(self, event: DamageEvent | ReplaceEvent) -> None:
        """Apply an event of the damage, which may stand anywhere."""
        if isinstance(event, DamageEvent):
            self.damaged_lines += event.lines
        else:
            self.replaced[event.commit.name] = Finished(event.commit)

    def _leave(self, unfinished: BeginEvent | None) -> None:
        self.unfinished, self.chunks, self.commit = unfinished, [], None

    @staticmethod
    def _require(fits: bool) -> None:  # noqa: FBT001 - the condition itself
        if not fits:
            raise ValueError("the event does not fit the ones before it")


class Journal(Closing):
    """
    The journal of a run, open for appending.

    A crash may leave an incomplete last line. It is removed, and its event counts as not having happened. So are all
    lines from the first damaged one on. Their number is recorded, and what they record of outputs, because these
    outputs are replaced.

    :param path: the file; created if it is missing
    :param output: the run's output, for messages
    :ivar damage: events that record the damage; also if nothing is left of the journal, so that they are not in it
    :raises OutputError: if the file cannot be written, here or in :meth:`append`
    """

    def __init__(self, path: str, output: Location) -> None:
        self.path = path
        self._output = output
        with output_errors(output):
            self._open(path)

    @property
    def progress(self) -> Progress:
        """The progress that the journal records."""
        return self._lines.progress

    @property
    def is_in_place(self) -> bool:
        """Whether the file still has its name: somebody may have removed or moved its folder."""
        with suppress(OSError, ValueError):
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        return False

    def _open(self, path: str) -> None:
        found = _repaired(path)
        self._file = open(path, "ab+")  # noqa: SIM115 - closed by close()
        try:
            # Read again from the file that is appended to: the repaired journal is another file than the one found.
            self._file.seek(0)
            self._lines = _Lines(self._file)

            # The journal of another version is refused, and stays as it is.
            if self.progress.other_version is None:
                self._file.truncate(self._lines.size)
        except BaseException:
            self._file.close()
            raise

        # Of the file as it was found: the repaired one has no damaged line.
        self.damage = found.damage

    def append(self, event: Event) -> None:
        """Append an event; it is on disk when this method returns."""
        line, digest = line_of(self._lines.count, event, self._lines.last_hash)

        with output_errors(self._output):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

        # Only now: progress must never be ahead of what a crash would leave on disk.
        self._lines.accept(line, event, digest)

    def close(self) -> None:
        """Close the file; a buffered line that could not be written is lost."""
        with suppress(OSError):
            self._file.close()


def read_progress(path: str) -> Progress:
    """Return the progress that a journal records, without changing it; empty if it is missing or cannot be read."""
    lines = _Lines(())
    with suppress(OSError), open_regular(path) as file:
        lines = _Lines(file)

    # A run that opens the journal writes these events into it; here nothing is written.
    for event in lines.damage:
        lines.progress.note(event)
    return lines.progress


def _repaired(path: str) -> _Lines:
    """
    Return the lines of a journal as they are found, and write a damaged journal again without its damaged lines.

    The intact lines are followed by the events of the damage. Both are written at once, so a crash loses neither.
    """
    lines, content = _Lines(()), []
    with suppress(FileNotFoundError), open_regular(path) as file:
        lines = _Lines(file)
        # If not even the run event is intact, the caller begins a new journal, which gets the events of the damage.
        if not lines.damage or lines.progress.header is None:
            return lines

        file.seek(0)
        content.append(file.read(lines.size))
        previous = lines.last_hash

        for number, event in enumerate(lines.damage, lines.count):
            line, previous = line_of(number, event, previous)
            content.append(line)

    # After the file was closed, because Windows replaces no open file.
    if content:
        write_whole(path, b"".join(content), overwrite=True)
    return lines


class _Lines:
    """
    The lines of a journal up to the first damaged one.

    :param lines: the lines of the file
    :ivar progress: what they record
    :ivar size: their size in bytes
    :ivar count: their number
    :ivar last_hash: hash of the last one
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.progress = Progress()
        self.size = self.count = 0
        self.last_hash = NO_HASH

        self._damaged = 0
        self._lost: dict[str, CommitEvent] = {}

        for line in lines:
            if not line.endswith(b"\n"):
                break  # a crash interrupted the write of this line

            if self.count == 0 and (version := version_of_journal(line)) not in (None, JOURNAL_VERSION):
                self.progress.other_version = version
                break

            # No line after a damaged one counts, even if its hash fits: what it builds on is not known.
            if self._damaged or not self._is_accepted(line):
                self._damaged += 1
                self._look_for_output(line)

    @property
    def damage(self) -> list[DamageEvent | ReplaceEvent]:
        """The events that record the damage; empty without any."""
        if not self._damaged:
            return []
        return [DamageEvent(self._damaged), *map(ReplaceEvent, self._lost.values())]

    def accept(self, line: bytes, event: Event, digest: str) -> None:
        """
        Apply an event.

        :raises ValueError: if it cannot follow the ones before it
        """
        self.progress.take(event)
        self.size, self.count, self.last_hash = self.size + len(line), self.count + 1, digest

    def _is_accepted(self, line: bytes) -> bool:
        """Whether a line is the one that was written in this place; then it is applied."""
        with suppress(ValueError):
            self.accept(line, *event_of(line, self.count, self.last_hash))
            return True
        return False

    def _look_for_output(self, line: bytes) -> None:
        """Note the output that a line names which does not count: it exists, and this run may replace it."""
        with suppress(ValueError):
            event = event_anywhere(line)
            if isinstance(event, CommitEvent | ReplaceEvent):
                commit = event if isinstance(event, CommitEvent) else event.commit
                self._lost[commit.name] = commit
