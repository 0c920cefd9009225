"""Split the lines of a CSV file into records: a quoted field may contain line feeds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

NumberedLine = tuple[int, bytes]
QUOTE = b'"'
_BLANK = (b"", b"\r")


class Record(NamedTuple):
    """
    One record of a CSV file.

    :param line: number of its first line, from 1
    :param content: bytes of the record, without its last line feed
    :param problem: why its quotes cannot be read; None if they can
    """

    line: int
    content: bytes
    problem: str | None = None

    @property
    def size(self) -> int:
        """Size of the record, in bytes."""
        return len(self.content)


class _End(Enum):
    """The state at the end of a line."""

    COMPLETE = auto()  # of the record
    QUOTED = auto()  # inside of a quoted field
    MALFORMED = auto()  # after a closing quote, something follows that belongs to no field


def records(lines: Iterator[NumberedLine], delimiter: bytes, maximum: int) -> Iterator[Record]:
    """
    Yield the records of a file. Blank lines between them are left out.

    If the quotes of a record cannot be read, its first line is a record with a problem, and reading continues at the
    line after it: otherwise one stray quote would swallow all rows up to the next one.

    :param lines: all lines with their numbers, blank ones included
    :param delimiter: one byte
    :param maximum: maximum size of a record, in bytes
    """
    source = _Lines(lines)
    while (first := source.take()) is not None:
        number, line = first
        if line in _BLANK:
            continue

        # A line without quotes is a record: the end of its fields need not be looked for.
        if QUOTE not in line:
            yield Record(number, line)
            continue

        parts = [first]
        problem = _complete(parts, source, delimiter, maximum)
        if problem is None:
            yield Record(number, b"\n".join(part for _, part in parts))
        else:
            source.put_back(parts[1:])
            yield Record(number, line, problem)


class _Lines:
    """Lines that can be put back, to be taken again."""

    def __init__(self, lines: Iterator[NumberedLine]) -> None:
        self._lines = lines
        self._again: deque[NumberedLine] = deque()

    def take(self) -> NumberedLine | None:
        """Return the next line; None after the last one."""
        return self._again.popleft() if self._again else next(self._lines, None)

    def put_back(self, lines: list[NumberedLine]) -> None:
        """Put back the last lines that were taken, in their order."""
        self._again.extendleft(reversed(lines))


def _complete(parts: list[NumberedLine], source: _Lines, delimiter: bytes, maximum: int) -> str | None:
    """
    Add lines to the first line of a record until the record is complete.

    :return: why its quotes cannot be read, or None
    """
    size = len(parts[0][1])
    end = _end_of(parts[0][1], delimiter, is_quoted=False)
    while end is _End.QUOTED:
        following = source.take()
        if following is None:
            return "a field begins with a quote, and no quote ends it"

        parts.append(following)
        size += 1 + len(following[1])
        if size > maximum:
            return f"a field begins with a quote, and no quote ends it within {maximum / 1e6:.1f} MB"
        end = _end_of(following[1], delimiter, is_quoted=True)

    if end is _End.MALFORMED:
        return 'text follows the quote that ends a field; expected the next field. Write a quote in a field as ""'
    return None


def _end_of(line: bytes, delimiter: bytes, *, is_quoted: bool) -> _End:
    """
    Return the state at the end of a line.

    :param is_quoted: whether the line begins inside of a quoted field
    """
    at = 0
    while True:
        # A quote opens a quoted field only as its first character, as in pyarrow: elsewhere it is text.
        if not is_quoted and line.startswith(QUOTE, at):
            is_quoted = True
            at += 1

        if is_quoted:
            at = line.find(QUOTE, at)
            while at >= 0 and line.startswith(QUOTE, at + 1):  # two quotes stand for one
                at = line.find(QUOTE, at + 2)
            if at < 0:
                return _End.QUOTED

            at += 1
            if not line.startswith(delimiter, at):
                return _End.COMPLETE if line[at : at + 2] in _BLANK else _End.MALFORMED
            is_quoted = False
        else:
            at = line.find(delimiter, at)
            if at < 0:
                return _End.COMPLETE

        at += 1
