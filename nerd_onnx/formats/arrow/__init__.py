"""The format Arrow IPC, as a file (also known as Feather, version 2) or as a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nerd_onnx.formats.file_format import FileFormat
from nerd_onnx.storage.signatures import is_arrow

if TYPE_CHECKING:
    from nerd_onnx.formats.interfaces import Reader, ReadOptions, WriteOptions, Writer
    from nerd_onnx.storage.location import Location


def _open_reader(path: Location, options: ReadOptions, typed: bool) -> Reader:  # noqa: FBT001 - as FileFormat calls it
    from nerd_onnx.formats.arrow.reader import ArrowReader

    return ArrowReader(path, options, as_json=not typed)


def _open_writer(path: Location, options: WriteOptions) -> Writer:
    from nerd_onnx.formats.arrow.messages import Contents
    from nerd_onnx.formats.arrow.reader import ArrowReader
    from nerd_onnx.formats.arrow.writer import ArrowWriter

    source = options.source.contents if isinstance(options.source, ArrowReader) else Contents()
    return ArrowWriter(path, options, source)


def _check_complete(path: Location, verify: bool) -> None:  # noqa: FBT001 - as FileFormat calls it
    from nerd_onnx.formats.arrow.finished_file import check_batches, read_metadata

    (check_batches if verify else read_metadata)(path)


def _read_metadata(path: Location) -> Mapping[bytes, bytes]:
    from nerd_onnx.formats.arrow.finished_file import read_metadata

    return read_metadata(path)


ARROW = FileFormat(
    name="arrow",
    title="Arrow",
    suffixes=(".arrow", ".arrows", ".feather", ".ipc"),
    recognizes=is_arrow,
    has_types=True,
    open_reader=_open_reader,
    open_writer=_open_writer,
    check_complete=_check_complete,
    read_metadata=_read_metadata,
)
