"""Folders of Delta, Iceberg and Hudi tables: a log says which of their files belong to the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from nerd_onnx.errors import InputError, StoreError
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location, Name
from nerd_onnx.storage.remote import files_below
from nerd_onnx.tagging import delta_table
from nerd_onnx.tagging.delta_table import delta_files
from nerd_onnx.tagging.iceberg_table import METADATA, has_metadata, iceberg_files, is_metadata
from nerd_onnx.tagging.table_files import TableFiles


@dataclass(frozen=True)
class TableFormat:
    """
    A format of tables that are folders.

    :param name: its name in messages
    :param log: the folder in that of a table that says which files belong to it
    :param is_log: whether a folder of this name is such a log, by the names of its files; None if its name tells
    :param live_files: returns the files of the current version; None if such tables are not read
    :param schemes: remote storage in which such tables are read; None for all
    :param instead: what to do where a table is not read
    """

    name: str
    log: str
    is_log: Callable[[Collection[str]], bool] | None
    live_files: Callable[[Location], TableFiles] | None
    schemes: Collection[str] | None
    instead: str

    def is_readable(self, folder: Location) -> bool:
        """Whether the current files of a table in a folder can be found."""
        scheme = folder.text.partition("://")[0].lower()
        return self.live_files is not None and (not folder.is_remote or self.schemes is None or scheme in self.schemes)


# A table that is of several formats is read as the first of them.
_FORMATS = (
    TableFormat(
        "Delta",
        "_delta_log",
        None,
        delta_files,
        delta_table.SCHEMES,
        "give its current files by their names, as DeltaTable(...).file_uris() of deltalake lists them",
    ),
    TableFormat(
        "Hudi",
        ".hoodie",
        None,
        None,
        (),
        "write its current rows to a folder of Parquet files first, for example with Spark",
    ),
    TableFormat(
        "Iceberg",
        METADATA,
        has_metadata,
        iceberg_files,
        None,
        "give the folder of the table, which is read through its metadata",
    ),
)


def table_format_of(folder: str) -> TableFormat | None:
    """Return which table format a local folder has; None for a plain folder."""

    def is_log(kind: TableFormat) -> bool:
        log = os.path.join(folder, kind.log)
        if kind.is_log is None:
            return os.path.isdir(log)
        with suppress(OSError):  # no such folder; if it cannot be listed, whoever lists the files reports it
            return kind.is_log(os.listdir(log))
        return False

    return next(filter(is_log, _FORMATS), None)


def remote_tables(names: Iterable[str]) -> dict[str, TableFormat]:
    """
    Return the tables in a folder of remote storage: the folder of each, and its format.

    :param names: names of all files, relative to that folder
    """
    found: dict[str, TableFormat] = {}
    for name in names:
        *folders, last = name.split("/")
        # A listing has files only, so a table shows by the folders in the names of its files.
        for place, folder in enumerate(folders):
            for kind in _FORMATS:
                if folder == kind.log and (kind.is_log is None or (not folders[place + 1 :] and kind.is_log([last]))):
                    table = "/".join(folders[:place])
                    found[table] = min(kind, found.get(table, kind), key=_FORMATS.index)
    return found


def check_not_inside(folder: str) -> None:
    """
    Check that a local folder is not below the folder of a table.

    :raises InputError: if it is: the log says of the whole table which files belong to it
    """
    here = os.path.abspath(folder)
    while here != (parent := os.path.dirname(here)):
        here = parent
        kind = table_format_of(here)
        if kind is not None:
            raise _inside_table(folder, here, kind)


def check_not_inside_remote(folder: Location) -> None:
    """
    Check that a folder in remote storage is not below the folder of a table.

    :raises InputError: if it is: the log says of the whole table which files belong to it
    :raises StoreError: if remote storage does not answer
    """
    scheme, _, path = folder.bare.rstrip("/").partition("://")
    parts = path.split("/")
    for count in range(len(parts) - 1, 0, -1):
        here = Location(f"{scheme}://{'/'.join(parts[:count])}{folder.query}")
        try:
            kind = _remote_format_of(here)
        except (StoreError, FileNotFoundError) as err:
            if isinstance(err, StoreError) and err.reason == "no-answer":
                raise
            continue  # who may read a folder need not have access to those above it
        if kind is not None:
            raise _inside_table(folder, here, kind)


def _remote_format_of(folder: Location) -> TableFormat | None:
    """Return which table format a folder in remote storage has; None for a plain folder."""

    def is_log(kind: TableFormat) -> bool:
        log = folder.join(kind.log)
        return log.is_folder() if kind.is_log is None else kind.is_log(files_below(log.text, deep=False))

    return next(filter(is_log, _FORMATS), None)


def _inside_table(folder: Name, table: Name, kind: TableFormat) -> InputError:
    return InputError(
        f"{input_name(folder)}: is inside of the {kind.name} table {input_name(table)}, whose log says which files "
        "belong to the table; give the folder of the table, or single files by their names",
        reason="inside-table",
        file=input_name(folder),
        table=input_name(table),
    )


def is_table_version(path: Location) -> bool:
    """Whether an input is a file of metadata that describes one version of a table: it stands for that version."""
    return not path.is_standard_stream and is_metadata(path)


def files_of_version(path: Location) -> TableFiles:
    """
    Return the files of the version of a table that a file of its metadata describes.

    :raises NerdError: as :func:`files_of_table` does
    """
    return iceberg_files(path.parent.parent, path.name)


def files_of_table(folder: Location, kind: TableFormat) -> TableFiles:
    """
    Return the current files of a table.

    :raises MissingExtraError: if the package that reads its log is missing
    :raises InputError: if the table cannot be read, or its files are not all there is to its rows
    :raises StoreError: if remote storage does not answer
    """
    if kind.live_files is None or not kind.is_readable(folder):
        raise refused_table(folder, kind)
    return kind.live_files(folder)


def refused_table(folder: Name, kind: TableFormat) -> InputError:
    """Return the error for a table that is not read."""
    return InputError(
        f"{input_name(folder)}: is {'an' if kind.name == 'Iceberg' else 'a'} {kind.name} table: the folder also has "
        f"files that no longer belong to the table; {kind.instead}",
        reason="table-folder",
        file=input_name(folder),
        found=kind.name,
    )
