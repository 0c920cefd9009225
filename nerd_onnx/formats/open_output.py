"""
Open any output: choose its format, then call ``open_writer`` of that format. Outputs are written atomically.

This module knows no format by name. Which formats exist is in :mod:`registry`; how one is written is in its package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from nerd_onnx.errors import OutputError
from nerd_onnx.formats.interfaces import GROUP_BYTES, Format, Reader, WriteOptions, Writer
from nerd_onnx.formats.layouts import Layout, LayoutName
from nerd_onnx.formats.open_input import format_of_name
from nerd_onnx.formats.registry import STREAM_FORMAT, TERMINAL_FORMAT, format_named, writable_formats
from nerd_onnx.storage.location import Location, Name
from nerd_onnx.storage.output_place import check_output, is_terminal, output_name

__all__ = ["Writer", "check_output", "open_writer", "output_format", "terminal_format"]


def output_format(
    name: Name, asked: Format | None, source_format: Callable[[], Format], remedy: str = "give --output-format"
) -> Format:
    """
    Return the format of an output: as asked, else by its suffix, else the format of the input.

    If the format of the input is only read, it is :data:`STREAM_FORMAT` instead.

    :param name: a file, or ``-`` for standard output
    :param asked: the format the user named, if any
    :param source_format: returns the format of the input; called only for standard output and names without a suffix
    :param remedy: what the user can do if the format cannot be chosen, for the message
    :raises OutputError: if the name has the suffix of an unknown format
    """
    if asked is not None:
        return asked

    path = Location.of(name)
    named = format_of_name(path)
    if named is not None and _is_written(named):
        return named

    if path.suffixes:
        titles = " nor ".join(known.title for known in writable_formats() if known.suffixes)
        raise OutputError(
            f"{output_name(path)}: its name shows neither {titles}; {remedy}",
            reason="unknown-format",
            file=output_name(path),
        )

    found = source_format()
    return found if _is_written(found) else STREAM_FORMAT.name


def _is_written(name: Format) -> bool:
    return format_named(name).open_writer is not None


def terminal_format(name: Name, layout: LayoutName) -> Format | None:
    """Return ``text`` for a terminal, unless the layout is one that it cannot show; None for other outputs."""
    return TERMINAL_FORMAT.name if layout == "nested" and is_terminal(Location.of(name)) else None


def open_writer(
    name: Name,
    *,
    format: Format,  # noqa: A002 - the option's name
    source: Reader,
    layout: Layout,
    entities_metadata: Mapping[str, str],
    replace: bool,
    overwrite: bool,
    reasons_field: pa.Field | None = None,
    scratch: str | None = None,
    group_bytes: int = GROUP_BYTES,
    text_columns: tuple[str, ...] = (),
) -> Writer:
    """
    Open an output for the rows of a source.

    :param name: a file, or ``-`` for standard output
    :param format: the format
    :param source: the input; its schema, compression and name are needed
    :param layout: how the entities are arranged
    :param entities_metadata: added to the metadata of the schema, in formats that have one
    :param replace: whether an existing column with the name of a new one may be replaced, in its position
    :param overwrite: whether an existing file may be replaced
    :param reasons_field: name and type of the column that says why a row has no entities; None for no such column
    :param scratch: folder for temporary files; None for the folder of the output
    :param group_bytes: maximum size of a Parquet row group, in bytes of Arrow data
    :param text_columns: the columns that were tagged
    :raises OutputError: if a column or the file exists already, or the file cannot be written
    :raises ValueError: if the format needs typed rows and the source has raw lines
    """
    opener = format_named(format).open_writer
    if opener is None:
        raise ValueError(f"the format {format!r} can only be read")

    options = WriteOptions(
        source=source,
        layout=layout,
        entities_metadata=entities_metadata,
        replace=replace,
        overwrite=overwrite,
        reasons_field=reasons_field,
        scratch=scratch,
        group_bytes=group_bytes,
        text_columns=text_columns,
    )
    return opener(Location.of(name), options)
