"""
The events of a journal, and how each is written as a line and read back.

A line is a JSON object: the event's number and name, its fields, and a hash. The hash is the SHA-256 of the hash of the
line before and of the rest of this line. So a line that was changed, moved, repeated or removed does not fit its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from nerd_onnx.durability.totals import Totals
from nerd_onnx.storage.file_record import FileRecord

# Increase it with each change of the events: a journal of another version is refused, and not guessed at.
JOURNAL_VERSION = 3
NO_HASH = ""  # before the first line

_HASH = b', "hash": "'
_HASH_DIGITS = 64
_END = b'"}\n'
_FRAME = ("number", "event", "hash")  # fields of every line


@dataclass(frozen=True)
class RunEvent:
    """
    A run was started.

    :param version: of the journal
    :param overwrite: the run may replace existing outputs
    :param facts: fingerprint of the run: the model and the options that decide the outputs
    """

    version: int
    overwrite: bool
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class BeginEvent:
    """
    The tagging of a file was started.

    :param name: name of the file
    :param input: its fingerprint
    """

    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class ChunkEvent:
    """
    A chunk with results of the begun file is on disk. Its file is named by its number among the chunks.

    :param first_row: index of its first row among the rows of the file that have results
    :param rows: number of its rows
    :param tokens: number of their tokens
    :param size: size of its file in bytes
    :param sha256: of its file
    """

    first_row: int
    rows: int
    tokens: int
    size: int
    sha256: str


@dataclass(frozen=True)
class KeepEvent:
    """
    Chunks of the begun file were found to be damaged.

    :param chunks: number of the chunks that count, from the first one on
    """

    chunks: int


@dataclass(frozen=True)
class PartRecord:
    """
    The rejected rows of one file, in a file of the work folder.

    :param size: its size in bytes
    :param sha256: of its content
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class CommitEvent:
    """
    The output of the begun file is complete and about to get its name.

    :param name: name of the file
    :param input: fingerprint of the input
    :param input_version: a value that changes with every change of the input, see :func:`version_of`
    :param input_sha256: of the input's content; None for an input in remote storage
    :param on_error: the run's ``--on-error``
    :param totals: counts of the file's rows
    :param rejects: the file's rejected rows; None without any
    :param output: the output; None if it is a pipe or device
    """

    name: str
    input: Mapping[str, Any]
    input_version: str | None
    input_sha256: str | None
    on_error: str
    totals: Totals
    rejects: PartRecord | None
    output: FileRecord | None


@dataclass(frozen=True)
class DoneEvent:
    """
    The output of the last commit has its name.

    :param name: name of the file
    :param version: a value that changes with every change of the output, see :func:`version_of`
    """

    name: str
    version: str | None


@dataclass(frozen=True)
class RefusedEvent:
    """
    A file cannot be read. A resumed run tries it again.

    :param name: name of the file
    :param reason: the error
    """

    name: str
    reason: str


@dataclass(frozen=True)
class RejectsEvent:
    """
    The rejects file is complete and about to get its name.

    :param file: the rejects file; None if it is a pipe or device
    """

    file: FileRecord | None


@dataclass(frozen=True)
class DamageEvent:
    """
    Lines of the journal were damaged, and were removed.

    :param lines: their number
    """

    lines: int


@dataclass(frozen=True)
class ReplaceEvent:
    """
    A damaged line recorded this output. The file is tagged again, and its output replaced.

    :param commit: what the line recorded
    """

    commit: CommitEvent


Event = (
    RunEvent
    | BeginEvent
    | ChunkEvent
    | KeepEvent
    | CommitEvent
    | DoneEvent
    | RefusedEvent
    | RejectsEvent
    | DamageEvent
    | ReplaceEvent
)

# These names are in journals on disk. They stay when a class is renamed.
_CLASSES: dict[str, type[Any]] = {
    "run": RunEvent,
    "begin": BeginEvent,
    "chunk": ChunkEvent,
    "keep": KeepEvent,
    "commit": CommitEvent,
    "done": DoneEvent,
    "refused": RefusedEvent,
    "rejects": RejectsEvent,
    "damage": DamageEvent,
    "replace": ReplaceEvent,
}
_NAMES = {kind: name for name, kind in _CLASSES.items()}


