"""Check a CSV file that an earlier run finished."""

from __future__ import annotations

from nerd_onnx.errors import InputError
from nerd_onnx.formats.csv.records import records
from nerd_onnx.formats.finished_files import incomplete_output
from nerd_onnx.storage.input_stream import MAX_LINE_BYTES, ByteStream
from nerd_onnx.storage.location import Location


def check_records(path: Location, title: str, delimiter: str) -> None:
    """
    Check that a file has a header, and can be read to its end: a cut one may end inside of a quoted field.

    :param title: name of the format in messages
    :raises OutputError: if it cannot
    """
    try:
        with ByteStream(path) as stream:
            found = records(stream.lines(blank=True), delimiter.encode(), MAX_LINE_BYTES)
            has_header = next(found, None) is not None
            is_damaged = any(record.problem is not None for record in found)
    except (OSError, InputError) as err:
        raise incomplete_output(path, title) from err

    if is_damaged or not has_header:
        raise incomplete_output(path, title)
