"""
The standard streams of a command. The output decides the exit code, so a message that cannot be written is dropped.

Standard error may be closed, its device full, or its reader gone. Everything that prints there, also the progress bar
and other libraries, uses ``sys.stderr``, which :func:`safe_streams` replaces.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

from nerd_onnx.terminal import printable

_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = range(3)


def message(text: str) -> None:
    """Print one line on standard error, with escapes in place of control characters."""
    click.echo(printable(text), err=True)


def json_message(facts: Mapping[str, Any]) -> None:
    """Print one JSON object on standard error."""
    click.echo(json.dumps(facts), err=True)


def about_output(text: str) -> None:
    """Print on standard output text about an output that was written elsewhere; drop it if it cannot be printed."""
    try:
        click.echo(text)
    except OSError:
        _discard_output()


@contextmanager
def safe_streams() -> Iterator[None]:
    """Replace standard error by a stream that drops what cannot be written, until the context ends."""
    _occupy_closed()
    before = sys.stderr
    sys.stderr = _dropping(before)
    try:
        yield
    finally:
        sys.stderr = before

        # Python flushes standard output when it exits; an error there would change the exit code and print a traceback.
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except (OSError, ValueError):
            _discard_output()


def finish_output() -> None:
    """
    Write what standard output still has in its buffer.

    :raises OSError: if it cannot be written
    """
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def is_of_output(err: BaseException) -> bool:
    """Whether an exception was raised while text was written to standard output; standard error raises none."""
    # An OSError does not say which stream it is about, but its traceback passes through what was printing.
    printing = (click.echo.__code__, finish_output.__code__)
    return isinstance(err, OSError) and any(
        frame.f_code in printing for frame, _ in traceback.walk_tb(err.__traceback__)
    )


def _discard_output() -> None:
    """Connect standard output to nothing, so that bytes in its buffer can be flushed."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _occupy_closed() -> None:
    """
    Open something for each standard stream that is closed.

    The next file that is opened would otherwise get its number, and what a library prints would end up in that file.
    """
    # Each is opened for the wrong direction: reading a closed input and writing to a closed output stay errors.
    for number, mode in (
        (_STANDARD_INPUT, os.O_WRONLY),
        (_STANDARD_OUTPUT, os.O_RDONLY),
        (_STANDARD_ERROR, os.O_WRONLY),
    ):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, mode)  # gets the lowest free number, which is this one


def _dropping(stream: TextIO | None) -> TextIO:
    """Return a text stream to the same file that drops what cannot be written; ``stream`` itself if it is no file."""
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - is open until the process ends
    try:
        raw = _DroppingFile(stream.fileno())
    except (OSError, ValueError):
        return stream
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", write_through=True)  # type: ignore[type-var]


class _DroppingFile(io.RawIOBase):
    """An open file that takes all bytes, and drops those that cannot be written."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        rest = memoryview(data)
        with suppress(OSError):
            # A pipe may take a part of it only.
            while rest:
                rest = rest[os.write(self._number, rest) :]
        return len(data)
