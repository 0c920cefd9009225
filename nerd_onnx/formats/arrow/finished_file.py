"""Check an Arrow file or stream that an earlier run finished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nerd_onnx.errors import InputError
from nerd_onnx.formats.arrow.messages import DamagedError, contents_of
from nerd_onnx.formats.arrow.opened import DAMAGE, OpenedBatches
from nerd_onnx.formats.finished_files import incomplete_output
from nerd_onnx.storage.input_stream import open_bytes
from nerd_onnx.storage.location import Location

_TITLE = "Arrow"


def read_metadata(path: Location) -> Mapping[bytes, bytes]:
    """
    Return the schema's metadata.

    :raises OutputError: if the messages are not complete
    """
    # Opening alone checks that the last message is complete.
    with _opened(path) as found:
        return found.schema.metadata or {}


def check_batches(path: Location) -> None:
    """
    Check that all record batches can be read.

    :raises OutputError: if one is damaged
    """
    with _opened(path) as found:
        for batch in found.batches():
            batch.validate(full=True)
            found.release()


@contextmanager
def _opened(path: Location) -> Iterator[OpenedBatches]:
    try:
        with open_bytes(path) as file:
            contents = contents_of(file, file.seek(0, 2), all_batches=not path.is_remote)
        found = OpenedBatches(path, contents)
        try:
            yield found
        finally:
            found.close()
    except (*DAMAGE, DamagedError, InputError) as err:
        raise incomplete_output(path, _TITLE) from err
