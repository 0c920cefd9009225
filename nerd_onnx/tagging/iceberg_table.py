"""
The files of an Iceberg table in its current snapshot. Needs the extra ``iceberg``.

pyiceberg reads the table, but every byte comes through this program's own storage: with its keys, time limits and
messages, and from nowhere but the folder of the table. Metadata names all files by where they were when they were
written, and may come from somebody else.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from nerd_onnx.errors import InputError, MissingExtraError, NerdError, first_line
from nerd_onnx.storage.decompression import decompressed
from nerd_onnx.storage.input_stream import input_name, open_bytes
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.remote import LISTING_FACTOR, files_below
from nerd_onnx.storage.signatures import is_gzip
from nerd_onnx.storage.time_limit import within_limit
from nerd_onnx.tagging.table_files import TableFiles

METADATA = "metadata"
_HINT = "version-hint.text"
_FOOTER_BYTES = 1 << 20
_FIRST_WITH_NANOSECONDS = 3  # version of the table format; files of earlier tables may have them nevertheless
_MAX_METADATA_BYTES = 256 << 20  # of a file; a table with ten thousand snapshots has a tenth of that
# The files of metadata by their numbers: of catalogs in the file system, whose names are unique, and of all others.
_SUFFIX = r"(?:\.gz)?\.metadata\.json(?:\.gz)?"
_NUMBERS = (re.compile(rf"v(\d+){_SUFFIX}"), re.compile(rf"(\d+)-.+{_SUFFIX}"))
# What stands before a path of the system, as Java and Python write it.
_LOCAL = re.compile(r"file:(?://(?:localhost)?)?(?=/)")
_S3 = re.compile(r"s3[an]://")
_Result = TypeVar("_Result")


def has_metadata(names: Collection[str]) -> bool:
    """
    Whether a folder is an Iceberg table.

    :param names: the files in its folder ``metadata``
    """
    return any(pattern.fullmatch(name) for pattern in _NUMBERS for name in names)


def is_metadata(path: Location) -> bool:
    """Whether a file is one of the metadata of an Iceberg table, by its name and that of its folder."""
    return path.parent.name == METADATA and has_metadata([path.name])


def iceberg_files(folder: Location, version: str | None = None) -> TableFiles:
    """
    Return the current files of an Iceberg table.

    :param version: name of the file in ``metadata`` that says what is current; None for the newest
    :raises MissingExtraError: if the package ``pyiceberg`` is missing
    :raises InputError: if the table cannot be read, or its files are not all there is to its rows
    :raises StoreError: if remote storage does not answer
    """
    try:
        from pyiceberg.catalog.noop import NoopCatalog
        from pyiceberg.table import StaticTable
    except ImportError as err:
        raise MissingExtraError(
            f"{input_name(folder)}: is an Iceberg table: the folder also has files that no longer belong to the table. "
            "Install what reads its metadata with: pip install 'nerd-onnx[iceberg]'",
            reason="iceberg-missing",
            extra="iceberg",
        ) from err

    metadata = _Metadata(folder)
    name = metadata.current() if version is None else version
    found = metadata.read(name)
    files = _Files(folder, found.location)
    table = StaticTable(("table",), found, folder.join(f"{METADATA}/{name}").text, files, NoopCatalog("none"))

    names = []
    for file in _data_files(table, folder):
        names.append(files.name_of(file.file_path))
        _check_columns(table, file, folder, names[-1])
    if len(set(names)) < len(names):
        raise _beyond_files(folder, "has the rows of a file more than once")

    snapshot = f"{input_name(folder)}@{found.current_snapshot_id}"
    return TableFiles(sorted(names), snapshot, hold_partitions=True)


class _Metadata:
    """The files of metadata of a table, each of which describes the whole table in one version."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder
        self._read: dict[str, Any] = {}

    def read(self, name: str) -> Any:
        """
        Return the description of the table in one file, as pyiceberg's ``TableMetadata``.

        :raises InputError: if it cannot be read
        """
        from pyiceberg.table.metadata import TableMetadataUtil

        if name not in self._read:
            with open_bytes(self._folder.join(f"{METADATA}/{name}")) as file:
                content = file.read()
            self._read[name] = _readable(
                self._folder, f"{METADATA}/{name}", lambda: TableMetadataUtil.parse_raw(_decompressed(content).decode())
            )
        return self._read[name]

    def current(self) -> str:
        """
        Return the name of the newest file.

        The catalog of a table says which file is current, and the folder does not. But the files are numbered, and each
        names those before it. Where they leave a doubt, the table is not read.

        :raises InputError: if several files may be the newest
        """
        names = self._names()
        newest = [name for pattern in _NUMBERS for name in _with_highest_number(pattern, names)]
        before = {old for name in newest for old in self._before(name)}
        newest = [name for name in newest if name not in before]
        if len(newest) != 1:
            raise self._contradict(newest)

        found = self.read(newest[0])
        for name in _unexplained(names, newest[0], before):
            # A table that was made anew in the folder of an earlier one starts again with number 0.
            other = self.read(name)
            if other.table_uuid != found.table_uuid and other.last_updated_ms >= found.last_updated_ms:
                raise self._contradict([newest[0], name])

        hinted = self._hinted(names)
        # A catalog in the file system writes the hint after the version that it names, and the process may die between.
        if hinted not in {None, newest[0]} and not (_NUMBERS[0].fullmatch(str(hinted)) and hinted in before):
            raise self._contradict([newest[0], f"{hinted} ({_HINT})"])
        return newest[0]

    def _names(self) -> list[str]:
        place = self._folder.join(METADATA)
        names = files_below(place.text, deep=False) if place.is_remote else os.listdir(place)
        return sorted(name for name in names if has_metadata([name]))

    def _before(self, name: str) -> list[str]:
        """Return the names of the files before one, as far as it lists them."""
        return [os.path.basename(entry.metadata_file) for entry in self.read(name).metadata_log]

    def _hinted(self, names: Collection[str]) -> str | None:
        """Return the file that the hint names, be it missing; None without a hint."""
        place = self._folder.join(f"{METADATA}/{_HINT}")
        if not place.exists():
            return None
        with open_bytes(place) as file:
            hint = file.read().decode(errors="replace").strip()
        stem = f"v{hint}" if hint.isdigit() else hint.removesuffix(".metadata.json")
        return next((name for name in names if name.startswith(f"{stem}.")), stem)

    def _contradict(self, names: Collection[str]) -> InputError:
        shown = " and ".join(names)
        return InputError(
            f"{input_name(self._folder)}: is an Iceberg table whose folder does not say which version is current: "
            f"{shown}; give the one that its catalog names, such as "
            f"{input_name(self._folder.join(METADATA))}/{next(iter(names))}, as INPUT (table.metadata_location in "
            "pyiceberg)",
            reason="several-versions",
            file=input_name(self._folder),
            found=shown,
        )


