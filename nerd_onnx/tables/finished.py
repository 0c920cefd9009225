"""Outputs that are there already: whether they are this run's own, finished before, or somebody else's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.errors import OutputError
from nerd_onnx.tables.file_pairs import FilePair
from nerd_onnx.tables.journal import Event
from nerd_onnx.tables.output_place import find, is_device, output_name
from nerd_onnx.tables.rows import STANDARD_STREAM
from nerd_onnx.tables.sources import format_of_name
from nerd_onnx.tables.streams import input_name


def is_file(path: str) -> bool:
    """Tell whether an output is a file, or will be one: no stream, pipe or device."""
    if path == STANDARD_STREAM:
        return False
    with suppress(OSError):
        found = find(path)
        return found is None or not is_device(found)
    return True


def was_committed(path: str, commit: Event | None) -> bool:
    """Tell whether a file is the one that a run was about to put there when it died."""
    with suppress(FileNotFoundError):
        found = os.stat(path)
        return commit is not None and (found.st_ino, found.st_size) == (commit["inode"], commit["size"])
    return False


def check_finished(pair: FilePair, metadata: Mapping[str, str]) -> None:
    """
    Check that an output, finished by an earlier run, is what this run would make, as far as one can see.

    :param metadata: what this run would say of its entities in Parquet
    :raises OutputError: when it is older than its input, or says that another model or option made it
    """
    name = output_name(pair.output)
    if os.stat(pair.output).st_mtime_ns < os.stat(pair.input).st_mtime_ns:
        raise OutputError(f"{name}: is older than its input {input_name(pair.input)}; make it anew with --overwrite")
    if format_of_name(pair.output) != "parquet":
        return
    try:
        found = pq.read_schema(pair.output).metadata or {}
    except (pa.ArrowException, OSError) as err:
        raise OutputError(f"{name}: is there, but is no whole Parquet file; make it anew with --overwrite") from err
    for key, value in metadata.items():
        if found.get(key.encode()) != value.encode():
            raise OutputError(
                f"{name}: is there, but was made by another model or with other options ({key} differs); make it anew "
                "with --overwrite"
            )
