"""The formats CSV and TSV: one row per record, with a header."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nerd_onnx.formats.file_format import FileFormat

if TYPE_CHECKING:
    from nerd_onnx.formats.interfaces import Reader, ReadOptions, WriteOptions, Writer
    from nerd_onnx.storage.location import Location


_NAME = re.compile(r'"[^"]+"|[^"\s\d]([^"]*[^"\s])?')  # in a header, quoted or not


def _looks_like_header(head: bytes, delimiter: str) -> bool:
    """
    Whether a first line is names between delimiters.

    In a sentence, a comma stands before a space or within a number.
    """
    from nerd_onnx.formats.line_reading import whole_first_line

    line = whole_first_line(head)
    names = [] if line is None else line.split(delimiter)
    return len(names) > 1 and all(map(_NAME.fullmatch, names))


def _format(name: str, title: str, delimiters: str) -> FileFormat:
    """
    Return the description of a format.

    :param delimiters: those that an input may have; outputs have the first one
    """

    def open_reader(path: Location, options: ReadOptions, _typed: bool) -> Reader:  # noqa: FBT001 - as FileFormat calls it
        from nerd_onnx.formats.csv.reader import CsvReader

        return CsvReader(path, options, delimiters, title)

    def open_writer(path: Location, options: WriteOptions) -> Writer:
        from nerd_onnx.formats.csv.writer import CsvWriter

        return CsvWriter(path, options, delimiters[0])

    def check_complete(path: Location, verify: bool) -> None:  # noqa: FBT001 - as FileFormat calls it
        from nerd_onnx.formats.csv.finished_file import check_records
        from nerd_onnx.formats.finished_files import check_last_line

        check_last_line(path, title)
        if verify:
            check_records(path, title, delimiters[0])

    return FileFormat(
        name=name,
        title=title,
        suffixes=(f".{name}",),
        recognizes_stream=lambda head: any(_looks_like_header(head, one) for one in delimiters),
        is_compressible=True,
        has_types=True,
        holds_types=False,
        shows_columns=True,
        open_reader=open_reader,
        open_writer=open_writer,
        check_complete=check_complete,
    )


CSV = _format("csv", "CSV", ",;|\t")
TSV = _format("tsv", "TSV", "\t")
