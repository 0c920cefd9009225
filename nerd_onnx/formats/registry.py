"""
The list of all file formats. A new format needs one entry in :data:`FORMATS`; nothing else lists them.

:mod:`open_input` and :mod:`open_output` choose one of them for a file and open it.
"""

from __future__ import annotations

from nerd_onnx.formats.arrow import ARROW
from nerd_onnx.formats.csv import CSV, TSV
from nerd_onnx.formats.file_format import FileFormat
from nerd_onnx.formats.jsonl import JSONL
from nerd_onnx.formats.parquet import PARQUET
from nerd_onnx.formats.plain import PLAIN
from nerd_onnx.formats.text import TEXT
from nerd_onnx.storage.compression import COMPRESSIONS

# In the order in which the first bytes of an input are tried.
FORMATS: tuple[FileFormat, ...] = (PARQUET, ARROW, JSONL, CSV, TSV, PLAIN, TEXT)
# Of standard input that no format recognizes: it may be empty, or broken. Also of outputs without a suffix, if the
# format of their input is only read.
STREAM_FORMAT = JSONL
TERMINAL_FORMAT = TEXT  # of standard output that is a terminal


def format_named(name: str) -> FileFormat:
    """
    Return the format with a name.

    :raises ValueError: if there is none; the command line has checked its options before
    """
    for found in FORMATS:
        if found.name == name:
            return found

    raise ValueError(f"no file format is named {name!r}; the formats are: {', '.join(f.name for f in FORMATS)}")


def readable_formats() -> list[FileFormat]:
    """Return the formats that can be read."""
    return [found for found in FORMATS if found.open_reader is not None]


def writable_formats() -> list[FileFormat]:
    """Return the formats that can be written."""
    return [found for found in FORMATS if found.open_writer is not None]


def titles_of_listed() -> str:
    """Return the titles of the formats whose files are found in folders, for messages: ``Parquet or JSON Lines``."""
    return " or ".join(found.title for found in readable_formats() if found.suffixes and found.is_listed)


def format_of_suffix(suffix: str) -> FileFormat | None:
    """Return the format with a suffix (lower case, with its dot); None if there is none."""
    return next((found for found in FORMATS if suffix in found.suffixes), None)


def all_suffixes() -> tuple[str, ...]:
    """Return the suffixes of all formats and compressions."""
    return (*COMPRESSIONS, *(suffix for found in FORMATS for suffix in found.suffixes))
