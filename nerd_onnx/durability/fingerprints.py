"""Fingerprints of input files, cheap for files of any size, and the difference between two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.errors import InputError, first_line
from nerd_onnx.interruption import waiting
from nerd_onnx.stages import stage
from nerd_onnx.storage.input_stream import input_name, open_bytes
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.remote import version

# Only both ends are hashed: Parquet keeps its schema and statistics in the footer, and a corpus may have terabytes.
END_BYTES = 1 << 20


@stage("read")
def file_fingerprint(path: Location) -> dict[str, Any]:
    """
    Return the fingerprint of a file: size, modification time, first and last MiB, and in remote storage its version.

    :param path: a file or a URI
    :return: each fact by its name, as plain data for the journal
    :raises InputError: when it cannot be read
    """
    try:
        found = path.info()
        with open_bytes(path, END_BYTES) as file:
            digest = hashlib.sha256(file.read(END_BYTES))
            if found.size > END_BYTES:
                # The two ends of a file of less than two MiB overlap; no byte is hashed twice.
                file.seek(max(END_BYTES, found.size - END_BYTES))
                digest.update(file.read(END_BYTES))

        facts = {"size": found.size, "modification time": found.modified_ns, "head and footer": digest.hexdigest()}
        return {**facts, "version": version(path.text)} if path.is_remote else facts
    except OSError as err:
        raise InputError(
            f"{input_name(path)}: cannot be read: {err.strerror or first_line(err)}",
            reason="cannot-read",
            file=input_name(path),
        ) from err


def content_sha256(path: Location) -> str:
    """
    Return the SHA-256 of a file's whole content.

    :param path: a file or a URI
    :raises InputError: when it cannot be read
    :raises OSError: when it cannot be read
    :raises InterruptedRunError: if a signal arrives: a file of 100 GB takes more than a minute
    """
    with open_bytes(path) as file, waiting():
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_of(path: Location) -> str | None:
    """
    Return a value that changes with every change of a file; it may also change when only name or permissions do.

    It is the inode and the time of the last change (ctime) of a local file, which programs cannot set back, and the
    version of an object in remote storage.

    :param path: a file or a URI
    :return: None if there is no file, or its remote storage has no versions
    :raises StoreError: if remote storage cannot be read
    """
    if path.is_remote:
        return version(path.text)

    found = path.info_if_any()
    return None if found is None else f"{found.inode}:{found.changed_ns}"


def texts_fingerprint(texts: pa.Array) -> str:
    """
    Return the SHA-256 of texts: of their lengths and of their bytes. It does not depend on how Arrow stores them.

    :param texts: ``string`` or ``large_string``, null where there is no text; or a ``large_list`` of these.
        *Shape:* (rows,)
    """
    if pa.types.is_large_list(texts.type):
        counts = pc.fill_null(texts.value_lengths(), -1)
        digest = hashlib.sha256(np.asarray(counts, dtype="<i8").tobytes())
        digest.update(texts_fingerprint(texts.flatten()).encode())
        return digest.hexdigest()

    # The lengths too, because [ab, c] and [a, bc] have the same bytes; -1, because a null is no empty text.
    lengths = pc.fill_null(pc.cast(pc.binary_length(texts), pa.int64()), -1)
    digest = hashlib.sha256(np.asarray(lengths, dtype="<i8").tobytes())

    # A null may have bytes in the buffer, which are no text.
    dense = texts.drop_null() if texts.null_count else texts
    _, offsets, data = dense.buffers()
    if len(dense) and data is not None:
        # The buffers of a slice are those of the whole array, in which it begins at its offset.
        width = np.int64 if pa.types.is_large_string(dense.type) else np.int32
        ends = np.frombuffer(offsets, width, count=dense.offset + len(dense) + 1)
        digest.update(memoryview(data)[ends[dense.offset] : ends[-1]])

    return digest.hexdigest()


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
