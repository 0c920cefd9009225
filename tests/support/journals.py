"""Journals as only a person can write them: changed events whose numbers and hashes fit again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nerd_onnx.durability.events import NO_HASH
from tests.support.processes import JOURNAL, work_folder

Events = list[dict[str, Any]]


def journal_of(output: Path) -> Path:
    """Return the path of the journal of an output."""
    return work_folder(output) / JOURNAL


def events_of(journal: Path) -> Events:
    """Return the events of a journal, without numbers and hashes."""
    return [
        {name: value for name, value in json.loads(line).items() if name not in ("number", "hash")}
        for line in journal.read_bytes().splitlines()
    ]


def forge(journal: Path, change: Callable[[Events], object]) -> None:
    """Change the events of a journal in place, and make all numbers and hashes fit."""
    events = events_of(journal)
    change(events)

    lines, previous = [], NO_HASH
    for number, event in enumerate(events):
        line, previous = sealed_line({"number": number, **event}, previous)
        lines.append(line)

    journal.write_bytes(b"".join(lines))


def sealed_line(event: dict[str, Any], previous: str) -> tuple[bytes, str]:
    """
    Return a line of a journal with a hash that fits, and the hash.

    :param event: any object, also one that is no event
    :param previous: hash of the line before
    """
    # Without the closing brace: the hash is of the line up to its own field, and of the hash before.
    body = json.dumps(event).encode()[:-1]
    digest = hashlib.sha256(previous.encode() + body).hexdigest()
    return body + f', "hash": "{digest}"'.encode() + b"}\n", digest
