"""The format plain text: one text per line. It is only read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerd_onnx.formats.file_format import FileFormat

if TYPE_CHECKING:
    from nerd_onnx.formats.base import Reader, ReadOptions
    from nerd_onnx.storage.location import Location


def _open_reader(path: Location, options: ReadOptions, _typed: bool) -> Reader:  # noqa: FBT001 - as FileFormat calls it
    from nerd_onnx.formats.plain.reader import PlainTextReader

    return PlainTextReader(path, options)


PLAIN = FileFormat(
    name="txt",
    title="plain text",
    suffixes=(".txt",),
    is_compressible=True,
    is_listed=False,  # the .txt files in a folder of data are often notes about it
    open_reader=_open_reader,
)
