"""Files in remote storage, named by URI: ``s3://``, ``gs://``, ``hf://`` and others that pyarrow or fsspec opens."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from nerd_onnx.errors import NerdError, StoreError, first_line
from nerd_onnx.storage.file_info import FileInfo
from nerd_onnx.storage.time_limit import within_limit
from nerd_onnx.storage.uri import bare, query_of, without_password, without_secrets

# Schemes of pyarrow itself. What follows the bucket is the key; it is not percent-decoded.
_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")
_EXTRA_SCHEMES = ("hf", "http", "https")  # their packages are in the extra [stores]
# Names of classes in Python, requests and httpx. By name, because these packages need not be installed.
_UNREACHABLE = ("ConnectionError", "Timeout", "TransportError")
_HADOOP = ("hdfs", "viewfs")
_READ_ONLY = ("http://", "https://")
LISTING_FACTOR = 10  # the listing of a large folder is many requests
# In the order in which they are trusted: an object may change twice within the digits of a time.
_VERSIONS = ("etag", "generation", "version_id", "blob_id", "mtime", "last_modified", "created")


def find(uri: str) -> FileInfo:
    """
    Return facts about the file or folder at a URI.

    :raises FileNotFoundError: if nothing exists there
    :raises StoreError: if remote storage cannot be read
    """
    with _remote_errors(uri):
        found = within_limit(uri, lambda: Place.of(uri).facts())

    if found.type.name == "NotFound":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)

    # Some HTTP servers send no length, and without it a file cannot be read from its end, as Parquet must.
    if found.is_file and found.size is None:
        raise StoreError(
            f"{without_secrets(uri)}: the server does not report the size of the file; download it, and give the "
            "local file",
            reason="unknown-size",
            file=without_secrets(uri),
        )

    kind: Literal["file", "folder"] = "folder" if found.type.name == "Directory" else "file"
    return FileInfo(kind, size=found.size or 0, modified_ns=found.mtime_ns or 0)


def is_writable(uri: str) -> bool:
    """Whether remote storage of this kind can be written to at all."""
    return not uri.lower().startswith(_READ_ONLY)


def has_bucket(uri: str) -> bool:
    """Whether the bucket of a URI exists. True if that cannot be checked: writing will then fail with the reason."""

    def ask() -> bool:
        place = Place.of(uri)
        return not place.root or place.filesystem.get_file_info(place.root).type.name != "NotFound"

    try:
        with _remote_errors(uri):
            return within_limit(uri, ask)
    except StoreError as err:
        # Keys that may write need not be allowed to look at the bucket; but from a silent server nothing will come.
        if err.reason == "no-answer":
            raise

    return True


def version(uri: str) -> str | None:
    """
    Return a value that changes with the content of an object: an ETag, a generation or a time; None if there is none.

    :raises StoreError: if remote storage cannot be read
    """
    with _remote_errors(uri):
        metadata = within_limit(uri, lambda: Place.of(uri).metadata())

    # The libraries differ in case: ETag of S3, etag of others.
    told = {name.lower(): value for name, value in metadata.items()}
    return next((str(told[name]) for name in _VERSIONS if told.get(name) is not None), None)


def files_below(uri: str, *, deep: bool = True) -> list[str]:
    """
    Return the files in a folder, as sorted names relative to it; empty if there is no such folder.

    :param deep: whether to include the files of its subfolders
    :raises StoreError: if remote storage cannot be read
    """
    from pyarrow.fs import FileSelector

    def ask() -> list[str]:
        place = Place.of(uri)
        found = place.filesystem.get_file_info(FileSelector(place.path, allow_not_found=True, recursive=deep))
        return sorted(place.name_of(info.path) for info in found if info.is_file)

    with _remote_errors(uri):
        return within_limit(uri, ask, factor=LISTING_FACTOR)


def open_object(uri: str) -> io.RawIOBase:
    """
    Open a file in remote storage; the reader can seek.

    :raises FileNotFoundError: if it does not exist
    :raises StoreError: if it cannot be read, now or later
    """
    return _Object(uri)


def cache_folder(kind: str) -> str:
    """Return the user's local folder for one kind of data about remote storage: ``models``, ``work``."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "nerd-onnx", kind)