def _decompressed(content: bytes) -> bytes:
    """
    Return the content of a file of metadata, which may be compressed.

    :raises ValueError: if it is too large: a few bytes may stand for gigabytes
    :raises Exception: one of ``DAMAGED_COMPRESSION``, if it is damaged
    """
    if not is_gzip(content):
        return content

    with decompressed(content, io.BufferedReader(io.BytesIO(content))) as file:
        found = file.read(_MAX_METADATA_BYTES + 1)
    if len(found) > _MAX_METADATA_BYTES:
        raise ValueError(f"it has more than {_MAX_METADATA_BYTES >> 20} MiB when it is decompressed")
    return found


def _with_highest_number(pattern: re.Pattern[str], names: Collection[str]) -> list[str]:
    numbers = {name: int(found[1]) for name in names if (found := pattern.fullmatch(name))}
    highest = max(numbers.values(), default=None)
    return [name for name, number in numbers.items() if number == highest]


def _unexplained(names: Collection[str], newest: str, before: Collection[str]) -> Iterator[str]:
    """
    Yield the files of metadata that are neither the newest nor surely older versions of the same table.

    A file lists only some of those before it. The earlier ones are known by their numbers, which have no gap.

    :param before: the files that the newest one lists
    """
    pattern = next(pattern for pattern in _NUMBERS if pattern.fullmatch(newest))
    numbered: dict[int, list[str]] = {}
    for name in names:
        if found := pattern.fullmatch(name):
            numbered.setdefault(int(found[1]), []).append(name)

    explained = {newest, *before}
    number = min(number for number, alike in numbered.items() if explained.intersection(alike))
    while len(alike := numbered.get(number := number - 1, [])) == 1:
        explained.update(alike)
    return (name for name in names if name not in explained)


