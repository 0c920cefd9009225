"""Outputs that an earlier run finished and whose journal was removed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from nerd_onnx.durability.fingerprints import difference
from nerd_onnx.errors import OutputError
from nerd_onnx.formats.file_format import FileFormat
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import is_pipe, output_errors, output_name
from nerd_onnx.tagging.file_pairs import FilePair

OPTIONS_FACT = "options"  # key in the schema's metadata: the options that decide the content of the file, as JSON
_SECOND = 10**9  # in nanoseconds


def is_file(path: Location) -> bool:
    """Whether an output is a file, or will be one: not a stream, pipe or device."""
    return not is_pipe(path)


def check_finished(
    pair: FilePair,
    format: FileFormat,  # noqa: A002 - the option's name
    metadata: Mapping[str, str],
    *,
    verify: bool,
) -> None:
    """
    Check that an output of an earlier run is what this run would write: by its time, and by what its format shows.

    :param format: format of the output
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

    # Formats without metadata record neither model nor options.
    if format.read_metadata is not None:
        _check_metadata(name, format.read_metadata(pair.output), metadata)
    if format.check_complete is not None:
        format.check_complete(pair.output, verify)


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
