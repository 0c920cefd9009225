"""Fingerprints of input files, cheap for files of any size, and the difference between two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from nerd_onnx.errors import InputError, first_line
from nerd_onnx.stages import stage
from nerd_onnx.storage.input_stream import input_name, open_bytes
from nerd_onnx.storage.location import is_uri
from nerd_onnx.storage.remote import find, version

# Only both ends are hashed: Parquet keeps its schema and statistics in the footer, and a corpus may have terabytes.
_END_BYTES = 1 << 20


@stage("read")
def file_fingerprint(path: str) -> dict[str, Any]:
    """
    Return the fingerprint of a file: size, modification time, first and last MiB, and in remote storage its version.

    :param path: a file or a URI
    :return: each fact by its name, as plain data for the journal
    :raises InputError: when it cannot be read
    """
    try:
        found = find(path)
        with open_bytes(path, _END_BYTES) as file:
            digest = hashlib.sha256(file.read(_END_BYTES))
            if found.size > _END_BYTES:
                file.seek(max(_END_BYTES, found.size - _END_BYTES))
                digest.update(file.read(_END_BYTES))

        facts = {"size": found.size, "modification time": found.modified_ns, "head and footer": digest.hexdigest()}
        return {**facts, "version": version(path)} if is_uri(path) else facts
    except OSError as err:
        raise InputError(
            f"{input_name(path)}: cannot be read: {err.strerror or first_line(err)}",
            reason="cannot-read",
            file=input_name(path),
        ) from err


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the name of the first fact that differs, with both values shortened; None if all facts are equal."""
    for name in {**before, **now}:
        then, here = before.get(name), now.get(name)
        if then != here:
            return f"{name} (was {_shown(then)}, is {_shown(here)})"
    return None


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "not given"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."  # noqa: PLR2004
