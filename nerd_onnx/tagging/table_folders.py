"""Folders of Delta, Iceberg and Hudi tables: a log says which of their files belong to the table."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from nerd_onnx.errors import InputError, MissingExtraError, StoreError, first_line
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location, Name
from nerd_onnx.storage.remote import files_below
from nerd_onnx.storage.time_limit import within_limit

_DELTA_LOG = "_delta_log"
_HUDI = ".hoodie"
_METADATA = "metadata"
_DELTA_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")  # that deltalake and pyarrow both open
_ENDPOINT, _ALLOW_HTTP = "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"
# What the query of a URI says to pyarrow, and how deltalake calls it.
_OPTIONS = {"endpoint_override": _ENDPOINT, "region": "AWS_REGION"}
_ICEBERG = re.compile(r"(v\d+|\d+-.+)(\.gz)?\.metadata\.json(\.gz)?")  # in the folder metadata


@dataclass(frozen=True)
class DeltaFiles:
    """
    The files of a Delta table in its current version.

    :param names: their paths below the folder of the table
    :param version: name and number of the version
    """

    names: list[str]
    version: str


def table_format_of(folder: str) -> str | None:
    """Return which table format a local folder has: ``Delta``, ``Iceberg`` or ``Hudi``; None for a plain folder."""
    names = [name for name in (_DELTA_LOG, _HUDI) if os.path.isdir(os.path.join(folder, name))]
    metadata: list[str] = []
    with suppress(OSError):  # no such folder; if it cannot be listed, whoever lists the files reports it
        metadata = os.listdir(os.path.join(folder, _METADATA))
    return _table_format(names, metadata)


def remote_tables(names: Iterable[str]) -> dict[str, str]:
    """
    Return the tables in a folder of remote storage: the folder of each, and its format.

    :param names: names of all files, relative to that folder
    """
    found: dict[str, str] = {}
    for name in names:
        *folders, last = name.split("/")
        # A listing has files only, so a table shows by the folders in the names of its files.
        for place, folder in enumerate(folders):
            metadata = [last] if folders[place:] == [_METADATA] else []
            kind = _table_format([folder], metadata)
            if kind is not None:
                found["/".join(folders[:place])] = kind
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
            names = [name for name in (_DELTA_LOG, _HUDI) if here.join(name).is_folder()]
            kind = _table_format(names, files_below(here.join(_METADATA).text, deep=False))
        except (StoreError, FileNotFoundError) as err:
            if isinstance(err, StoreError) and err.reason == "no-answer":
                raise
            continue  # who may read a folder need not have access to those above it
        if kind is not None:
            raise _inside_table(folder, here, kind)


def _inside_table(folder: Name, table: Name, kind: str) -> InputError:
    return InputError(
        f"{input_name(folder)}: is inside of the {kind} table {input_name(table)}, whose log says which files belong "
        "to the table; give the folder of the table, or single files by their names",
        reason="inside-table",
        file=input_name(folder),
        table=input_name(table),
    )


def is_readable_table(folder: Location, kind: str) -> bool:
    """
    Whether the current files of a table can be found.

    :param kind: table format, as :func:`table_format_of` returns it
    """
    return kind == "Delta" and (not folder.is_remote or folder.text.partition("://")[0].lower() in _DELTA_SCHEMES)


def _table_format(names: Collection[str], metadata: Iterable[str]) -> str | None:
    if _DELTA_LOG in names:
        return "Delta"
    if _HUDI in names:
        return "Hudi"
    return "Iceberg" if any(map(_ICEBERG.fullmatch, metadata)) else None


def refused_table(folder: Name, kind: str) -> InputError:
    """Return the error for a table that is not read."""
    ways = {
        "Delta": "give its current files by their names, as DeltaTable(...).file_uris() of deltalake lists them",
        "Iceberg": "write its current rows to a folder of Parquet files first, for example with "
        "pyiceberg: pyarrow.dataset.write_dataset(table.scan().to_arrow_batch_reader(), ..., format='parquet')",
        "Hudi": "write its current rows to a folder of Parquet files first, for example with Spark",
    }
    return InputError(
        f"{input_name(folder)}: is {'an' if kind == 'Iceberg' else 'a'} {kind} table: the folder also has files that "
        f"no longer belong to the table; {ways[kind]}",
        reason="table-folder",
        file=input_name(folder),
        found=kind,
    )


def delta_files(folder: Location) -> DeltaFiles:
    """
    Return the current files of a Delta table.

    :raises MissingExtraError: if the package ``deltalake`` is missing
    :raises InputError: if the table cannot be read, or its files are not all there is to its rows
    :raises StoreError: if remote storage does not answer
    """
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as err:
        raise MissingExtraError(
            f"{input_name(folder)}: is a Delta table: the folder also has files that no longer belong to the table. "
            "Install what reads its log with: pip install 'nerd-onnx[delta]'",
            reason="delta-missing",
            extra="delta",
        ) from err

    def read() -> DeltaFiles:
        table = DeltaTable(folder.bare, storage_options=_storage_options(folder) if folder.is_remote else None)
        _check_plain(table, folder)
        return DeltaFiles(_names(table.file_uris(), folder), f"{input_name(folder)}@{table.version()}")

    try:
        return within_limit(folder.text, read) if folder.is_remote else read()
    except (DeltaError, OSError, ValueError) as err:
        raise InputError(
            f"{input_name(folder)}: its Delta log cannot be read: {first_line(err)}",
            reason="damaged-table",
            file=input_name(folder),
        ) from err


def _names(uris: Iterable[str], folder: Location) -> list[str]:
    """
    Return the names of files below the folder of their table.

    :raises InputError: if a file is elsewhere: a shallow clone has files of another table
    """
    root = f"{folder.bare.rstrip('/')}/" if folder.is_remote else os.path.join(os.path.abspath(folder), "")
    paths = [uri if folder.is_remote else os.path.abspath(uri) for uri in uris]
    outside = [path for path in paths if not path.startswith(root)]
    if outside:
        raise _beyond_files(folder, f"has files in another folder, such as {input_name(outside[0])}")
    return sorted(path.removeprefix(root) for path in paths)


def _storage_options(folder: Location) -> dict[str, str]:
    """
    Return what deltalake does not take from the environment by itself.

    pyarrow takes an endpoint with ``http://`` as it is; deltalake asks for a permission.
    """
    given = dict(parse_qsl(folder.query.removeprefix("?")))
    options = {_OPTIONS[name]: value for name, value in given.items() if name in _OPTIONS}
    endpoint = options.get(_ENDPOINT)
    if endpoint is not None and "://" not in endpoint:
        options[_ENDPOINT] = f"{given.get('scheme', 'https')}://{endpoint}"
    if options.get(_ENDPOINT, os.environ.get(_ENDPOINT, "")).startswith("http://"):
        options[_ALLOW_HTTP] = "true"
    return options


def _check_plain(table: Any, folder: Location) -> None:
    """Check that the rows of a table are the rows of its files, under the names of its columns."""
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise _beyond_files(folder, "maps the names of its columns to others in its files")

    if "deletionVectors" in (table.protocol().reader_features or ()) and table.deletion_vectors().read_all().num_rows:
        raise _beyond_files(folder, "has deletion vectors: rows in its files that no longer belong to the table")


def _beyond_files(folder: Location, what: str) -> InputError:
    return InputError(
        f"{input_name(folder)}: is a Delta table that {what}; write its current rows to a folder of Parquet files "
        "first, for example with deltalake: pyarrow.dataset.write_dataset(DeltaTable(...).to_pyarrow_table(), ...)",
        reason="table-beyond-files",
        file=input_name(folder),
    )