class _Files:
    """
    What pyiceberg asks of a ``FileIO``: files by the names that metadata has for them.

    :param location: where the folder was when the table was written
    """

    def __init__(self, folder: Location, location: str) -> None:
        self._folder = folder
        here = folder.bare if folder.is_remote else os.path.abspath(folder)
        self._roots = [f"{_plain(root)}/" for root in (here, location)]

    def name_of(self, path: str) -> str:
        """
        Return the name of a file below the folder, also if the whole folder was moved.

        :raises InputError: if it is elsewhere
        """
        found = _plain(path)
        for root in self._roots:
            if found.startswith(root):
                name = found.removeprefix(root)
                if {"", os.curdir, os.pardir}.isdisjoint(name.split("/")):
                    return name
        raise _beyond_files(self._folder, f"has files in another folder, such as {input_name(path)}")

    def new_input(self, path: str) -> _File:
        """Return one of its files."""
        return _File(self._folder.join(self.name_of(path)), path)


class _File:
    """
    What pyiceberg asks of an ``InputFile``.

    :ivar location: its name in the metadata
    """

    def __init__(self, place: Location, location: str) -> None:
        self._place = place
        self.location = location

    def open(self, *, seekable: bool = True) -> io.BufferedReader:  # noqa: ARG002 - pyiceberg names it
        """Open it to read."""
        return open_bytes(self._place)


def _plain(path: str) -> str:
    """Return a path or URI as all programs write it."""
    return _S3.sub("s3://", _LOCAL.sub("", path)).rstrip("/")


def _data_files(table: Any, folder: Location) -> list[Any]:
    """
    Return the data files of the current snapshot, as pyiceberg describes them.

    :raises InputError: if rows were deleted in other files, or a file is not Parquet
    """
    from pyiceberg.manifest import FileFormat

    def plan() -> list[Any]:
        try:
            return list(table.scan().plan_files())
        except ValueError:
            if _has_equality_deletes(table):
                raise _deleted_elsewhere(folder, "equality deletes") from None
            raise

    tasks = _readable(
        folder,
        METADATA,
        lambda: within_limit(folder.text, plan, factor=LISTING_FACTOR) if folder.is_remote else plan(),
    )
    for task in tasks:
        if task.delete_files:
            is_vector = any(file.file_format == FileFormat.PUFFIN for file in task.delete_files)
            raise _deleted_elsewhere(folder, "deletion vectors" if is_vector else "position deletes")
        if task.file.file_format != FileFormat.PARQUET:
            raise _beyond_files(folder, f"has files of the format {task.file.file_format.name}")
    return [task.file for task in tasks]


def _has_equality_deletes(table: Any) -> bool:
    """Whether the current snapshot deletes rows by the values of their columns: pyiceberg does not plan these."""
    from pyiceberg.manifest import DataFileContent, ManifestContent

    return any(
        entry.data_file.content == DataFileContent.EQUALITY_DELETES
        for manifest in table.current_snapshot().manifests(table.io)
        if manifest.content == ManifestContent.DELETES
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    )


