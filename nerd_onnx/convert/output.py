"""Write converted files and folders atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nerd_onnx.errors import OutputError
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.atomic_folder import AtomicFolder
from nerd_onnx.storage.compression import COMPRESSIONS, CompressedTarget
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import check_place, output_errors, output_name

_LINES = (".jsonl", ".ndjson")


def write_pieces(path: Location, pieces: Iterable[bytes], *, overwrite: bool) -> None:
    """
    Write the pieces of a file atomically, compressed by the suffix of its name; or to standard output.

    :raises OutputError: if the output may not or cannot be written
    """
    # Spooled: a reader of standard output must not take the rows before an error for all of them.
    target = open_target(path, overwrite=overwrite, spooled=True)
    try:
        compressed = CompressedTarget(path, target.file)
        for piece in pieces:
            with output_errors(path):
                compressed.file.write(piece)

        with output_errors(path):
            compressed.finish()

        target.commit()
    finally:
        target.discard()


def json_pieces(values: Iterable[dict[str, Any]], path: Location) -> Iterator[bytes]:
    """Yield objects as JSON Lines if the output's name has a suffix of JSON Lines, else as one array."""
    is_lines = _stem(path).endswith(_LINES)
    opening, between, closing, nothing = ("", "\n", "\n", "") if is_lines else ("[\n", ",\n", "\n]\n", "[]\n")

    # Piece by piece: a large file must not be in memory as a whole.
    is_empty = True
    for value in values:
        before = opening if is_empty else between
        yield (before + json.dumps(value, ensure_ascii=False, allow_nan=False)).encode()
        is_empty = False

    yield (nothing if is_empty else closing).encode()


def is_page(path: Location) -> bool:
    """Whether the output is an HTML page by its name."""
    return _stem(path).endswith((".html", ".htm"))


def _stem(path: Location) -> str:
    """Return a name in lower case, without the suffix of a compression."""
    stem = path.bare.lower()
    for suffix in COMPRESSIONS:
        stem = stem.removesuffix(suffix)
    return stem


@contextmanager
def whole_folder(path: Location) -> Iterator[Path]:
    """
    Write a folder atomically: yield a temporary folder, which gets its name on exit, or is deleted after an exception.

    :raises OutputError: if a file or a folder with content has that name, or the folder cannot be written
    """
    if path.is_standard_stream:
        raise OutputError(
            "BRAT output is a folder; give the name of a folder instead of -", reason="brat-needs-folder", file="-"
        )

    if path.is_remote:
        raise OutputError(
            f"{output_name(path)}: BRAT needs a folder on this machine; write it to a local folder, and copy that "
            "folder",
            reason="brat-needs-local-folder",
            file=output_name(path),
        )

    final = os.path.realpath(path)
    with output_errors(path):
        # Looked at before the rows are read, because conversions of large files take long.
        if os.path.isdir(final) and os.listdir(final):  # noqa: PTH112, PTH208
            raise OutputError(
                f"{output_name(path)}: the folder is not empty; give another name, or empty the folder",
                reason="folder-not-empty",
                file=output_name(path),
            )

        # An empty folder may be there: the new one takes its place.
        found = None if os.path.isdir(final) else path.info_if_any()  # noqa: PTH112
        check_place(path, found, overwrite=False)

        with AtomicFolder(Path(final)) as made:
            yield made.path
            made.commit(replace=False)  # fails if another program filled an empty folder meanwhile