def line_of(number: int, event: Event, previous: str) -> tuple[bytes, str]:
    """
    Return the line of an event, and its hash.

    :param number: number of the event in the journal, from 0
    :param previous: hash of the line before; :data:`NO_HASH` for the first line
    """
    # The hash is put before the closing bracket as text: a reader then hashes the bytes that it finds, and need not
    # write the JSON again in the same way.
    body = json.dumps({"number": number, "event": _NAMES[type(event)], **asdict(event)}).encode()[:-1]
    digest = _hash_of(previous, body)
    return body + _HASH + digest.encode() + _END, digest


def event_of(line: bytes, number: int, previous: str) -> tuple[Event, str]:
    """
    Return the event of a line, and its hash.

    :param line: the line with its line feed
    :param number: number that the event must have
    :param previous: hash of the line before
    :raises ValueError: if the line is not the one that was written in this place, or is no event
    """
    tail = len(_HASH) + _HASH_DIGITS + len(_END)
    # A digest that is no UTF-8 ends in a UnicodeDecodeError, which is a ValueError too.
    body, digest = line[:-tail], line[-tail:][len(_HASH) : -len(_END)].decode()

    # The whole line is compared, because the bytes around the hash are not hashed.
    if line != body + _HASH + digest.encode() + _END or digest != _hash_of(previous, body):
        raise ValueError("the hash of the line does not fit its place")

    if _parsed(line).get("number") != number:
        raise ValueError(f"the event is not number {number}")
    return event_anywhere(line), digest


def event_anywhere(line: bytes) -> Event:
    """
    Return the event of a line, whatever its place.

    :raises ValueError: if the line is no event
    """
    facts = _parsed(line)
    own = {name: value for name, value in facts.items() if name not in _FRAME}

    # An unknown name gives the class None, which no value fits.
    event: Event = _typed(_CLASSES.get(str(facts.get("event"))), own)
    return event


def version_of_journal(line: bytes) -> int | None:
    """Return the version of the journal that begins with a line, whatever version that is; None for another line."""
    try:
        facts = _parsed(line)
    except ValueError:
        return None

    version = facts.get("version")
    return version if facts.get("event") == "run" and type(version) is int else None


def _hash_of(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode() + body).hexdigest()


def _parsed(line: bytes) -> dict[str, Any]:
    """
    Return the JSON object of a line.

    :raises ValueError: if it is something else
    """
    try:
        facts = json.loads(line)
    except RecursionError as err:  # deep brackets in a damaged line must not end the run
        raise ValueError("nested too deeply") from err

    if not isinstance(facts, dict):
        raise ValueError("expected an object")  # noqa: TRY004 - each damage of a line is a ValueError
    return facts


def _typed(kind: Any, value: Any) -> Any:
    """
    Return a JSON value as a type: a dataclass, a mapping, a simple type, or one of these or None.

    :raises ValueError: if the value has another type, a field is missing or unknown, or a number is below 0
    """
    if get_origin(kind) is UnionType:
        present = next(option for option in get_args(kind) if option is not type(None))
        return None if value is None else _typed(present, value)

    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise ValueError(f"expected the fields of {kind}")
        return kind(**{name: _typed(hints[name], value[name]) for name in hints})

    simple = get_origin(kind) or kind
    expected = dict if simple is Mapping else simple

    # Not isinstance(): True is an int, and must not pass for a count.
    if type(value) is not expected:
        raise ValueError(f"expected {expected}, found {type(value)}")

    if isinstance(value, int) and value < 0:
        raise ValueError(f"expected a count, found {value}")
    return value


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the type of each field of a dataclass."""
    # Annotations are postponed in this module, so dataclasses know the types of their fields as texts only.
    hints = get_type_hints(kind)
    return {part.name: hints[part.name] for part in fields(kind)}
