"""Outputs that an earlier run finished, and of which no journal is left."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.durability.fingerprints import difference
from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.readers import format_of_name
from nerd_onnx.storage.input_stream import ByteStream, input_name, open_bytes
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name
from nerd_onnx.tagging.file_pairs import FilePair

OPTIONS_FACT = "options"  # key in the schema's metadata: the options that decide the content of the file, as JSON
_FOOTER_BYTES = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5")  # first bytes of gzip and Zstandard
_SECOND = 10**9  # in nanoseconds


def is_file(path: Location) -> bool:
    """Whether an output is a file, or will be one: not a stream, pipe or device."""
    if path.is_standard_stream or path.is_remote:
        return path.is_remote
    with suppress(OSError):
        found = path.info_if_any()
        return found is None or not found.is_device
    return True


def check_finished(pair: FilePair, metadata: Mapping[str, str], *, verify: bool) -> None:
    """
    Check that an output of an earlier run is what this run would write, by its time, its end and, in Parquet, metadata.

    :param metadata: the metadata that this run would write, see :attr:`Plan.metadata`
    :param verify: read the whole output
    :raises OutputError: if it is older than its input, incomplete, or written by another model or with other options
    """
    name = output_name(pair.output)

    if _is_older(pair):
        raise OutputError(
            f"{name}: is older than its input {input_name(pair.input)}; write it again with --overwrite",
            reason="older-than-input",
            file=name,
            input=input_name(pair.input),
        )

    if format_of_name(pair.output) == "parquet":
        _check_metadata(name, _metadata_of(pair.output), metadata)
        if verify:
            _read_parquet(pair.output)
    elif format_of_name(pair.output) == "jsonl":
        # JSON Lines record neither model nor options.
        _check_lines(pair.output, verify=verify)


def _check_lines(path: Location, *, verify: bool) -> None:
    """
    Check that a file of JSON Lines ends with a line, or with ``verify`` that it can be read to its end.

    :raises OutputError: if it is incomplete
    """
    try:
        with open_bytes(path) as file:
            is_compressed = file.read(2) in _COMPRESSED
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if not is_compressed and file.read(1) not in (b"", b"\n"):
                raise _incomplete(path, "file of JSON Lines")
        if verify:
            with ByteStream(path) as stream:
                deque(stream.lines(), maxlen=0)
    except (OSError, InputError) as err:
        raise _incomplete(path, "file of JSON Lines") from err


def _read_parquet(path: Location) -> None:
    """
    Read all pages of a Parquet file.

    :raises OutputError: if one is damaged
    """
    try:
        with open_bytes(path) as file, pq.ParquetFile(file, page_checksum_verification=True) as found:
            for batch in found.iter_batches():
                batch.validate(full=True)
    except (pa.ArrowException, OSError, InputError, ValueError) as err:
        raise _incomplete(path, "Parquet file") from err


def _metadata_of(path: Location) -> Mapping[bytes, bytes]:
    """Return the schema's metadata of a Parquet file."""
    try:
        with open_bytes(path, _FOOTER_BYTES) as file:
            return pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError, InputError) as err:
        raise _incomplete(path, "Parquet file") from err


def _incomplete(path: Location, what: str) -> OutputError:
    return OutputError(
        f"{output_name(path)}: already exists, but is not a complete {what}; move it away and write it again with "
        "--resume, or write all files again with --overwrite",
        reason="incomplete-output",
        file=output_name(path),
    )


def _check_metadata(name: str, found: Mapping[bytes, bytes], expected: Mapping[str, str]) -> None:
    """Compare the options first, because their error names the option that differs; then model and programs."""
    options = {key: value for key, value in expected.items() if key.endswith(f".{OPTIONS_FACT}")}

    for key, value in options.items():
        recorded = found.get(key.encode())
        # Earlier versions did not record the options.
        changed = None if recorded is None else _other_option(recorded, value)
        if changed:
            raise OutputError(
                f"{name}: already exists, but was written with other options: {changed}; write it again with "
                "--overwrite",
                reason="other-options",
                file=name,
                changed=changed,
            )

    for key, value in expected.items():
        if key not in options and found.get(key.encode()) != value.encode():
            raise OutputError(
                f"{name}: already exists, but was written by another model or with other options ({key} differs); "
                "write it again with --overwrite",
                reason="other-model",
                file=name,
                changed=key,
            )


def _other_option(recorded: bytes, expected: str) -> str | None:
    """Return the first option that differs, or None."""
    try:
        was, now = json.loads(recorded), json.loads(expected)
        # A file that was finished under "fail" has no rejected row, so "skip" would have written the same bytes.
        if (was["--on-error"], now["--on-error"]) == ("fail", "skip"):
            was["--on-error"] = "skip"
        return difference(was, now)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "those that it records cannot be read"


def _is_older(pair: FilePair) -> bool:
    """Whether an output is older than its input."""
    with output_errors(pair.output):
        made, read = pair.output.info_if_any(), pair.input.info_if_any()
    if made is None or read is None:
        return False

    # Remote storage reports times in whole seconds.
    unit = _SECOND if pair.output.is_remote or pair.input.is_remote else 1
    return made.modified_ns // unit < read.modified_ns // unit
