"""Check a file that an earlier run finished: what the file formats share."""

from __future__ import annotations

import os

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.storage.input_stream import ByteStream, open_bytes
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_name
from nerd_onnx.storage.signatures import SIGNATURE_BYTES, is_compressed


def incomplete_output(path: Location, title: str) -> OutputError:
    """
    Return the error for an existing output that is not complete.

    :param title: name of the format in messages
    """
    return OutputError(
        f"{output_name(path)}: already exists, but is not a complete {title} file; move it away and write it again "
        "with --resume, or write all files again with --overwrite",
        reason="incomplete-output",
        file=output_name(path),
    )


def check_last_line(path: Location, title: str) -> None:
    """
    Check that a file ends with a line feed, unless it is compressed or empty.

    :param title: name of the format in messages
    :raises OutputError: if it does not, or cannot be read
    """
    try:
        with open_bytes(path) as file:
            is_packed = is_compressed(file.read(SIGNATURE_BYTES))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            # The last byte of compressed data says nothing.
            if not is_packed and file.read(1) not in (b"", b"\n"):
                raise incomplete_output(path, title)
    except (OSError, InputError) as err:
        raise incomplete_output(path, title) from err


def check_all_lines(path: Location, title: str) -> None:
    """
    Check that a file can be decompressed and read to its end.

    :param title: name of the format in messages
    :raises OutputError: if it cannot
    """
    try:
        with ByteStream(path) as stream:
            for _ in stream.lines():
                pass
    except (OSError, InputError) as err:
        raise incomplete_output(path, title) from err
