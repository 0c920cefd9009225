"""The format JSON Lines, read and written as raw lines or as typed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerd_onnx.formats.file_format import FileFormat

if TYPE_CHECKING:
    from nerd_onnx.formats.interfaces import Reader, ReadOptions, WriteOptions, Writer
    from nerd_onnx.storage.location import Location


def _recognizes(head: bytes) -> bool:
    from nerd_onnx.storage.input_stream import BYTE_ORDER_MARK
    from nerd_onnx.storage.signatures import foreign_format, is_compressed

    # No other format is recognized below a compression, so the content need not be decompressed.
    if is_compressed(head):
        return True
    return foreign_format(head) is None and head.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{")


def _open_reader(path: Location, options: ReadOptions, typed: bool) -> Reader:  # noqa: FBT001 - as FileFormat calls it
    from nerd_onnx.formats.jsonl.reader import RawLinesReader, TypedLinesReader

    return TypedLinesReader(path, options) if typed else RawLinesReader(path, options)


def _open_writer(path: Location, options: WriteOptions) -> Writer:
    from nerd_onnx.formats.jsonl.writer import JsonLinesWriter
    from nerd_onnx.storage.input_stream import input_name

    return JsonLinesWriter(
        path,
        source_name=input_name(options.source.path),
        source_schema=options.source.schema,
        layout=options.layout,
        replace=options.replace,
        overwrite=options.overwrite,
        reasons_field=options.reasons_field,
        scratch=options.scratch,
    )


def _check_complete(path: Location, verify: bool) -> None:  # noqa: FBT001 - as FileFormat calls it
    from nerd_onnx.formats.finished_files import check_all_lines, check_last_line

    check_last_line(path, JSONL.title)
    if verify:
        check_all_lines(path, JSONL.title)


JSONL = FileFormat(
    name="jsonl",
    title="JSON Lines",
    suffixes=(".jsonl", ".ndjson", ".json"),
    recognizes=_recognizes,
    is_compressible=True,
    shows_columns=True,
    open_reader=_open_reader,
    open_writer=_open_writer,
    check_complete=_check_complete,
)
