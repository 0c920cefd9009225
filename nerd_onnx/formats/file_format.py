"""The description of a file format. Imports no pyarrow, so that ``--help`` can list the formats quickly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nerd_onnx.formats.interfaces import Reader, ReadOptions, WriteOptions, Writer
    from nerd_onnx.storage.location import Location

OpenReader = Callable[["Location", "ReadOptions", bool], "Reader"]
OpenWriter = Callable[["Location", "WriteOptions"], "Writer"]
CheckComplete = Callable[["Location", bool], None]
ReadMetadata = Callable[["Location"], Mapping[bytes, bytes]]


def _never(_head: bytes) -> bool:
    return False


@dataclass(frozen=True)
class FileFormat:
    """
    A file format that nerd-tag reads, writes, or both.

    :param name: value of ``--format`` and ``--output-format``
    :param title: name of the format in messages
    :param suffixes: suffixes of file names in lower case, with their dot
    :param recognizes: whether a file is in this format, by its first bytes (up to 4096)
    :param recognizes_stream: whether standard input, which has no name, is taken for this format, by its first bytes
        (up to 4096), if no format recognizes it for sure
    :param is_compressible: whether a compression suffix may follow: ``.jsonl.gz``
    :param is_listed: whether files in this format are tagged that lie in a folder; else only files that are named
    :param has_types: whether rows in this format always have typed columns; else they may be raw lines
    :param holds_types: whether a file in this format says which type a value has; else all its values are text
    :param shows_columns: whether the names of all columns can be read from an output. Needed only without
        ``read_metadata``, which says more
    :param copies_columns: whether an output copies the columns of an input in this format byte for byte, where it can
    :param open_reader: opens an input; its last argument asks for typed rows. None if the format is only written
    :param open_writer: opens an output. None if the format is only read
    :param check_complete: raises an OutputError if a file that an earlier run wrote is not complete; its last argument
        asks to read the file to its end. None if files in this format do not show whether they are complete
    :param read_metadata: returns the schema's metadata of a file; raises an OutputError if the file is not complete.
        None if the format records none
    """

    name: str
    title: str
    suffixes: tuple[str, ...] = ()
    recognizes: Callable[[bytes], bool] = _never
    recognizes_stream: Callable[[bytes], bool] = _never
    is_compressible: bool = False
    is_listed: bool = True
    has_types: bool = False
    holds_types: bool = True
    shows_columns: bool = False
    copies_columns: bool = False
    open_reader: OpenReader | None = None
    open_writer: OpenWriter | None = None
    check_complete: CheckComplete | None = None
    read_metadata: ReadMetadata | None = None

    @property
    def suffix(self) -> str:
        """Suffix of a new file in this format, with its dot."""
        return self.suffixes[0] if self.suffixes else f".{self.name}"
