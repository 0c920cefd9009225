"""Row batches to files: open the writer that fits. Outputs appear whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath

import pyarrow as pa

from nerd_onnx.errors import OutputError
from nerd_onnx.formats.base import Format, Sink, Source
from nerd_onnx.formats.jsonl.writer import JsonLinesSink
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.parquet.writer import GROUP_BYTES, ParquetSink
from nerd_onnx.formats.readers import format_of_name
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import STANDARD_STREAM, bare
from nerd_onnx.storage.output_place import check_output, output_name

__all__ = ["Sink", "check_output", "open_sink", "output_format"]


def output_format(
    path: str, asked: Format | None, source_format: Callable[[], Format], remedy: str = "give --output-format"
) -> Format:
    """
    Tell an output's format: as asked, else by its suffix, else the input's.

    :param path: a file, or ``-`` for standard output
    :param asked: the format the user named, if any
    :param source_format: tells the input's; called only for standard output and for names without a suffix
    :param remedy: what to do where it cannot be told, for the message
    :raises OutputError: when the name has a suffix of another kind
    """
    if asked is not None:
        return asked
    named = None if path == STANDARD_STREAM else format_of_name(path)
    if named is not None:
        return named
    if PurePath(bare(path)).suffix:
        raise OutputError(
            f"{output_name(path)}: its name shows neither Parquet nor JSON Lines; {remedy}",
            reason="unknown-format",
            file=output_name(path),
        )
    return source_format()


def open_sink(
    path: str,
    *,
    format: Format,  # noqa: A002 - the option's name
    source: Source,
    layout: Layout,
    entities_metadata: Mapping[str, str],
    replace: bool,
    overwrite: bool,
    reasons_field: pa.Field | None = None,
    scratch: str | None = None,
    group_bytes: int = GROUP_BYTES,
    text_column: str | None = None,
) -> Sink:
    """
    Open an output of either format for the rows of a source.

    :param path: a file, or ``-`` for standard output
    :param format: the format
    :param source: where the rows come from; gives schema, compression and the name in messages
    :param layout: where the entities stand
    :param entities_metadata: joins the schema's metadata in Parquet
    :param replace: whether a column of that name may be replaced, in its place
    :param overwrite: whether an existing file may be replaced
    :param reasons_field: name and type of one more new column, which says why a row has no entities; None for none
    :param scratch: folder for what needs a name before the output is whole; None for the output's own
    :param group_bytes: cut Parquet row groups where they pass so many bytes
    :param text_column: the column that was tagged
    :raises OutputError: when a column or the file exists already, or the system refuses
    :raises ValueError: when Parquet is asked for and the source gives raw lines
    """
    if format == "jsonl":
        return JsonLinesSink(
            path,
            source_name=input_name(source.path),
            source_schema=source.schema,
            layout=layout,
            replace=replace,
            overwrite=overwrite,
            reasons_field=reasons_field,
            scratch=scratch,
        )
    if source.schema is None:
        raise ValueError("Parquet takes typed rows; open the source with typed=True")
    return ParquetSink(
        path,
        source_schema=source.schema,
        codecs=source.codecs,
        layout=layout,
        entities_metadata=entities_metadata,
        replace=replace,
        overwrite=overwrite,
        reasons_field=reasons_field,
        scratch=scratch,
        group_bytes=group_bytes,
        text_column=text_column,
    )