def _check_columns(table: Any, file: Any, folder: Location, name: str) -> None:
    """
    Check that the columns of a data file are those of the table, as their numbers say.

    A column that the table got later may be missing in older files.

    :param name: its name below the folder
    :raises InputError: if the file has other columns, or other names or types for them
    """
    import pyarrow.parquet as pq
    from pyiceberg.io.pyarrow import pyarrow_to_schema

    with open_bytes(folder.join(name), _FOOTER_BYTES) as opened:
        found = _readable(folder, name, lambda: pq.read_schema(opened))
    version = table.metadata.format_version
    try:
        columns = pyarrow_to_schema(
            found,
            table.name_mapping(),
            downcast_ns_timestamp_to_us=version < _FIRST_WITH_NANOSECONDS,
            format_version=version,
        )
    except Exception as err:
        raise _beyond_files(folder, f"has columns that pyiceberg cannot read in {name}: {first_line(err)}") from err

    wrong = _readable(
        folder, METADATA, lambda: next(_differences(columns, table.schema(), table.specs()[file.spec_id]), None)
    )
    if wrong is not None:
        raise _beyond_files(folder, f"changed its columns: {name} {wrong}")


def _differences(columns: Any, schema: Any, partitions: Any) -> Iterator[str]:
    """
    Yield in which ways the columns of a file are not those of its table.

    :param columns: columns of the file, as a ``Schema`` of pyiceberg
    :param schema: columns of the table
    :param partitions: how the file is partitioned
    """
    from pyiceberg.transforms import IdentityTransform

    for number in sorted(columns.field_ids):
        there, here = columns.find_column_name(number), schema.find_column_name(number)
        if here is None:
            yield f"has the column {there!r}, which the table no longer has"
        elif there != here:
            yield f"calls the column {here!r} {there!r}"
        elif not _is_same_value(columns.find_type(number), schema.find_type(number)):
            yield f"has the column {here!r} with the type {columns.find_type(number)}, not {schema.find_type(number)}"

    for number in sorted(schema.field_ids - columns.field_ids):
        field = schema.find_field(number)
        if any(isinstance(part.transform, IdentityTransform) for part in partitions.fields_by_source_id(number)):
            yield f"does not have the partition column {field.name!r}, whose value is in the metadata alone"
        elif field.initial_default is not None:
            yield f"does not have the column {field.name!r}, whose value for older rows is in the metadata alone"


def _is_same_value(there: Any, here: Any) -> bool:
    """Whether the type in a file holds the same values as the type of the column: it is equal or narrower."""
    from pyiceberg.exceptions import ResolveError
    from pyiceberg.schema import promote

    if not (there.is_primitive and here.is_primitive):
        return type(there) is type(here)  # what is inside has numbers of its own
    if there == here:
        return True
    try:
        promote(there, here)
    except ResolveError:
        return False
    return True


def _readable(folder: Location, what: str, read: Callable[[], _Result]) -> _Result:
    """
    Return what a function reads of a table.

    :param what: what it reads
    :raises InputError: if that is damaged
    """
    try:
        return read()
    except NerdError:
        raise
    except Exception as err:
        raise InputError(
            f"{input_name(folder)}: is an Iceberg table, and its {what} cannot be read: {first_line(err)}",
            reason="damaged-table",
            file=input_name(folder),
        ) from err


def _deleted_elsewhere(folder: Location, what: str) -> InputError:
    return _beyond_files(folder, f"has {what}: rows in its files that no longer belong to the table")


def _beyond_files(folder: Location, what: str) -> InputError:
    return InputError(
        f"{input_name(folder)}: is an Iceberg table that {what}; rewrite its files (rewrite_data_files of Spark with "
        "rewrite-all), or write its current rows to a folder of Parquet files first, for example with pyiceberg: "
        "pyarrow.dataset.write_dataset(table.scan().to_arrow_batch_reader(), ..., format='parquet')",
        reason="table-beyond-files",
        file=input_name(folder),
    )
