"""What the readers of text formats share: the error of one row, batches of rows, and a look at the first bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from nerd_onnx.errors import Field, InputError
from nerd_onnx.formats.base import ReadOptions
from nerd_onnx.storage.signatures import SIGNATURE_BYTES, Signature

Row = TypeVar("Row")
HEAD_BYTES = SIGNATURE_BYTES


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
        if len(group) >= options.batch_rows or size >= options.batch_bytes:
            yield group
            group, size = [], 0

    if group:
        yield group
