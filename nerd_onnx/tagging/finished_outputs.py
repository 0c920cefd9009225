"""Outputs that are there already: whether they are this run's own, finished before, or somebody else's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.durability.fingerprints import difference
from nerd_onnx.durability.journal import Event
from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.readers import format_of_name
from nerd_onnx.storage.input_stream import input_name, open_bytes
from nerd_onnx.storage.location import STANDARD_STREAM, is_uri
from nerd_onnx.storage.output_place import find, output_errors, output_name
from nerd_onnx.storage.uploads import holds
from nerd_onnx.tagging.file_pairs import FilePair

OPTIONS_FACT = "options"  # of the schema's metadata: those that decide what stands in the file, as JSON
_FOOTER_BYTES = 1 << 20
_S = 10**9  # in nanoseconds


def is_file(path: str) -> bool:
    """Tell whether an output is a file, or will be one: no stream, pipe or device."""
    if path == STANDARD_STREAM or is_uri(path):
        return is_uri(path)
    with suppress(OSError):
        found = find(path)
        return found is None or not found.is_device
    return True


def was_committed(path: str, commit: Event | None) -> bool:
    """Tell whether a file is the one that a run was about to put there when it died."""
    with output_errors(path):
        found = find(path)
    if commit is None or found is None or found.size != commit["size"]:
        return False
    return holds(path, commit["identity"]) if is_uri(path) else found.inode == commit["identity"]


def check_finished(pair: FilePair, metadata: Mapping[str, str]) -> None:
    """
    Check that an output, finished by an earlier run, is what this run would make, as far as one can see.

    :param metadata: what this run would say of its entities in Parquet
    :raises OutputError: when it is older than its input, or says that another model or option made it
    """
    name = output_name(pair.output)
    if _is_older(pair):
        raise OutputError(
            f"{name}: is older than its input {input_name(pair.input)}; write it again with --overwrite",
            reason="older-than-input",
            file=name,
            input=input_name(pair.input),
        )
    if format_of_name(pair.output) != "parquet":
        return
    try:
        with open_bytes(pair.output, _FOOTER_BYTES) as file:
            found = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError, InputError) as err:
        raise OutputError(
            f"{name}: already exists, but is not a complete Parquet file; write it again with --overwrite",
            reason="incomplete-output",
            file=name,
        ) from err
    options = {key: value for key, value in metadata.items() if key.endswith(f".{OPTIONS_FACT}")}
    for key, value in options.items():
        said = found.get(key.encode())
        changed = None if said is None else _other_option(said, value)  # earlier versions did not say them
        if changed:
            raise OutputError(
                f"{name}: already exists, but was written with other options: {changed}; write it again with "
                "--overwrite",
                reason="other-options",
                file=name,
                changed=changed,
            )
    for key, value in metadata.items():
        if key not in options and found.get(key.encode()) != value.encode():
            raise OutputError(
                f"{name}: already exists, but was written by another model or with other options ({key} differs); "
                "write it again with --overwrite",
                reason="other-model",
                file=name,
                changed=key,
            )


def _other_option(said: bytes, wanted: str) -> str | None:
    """Name the first option that differs; what was finished without a bad row is as one that leaves them out."""
    try:
        was, now = json.loads(said), json.loads(wanted)
        if (was["--on-error"], now["--on-error"]) == ("fail", "skip"):
            was["--on-error"] = "skip"
        return difference(was, now)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "those that it records cannot be read"


def _is_older(pair: FilePair) -> bool:
    """Tell whether an output is older than its input; stores tell times in seconds."""
    with output_errors(pair.output):
        made, read = find(pair.output), find(pair.input)
    if made is None or read is None:
        return False
    unit = _S if is_uri(pair.output) or is_uri(pair.input) else 1
    return made.modified_ns // unit < read.modified_ns // unit
