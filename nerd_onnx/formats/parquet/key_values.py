"""The key-value metadata of a copied file: new columns are added where it describes columns; all else stays."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pyarrow as pa

from nerd_onnx.formats.foreign_metadata import updated_metadata
from nerd_onnx.formats.parquet.footer import CannotCopyError

_ARROW_SCHEMA = b"ARROW:schema"


def stored_schema(metadata: Mapping[bytes, bytes], columns: int) -> pa.Schema | None:
    """
    Return the Arrow schema that Arrow's writers put into a file's metadata; None without one.

    :param columns: number of columns of the file
    :raises CannotCopyError: if the schema cannot be read, or is of another file
    """
    encoded = metadata.get(_ARROW_SCHEMA)
    if encoded is None:
        return None

    try:
        schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(encoded)))
    except (pa.ArrowException, OSError, ValueError) as err:
        raise CannotCopyError("its Arrow schema is damaged") from err

    # A program that does not know the key may have copied it from a file with other columns.
    if len(schema) != columns:
        raise CannotCopyError("its Arrow schema has other columns than the file")
    return schema


def extended_metadata(
    metadata: Mapping[bytes, bytes], schema: pa.Schema | None, added: pa.Schema, facts: Mapping[bytes, bytes]
) -> dict[bytes, bytes]:
    """
    Return the metadata of a file that gets columns.

    :param schema: the Arrow schema in the metadata
    :param added: the new columns
    :param facts: more metadata
    """
    extended = {**updated_metadata(metadata, list(added)), **facts}

    # Arrow reads the metadata in its own schema and not that of the file, so both learn of the new columns.
    if schema is not None:
        own = {**updated_metadata(schema.metadata or {}, list(added)), **facts}
        joined = pa.schema([*schema, *added], metadata=own)
        extended[_ARROW_SCHEMA] = base64.b64encode(joined.serialize())

    return extended
