"""The format plain text: one text per line. It is only read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerd_onnx.formats.file_format import FileFormat

if TYPE_CHECKING:
    from nerd_onnx.formats.interfaces import Reader, ReadOptions
    from nerd_onnx.storage.location import Location


def _looks_like_text(head: bytes) -> bool:
    """
    Whether the first line is not JSON, nor a broken line of JSON.

    Without a line that has more than white space, nothing is known: the stream may be empty.
    """
    import json

    from nerd_onnx.formats.line_reading import first_line

    line = first_line(head)
    if line is None or line.startswith(("{", "[")):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True

    return False


def _open_reader(path: Location, options: ReadOptions, _typed: bool) -> Reader:  # noqa: FBT001 - as FileFormat calls it
    from nerd_onnx.formats.plain.reader import PlainTextReader

    return PlainTextReader(path, options)


PLAIN = FileFormat(
    name="txt",
    title="plain text",
    suffixes=(".txt",),
    recognizes_stream=_looks_like_text,
    is_compressible=True,
    is_listed=False,  # the .txt files in a folder of data are often notes about it
    open_reader=_open_reader,
)