@dataclass(frozen=True)
class Place:
    """
    A path in remote storage.

    :param filesystem: the remote storage as a file system of pyarrow
    :param path: path in that file system
    :param root: bucket or container; empty if there is none
    """

    filesystem: Any
    path: str
    root: str = ""

    @classmethod
    def of(cls, uri: str) -> Place:
        """Return the place of a URI, in a file system of pyarrow itself or else of fsspec."""
        scheme = uri.partition("://")[0].lower()
        if scheme in _HADOOP:
            return cls(*arrow_filesystem(uri))
        if scheme not in _BUCKETS:
            return cls(*_fsspec_filesystem(uri))

        # Only the bucket goes through from_uri, which would decode % in keys; S3 allows it in them.
        bucket, _, key = bare(uri).partition("://")[2].partition("/")
        filesystem, root = arrow_filesystem(f"{scheme}://{bucket}{query_of(uri)}")
        root = root.strip("/")

        return cls(filesystem, "/".join(part for part in (root, key.strip("/")) if part), root)

    def facts(self) -> Any:
        """Return type, size and time of the file or folder as it is now, as a ``FileInfo`` of pyarrow."""
        # fsspec caches listings, and would not see what another program wrote meanwhile.
        if self._fsspec is not None:
            self._fsspec.invalidate_cache()

        return self.filesystem.get_file_info(self.path)

    def metadata(self) -> dict[str, Any]:
        """Return the metadata that remote storage has about a file."""
        if self._fsspec is not None:
            return dict(self._fsspec.info(self.path))

        # pyarrow's get_file_info() has no ETag: only an open file has it.
        with self.filesystem.open_input_file(self.path) as file:
            return {name: value.decode(errors="replace") for name, value in (file.metadata() or {}).items()}

    def name_of(self, path: str) -> str:
        """Return a path of the same file system relative to this one."""
        return path.strip("/").removeprefix(self.path.strip("/")).lstrip("/")

    @property
    def _fsspec(self) -> Any:
        handler = getattr(self.filesystem, "handler", None)
        return getattr(handler, "fs", None)


@lru_cache
def arrow_filesystem(uri: str) -> tuple[Any, str]:
    """Open a file system once for all its files."""
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(uri)
    return filesystem, path


def _fsspec_filesystem(uri: str) -> tuple[Any, str]:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(uri)
    except ImportError as err:
        scheme = uri.partition("://")[0].lower()
        extra = "pip install 'nerd-onnx[stores]'" if scheme in _EXTRA_SCHEMES else first_line(err)
        raise StoreError(
            f"{without_secrets(uri)}: a package that {scheme}:// needs is missing: {extra}",
            reason="missing-package",
            file=without_secrets(uri),
            scheme=scheme,
        ) from err

    return PyFileSystem(FSSpecHandler(filesystem)), path


@contextmanager
def _remote_errors(uri: str) -> Iterator[None]:
    """Turn the errors of the libraries for remote storage into a one-line message about a URI."""
    try:
        yield
    except (FileNotFoundError, NerdError):
        raise
    except Exception as err:
        unreachable = any(kind.__name__ in _UNREACHABLE for kind in type(err).__mro__)
        reason = "it cannot be reached; is there a network?" if unreachable else without_password(first_line(err))
        raise StoreError(
            f"{without_secrets(uri)}: the remote storage cannot be read: {reason}",
            reason="unreachable" if unreachable else "storage-failed",
            file=without_secrets(uri),
        ) from err


def _opened(place: Place) -> Any:
    return place.filesystem.open_input_file(place.path)


class _Object(io.RawIOBase):
    """An open file in remote storage. pyarrow passes its exceptions on unchanged."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with _remote_errors(uri):
            self._file = within_limit(uri, lambda: _opened(Place.of(uri)))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _remote_errors(self._uri):
            return int(self._file.seek(offset, whence))  # asks nobody: the size is known since the file was opened

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        # Not readinto(): a read that is given up could write into the buffer later.
        with _remote_errors(self._uri):
            piece = within_limit(self._uri, lambda: self._file.read(len(buffer)))

        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
