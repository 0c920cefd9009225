"""What the readers of text formats share: a stream of lines, errors of rows, batches, and a look at the first bytes."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from nerd_onnx.errors import Field, InputError
from nerd_onnx.formats.interfaces import ReadOptions, RowBatch
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import BYTE_ORDER_MARK, ByteStream, input_name
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.signatures import SIGNATURE_BYTES, Signature, foreign_text

Row = TypeVar("Row")
HEAD_BYTES = SIGNATURE_BYTES


class LinesReader(Closing):
    """
    A reader of one stream of lines, plain or compressed.

    :param path: a file, or ``-``
    :raises InputError: if it cannot be opened
    """

    codecs: tuple[str, ...] | None = None
    copied = None
    rewritten_because = None

    def __init__(self, path: Location, options: ReadOptions) -> None:
        self.path = path
        self.rows_read = 0
        self._name = input_name(path)
        self._options = options
        self._stream = ByteStream(path, options.line_bytes)

    def progress(self) -> float | None:
        """Return the share of the file's bytes (compressed ones in a compressed file) consumed; None for a stream."""
        return self._stream.progress()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _counted(
        self, groups: Iterable[list[Row]], batch_of: Callable[[list[Row], int], RowBatch]
    ) -> Iterator[RowBatch]:
        """
        Yield a batch for each group, and count its rows.

        :param batch_of: returns the batch of a group and of the number of rows before it
        """
        for group in groups:
            rows = batch_of(group, self.rows_read)
            # Of the group, because rejected rows were read too and may not be in the batch.
            self.rows_read += len(group)
            yield rows


class RowError(InputError):
    """
    One row cannot be read.

    :param file: name of the input
    :param row: number of the line, from 1
    :param problem: what is wrong with the row; file and line are not named
    """

    def __init__(self, file: str, row: int, problem: str, *, reason: str, **fields: Field) -> None:
        self.problem = problem
        super().__init__(f"{file}, line {row}: {problem}", reason=reason, **{"file": file, "row": row, **fields})


def not_utf8(file: str, row: int, err: UnicodeDecodeError) -> RowError:
    """Return the error of a row that cannot be decoded."""
    return RowError(
        file,
        row,
        f"not valid UTF-8 at byte {err.start + 1} (0x{err.object[err.start]:02x}); convert the file to UTF-8",
        reason="not-utf8",
        byte=err.start + 1,
    )


def other_format(name: str, found: Signature, title: str) -> InputError:
    """
    Return the error for an input that begins like a file of another format.

    :param name: name of the input
    :param found: the other format
    :param title: name of the format that was expected
    """
    return InputError(
        f"{name}: is {found.name} by its first bytes, and not {title} in UTF-8; {found.advice}",
        reason="other-format",
        file=name,
        found=found.name,
    )


def require_text(name: str, head: bytes, title: str) -> None:
    """
    Check that an input does not begin like a file of another format.

    :param name: name of the input
    :param head: its first bytes, decompressed; at least :data:`HEAD_BYTES` if it has so many
    :param title: name of the format that is expected
    :raises InputError: if it does
    """
    found = foreign_text(head)
    if found is not None:
        raise other_format(name, found, title)


def first_line(head: bytes) -> str | None:
    """
    Return the first line that has more than white space, without the white space around it; it may be cut.

    None if there is none, or the bytes are no text in UTF-8.

    :param head: the first bytes of an input
    """
    begin = head.removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")[0].rstrip()
    # Bytes at the end may be a part of a character.
    text = getincrementaldecoder("utf-8")("replace").decode(begin)
    is_text = text and "\0" not in text and "\ufffd" not in text and foreign_text(head) is None
    return text if is_text else None


def whole_first_line(head: bytes) -> str | None:
    """Return :func:`first_line`; None if its end is not known yet."""
    return first_line(head) if b"\n" in head.removeprefix(BYTE_ORDER_MARK).lstrip() else None


def grouped(rows: Iterator[Row], size_of: Callable[[Row], int], options: ReadOptions) -> Iterator[list[Row]]:
    """
    Group rows up to the rows and bytes of a batch. A full group is yielded without waiting for another row.

    :param size_of: returns the size of a row, in bytes
    """
    group: list[Row] = []
    size = 0
    for row in rows:
        if group and size + size_of(row) > options.batch_bytes:
            yield group
            group, size = [], 0

        group.append(row)
        size += size_of(row)
        # Without a look at the next row: a program that writes to a pipe may wait for the results of these.
        if len(group) >= options.batch_rows or size >= options.batch_bytes:
            yield group
            group, size = [], 0

    if group:
        yield group
