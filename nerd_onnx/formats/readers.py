"""Detect the format of an input, and open it with the reader of that format."""

from __future__ import annotations

from pathlib import PurePath

from nerd_onnx.errors import InputError
from nerd_onnx.formats.base import Format, ReadOptions, RowBatch, Source
from nerd_onnx.formats.jsonl.reader import RawLinesSource, TypedLinesSource
from nerd_onnx.formats.parquet.reader import ParquetSource
from nerd_onnx.storage.input_stream import (
    BYTE_ORDER_MARK,
    GZIP_MAGIC,
    MAX_LINE_BYTES,
    ZSTD_MAGIC,
    check_readable,
    input_name,
    read_head,
)
from nerd_onnx.storage.location import STANDARD_STREAM, bare

__all__ = ["Format", "RowBatch", "Source", "detect_format", "format_of_name", "open_source"]

PARQUET_MAGIC = b"PAR1"
FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
COMPRESSIONS = (".gz", ".zst")
_TABLES_OF_TEXT = (".csv", ".tsv")
_HEAD_BYTES = 4096


def format_of_name(path: str) -> Format | None:
    """Return the format that a file name shows, also below a compression suffix; None for other names."""
    found = FORMATS.get(_suffix(path))
    is_compressed = PurePath(bare(path)).suffix.lower() in COMPRESSIONS
    return None if is_compressed and found != "jsonl" else found


def _suffix(path: str) -> str:
    """Return the suffix of a name in lower case, without a compression suffix; empty if there is none."""
    suffixes = [suffix.lower() for suffix in PurePath(bare(path)).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def detect_format(path: str, asked: Format | None) -> Format:
    """
    Return the format of an input: as asked, else by its suffix, else by its first bytes.

    Standard input is JSON Lines, plain or compressed, unless its first bytes are those of Parquet.

    :raises InputError: if the input cannot be read, or the format cannot be detected
    """
    if asked is not None:
        return asked

    check_readable(path)
    known = None if path == STANDARD_STREAM else format_of_name(path)
    if known is not None:
        return known

    if _suffix(path) in _TABLES_OF_TEXT:
        raise InputError(
            f"{input_name(path)}: is a CSV file by its name, and CSV cannot be read; convert it to Parquet, for "
            "example with DuckDB: COPY (FROM 'in.csv') TO 'in.parquet', or with pyarrow's csv.read_csv and "
            "parquet.write_table. If the file has another format, give --format",
            reason="is-csv",
            file=input_name(path),
            option="--format",
        )

    head = read_head(path, _HEAD_BYTES)
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    if path == STANDARD_STREAM or head.startswith((GZIP_MAGIC, ZSTD_MAGIC)):
        return "jsonl"
    if head.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{"):
        return "jsonl"

    raise InputError(
        f"{input_name(path)}: {'' if head else 'is empty, and '}neither its name nor its first bytes show whether it "
        "is Parquet or JSON Lines; give --format",
        reason="unknown-format",
        file=input_name(path),
        option="--format",
    )


def open_source(
    path: str,
    *,
    format: Format | None,  # noqa: A002 - the option's name
    text_column: str,
    typed: bool,
    batch_rows: int,
    batch_bytes: int,
    limit: int | None,
    lenient: bool = False,
    line_bytes: int = MAX_LINE_BYTES,
) -> Source:
    """
    Open an input with the reader of its format.

    :param path: a file, or ``-`` for standard input
    :param format: the format, or None to detect it
    :param typed: read JSON Lines as typed columns (Parquet always has them)
    :param text_column: this and the remaining parameters are those of :class:`ReadOptions`
    :raises InputError: if the input is missing, damaged, in another format, or has no text column
    """
    options = ReadOptions(text_column, batch_rows, batch_bytes, limit, lenient, line_bytes)
    if detect_format(path, format) == "parquet":
        return ParquetSource(path, options, as_json=not typed)
    return TypedLinesSource(path, options) if typed else RawLinesSource(path, options)
