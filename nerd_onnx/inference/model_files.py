"""Open the files of a model folder, which anybody may have made: regular files only, no pipes or devices."""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.storage.regular_file import NotRegularFileError, open_regular
from nerd_onnx.storage.signatures import LFS_ADVICE, LFS_POINTER


def open_regular_file(path: Path) -> BufferedReader:
    """
    Open a file to read. A pipe or a device is refused at once, because reading from it may never end.

    :raises ModelError: when it is not a regular file, or only a pointer of Git LFS
    :raises OSError: when it cannot be opened
    """
    try:
        file = open_regular(path)
    except NotRegularFileError as err:
        raise ModelError(
            f"{path}: is not a regular file; a model folder has regular files only",
            reason="not-regular-file",
            file=str(path),
        ) from err

    if file.peek(len(LFS_POINTER)).startswith(LFS_POINTER):
        file.close()
        raise ModelError(
            f"{path}: is a pointer of Git LFS, and not the file itself; {LFS_ADVICE}",
            reason="lfs-pointer",
            file=str(path),
        )
    return file


def require_regular_file(path: Path) -> None:
    """
    Check that a file is a regular one, before a library opens it. A missing file passes: the library reports it.

    :raises ModelError: when it is something else than a regular file
    """
    try:
        open_regular_file(path).close()
    except OSError:
        return


def unreadable(path: Path, err: OSError) -> ModelError:
    """Return the error for a file that the system does not let this program read."""
    return ModelError(
        f"{path}: cannot be read: {err.strerror or first_line(err)}", reason="cannot-read", file=str(path)
    )
