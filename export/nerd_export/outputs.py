"""Check the places of outputs before the work begins, and turn disk errors into one-line messages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nerd_onnx.errors import OutputError, first_line


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """
    Turn an OSError inside the block into a one-line error about ``target``.

    :raises OutputError: for any OSError inside the block, such as a full disk
    """
    try:
        yield
    except OSError as err:
        raise OutputError(
            f"{target}: cannot be written: {err.strerror or first_line(err)}", reason="cannot-write", file=str(target)
        ) from err


def require_folder(folder: Path) -> None:
    """
    Check that a folder can be written or created; nothing is created.

    :raises OutputError: when it is a file, lies in one, or may not be written
    """
    # The nearest folder that exists decides, because missing ones are created on the way.
    place = folder
    while not os.path.lexists(place):
        place = place.parent

    if not place.is_dir():
        raise OutputError(
            f"{folder}: is a file; --output takes a folder"
            if place == folder
            else f"{folder}: {place} is not a folder",
            reason="not-folder",
            file=str(folder),
            folder=str(place),
        )

    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder}: no permission to write into {place}",
            reason="no-permission",
            file=str(folder),
            folder=str(place),
        )


def require_file(file: Path) -> None:
    """
    Check that a file can be written; nothing is created.

    :raises OutputError: when it is a folder, its folder is missing, or it may not be written
    """
    if file.is_dir():
        raise OutputError(f"{file}: is a folder; expected a file to write", reason="is-folder", file=str(file))
    if not file.parent.is_dir():
        raise OutputError(
            f"{file}: the folder {file.parent} does not exist; create it first",
            reason="missing-folder",
            file=str(file),
            folder=str(file.parent),
        )
    # An existing file can be writable in a folder that is not, and the other way round.
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise OutputError(f"{file}: no permission to write it", reason="no-permission", file=str(file))
