"""The files of a Delta table in its current version, as its log names them. Needs the extra ``delta``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from nerd_onnx.errors import InputError, MissingExtraError, first_line
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.time_limit import within_limit
from nerd_onnx.tagging.table_files import TableFiles

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")  # of remote storage that deltalake and pyarrow both open
_ENDPOINT, _ALLOW_HTTP = "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"
# What the query of a URI says to pyarrow, and how deltalake calls it.
_OPTIONS = {"endpoint_override": _ENDPOINT, "region": "AWS_REGION"}


def delta_files(folder: Location) -> TableFiles:
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

    def read() -> TableFiles:
        table = DeltaTable(folder.bare, storage_options=_storage_options(folder) if folder.is_remote else None)
        _check_plain(table, folder)
        names, version = _names(table.file_uris(), folder), f"{input_name(folder)}@{table.version()}"
        return TableFiles(names, version, hold_partitions=False)

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
