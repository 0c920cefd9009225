"""Row batches to files: open the writer that fits. Outputs appear whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from nerd_onnx.tables.jsonl_sink import JsonLinesSink
from nerd_onnx.tables.parquet_sink import ParquetSink
from nerd_onnx.tables.rows import Format, Sink, Source
from nerd_onnx.tables.streams import input_name
from nerd_onnx.tables.whole_file import check_output

__all__ = ["Sink", "check_output", "open_sink"]


def open_sink(
    path: str,
    *,
    format: Format,  # noqa: A002 - the option's name
    source: Source,
    entities_field: pa.Field,
    entities_metadata: Mapping[str, str],
    replace: bool,
    overwrite: bool,
) -> Sink:
    """
    Open an output of either format for the rows of a source.

    :param path: a file, or ``-`` for standard output
    :param format: the format
    :param source: where the rows come from; gives schema, compression and the name in messages
    :param entities_field: name and type of the new column
    :param entities_metadata: joins the schema's metadata in Parquet
    :param replace: whether a column of that name may be replaced, in its place
    :param overwrite: whether an existing file may be replaced
    :raises OutputError: when the column or the file exists already, or the system refuses
    :raises ValueError: when Parquet is asked for and the source gives raw lines
    """
    if format == "jsonl":
        return JsonLinesSink(
            path,
            source_name=input_name(source.path),
            source_schema=source.schema,
            entities_field=entities_field,
            replace=replace,
            overwrite=overwrite,
        )
    if source.schema is None:
        raise ValueError("Parquet takes typed rows; open the source with typed=True")
    return ParquetSink(
        path,
        source_schema=source.schema,
        codecs=source.codecs,
        entities_field=entities_field,
        entities_metadata=entities_metadata,
        replace=replace,
        overwrite=overwrite,
    )
