"""Check a Parquet file that an earlier run finished."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.errors import InputError
from nerd_onnx.formats.finished_files import incomplete_output
from nerd_onnx.formats.parquet.pages import Pages
from nerd_onnx.storage.input_stream import open_bytes
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_name

_TITLE = "Parquet"
_FOOTER_BYTES = 1 << 20
_BATCH_ROWS = 1 << 16


def read_metadata(path: Location) -> Mapping[bytes, bytes]:
    """
    Return the schema's metadata of a Parquet file.

    :raises OutputError: if its footer cannot be read
    """
    try:
        with open_bytes(path, _FOOTER_BYTES) as file:
            return pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError, InputError) as err:
        raise incomplete_output(path, _TITLE) from err


def check_pages(path: Location) -> None:
    """
    Check that all pages of a Parquet file can be read.

    :raises OutputError: if one is damaged
    """
    try:
        with open_bytes(path) as file, pq.ParquetFile(file, page_checksum_verification=True) as found:
            pages = Pages(file, output_name(path))
            for group in range(found.num_row_groups):
                for batch in found.iter_batches(pages.rows_at_once(group, None, _BATCH_ROWS), row_groups=[group]):
                    batch.validate(full=True)
    except (pa.ArrowException, OSError, InputError, ValueError) as err:
        raise incomplete_output(path, _TITLE) from err
