"""The format Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nerd_onnx.formats.file_format import FileFormat

if TYPE_CHECKING:
    from nerd_onnx.formats.interfaces import Reader, ReadOptions, WriteOptions, Writer
    from nerd_onnx.storage.location import Location


def _open_reader(path: Location, options: ReadOptions, typed: bool) -> Reader:  # noqa: FBT001 - as FileFormat calls it
    from nerd_onnx.formats.parquet.reader import ParquetReader

    return ParquetReader(path, options, as_json=not typed)


def _open_writer(path: Location, options: WriteOptions) -> Writer:
    from nerd_onnx.formats.parquet.copying_writer import CopyingWriter
    from nerd_onnx.formats.parquet.reader import ParquetReader
    from nerd_onnx.formats.parquet.writer import ParquetWriter

    # The reader decided: if the file can be copied, it reads nothing but the texts.
    if options.source.copied is not None:
        return CopyingWriter(path, options.source.copied, options)
    if options.source.schema is None:
        raise ValueError("Parquet takes typed rows; open the source with typed=True")

    return ParquetWriter(
        path,
        source_schema=options.source.schema,
        codecs=options.source.codecs,
        properties=options.source.properties if isinstance(options.source, ParquetReader) else None,
        layout=options.layout,
        entities_metadata=options.entities_metadata,
        replace=options.replace,
        overwrite=options.overwrite,
        reasons_field=options.reasons_field,
        scratch=options.scratch,
        group_bytes=options.group_bytes,
        text_columns=options.text_columns,
    )


def _check_complete(path: Location, verify: bool) -> None:  # noqa: FBT001 - as FileFormat calls it
    # Without verify, reading the metadata shows that the footer is there, which is written last.
    if verify:
        from nerd_onnx.formats.parquet.finished_file import check_pages

        check_pages(path)


def _read_metadata(path: Location) -> Mapping[bytes, bytes]:
    from nerd_onnx.formats.parquet.finished_file import read_metadata

    return read_metadata(path)


PARQUET = FileFormat(
    name="parquet",
    title="Parquet",
    suffixes=(".parquet", ".pq"),
    recognizes=lambda head: head.startswith(b"PAR1"),
    has_types=True,
    copies_columns=True,
    open_reader=_open_reader,
    open_writer=_open_writer,
    check_complete=_check_complete,
    read_metadata=_read_metadata,
)
