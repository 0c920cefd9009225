"""The format ``text``, for people at a terminal. It is only written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerd_onnx.formats.file_format import FileFormat

if TYPE_CHECKING:
    from nerd_onnx.formats.interfaces import WriteOptions, Writer
    from nerd_onnx.storage.location import Location


def _open_writer(path: Location, options: WriteOptions) -> Writer:
    from nerd_onnx.formats.text.writer import TextWriter

    return TextWriter(path, options)


# Without suffixes: a file gets this format only with --output-format text.
TEXT = FileFormat(name="text", title="text", holds_types=False, open_writer=_open_writer)
