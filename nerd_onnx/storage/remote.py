"""Files of stores, named by URI: ``s3://``, ``gs://``, ``hf://`` and whatever else pyarrow or fsspec opens."""

from __future__ import annotations

import errno
import io
import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from nerd_onnx.errors import NerdError, StoreError, first_line
from nerd_onnx.storage.location import bare, is_uri, query_of, without_password, without_secrets

_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")  # pyarrow's own; what follows the bucket is a key, taken as it stands
_EXTRA_SCHEMES = ("hf", "http", "https")  # whose packages come with the extra [stores]
_UNREACHABLE = ("ConnectionError", "Timeout", "TransportError")  # of Python, requests and httpx
_HADOOP = ("hdfs", "viewfs")
_READ_ONLY = ("http://", "https://")
_VERSIONS = ("etag", "generation", "version_id", "blob_id", "mtime", "last_modified", "created")


def exists(path: str) -> bool:
    """
    Tell whether there is something at a path or URI.

    :raises StoreError: when a store cannot tell
    """
    if not is_uri(path):
        return os.path.lexists(path)
    try:
        find(path)
    except FileNotFoundError:
        return False
    return True


def is_folder(path: str) -> bool:
    """
    Tell whether there is a folder at a path or URI.

    :raises StoreError: when a store cannot tell
    """
    if not is_uri(path):
        return os.path.isdir(path)
    try:
        return modes.S_ISDIR(find(path).st_mode)
    except FileNotFoundError:
        return False


def find(path: str) -> os.stat_result:
    """
    Tell what stands at a path or URI, as the system tells it of files.

    :raises FileNotFoundError: when there is nothing
    :raises StoreError: when a store cannot tell
    """
    if not is_uri(path):
        return os.stat(path)
    with _store_errors(path):
        found = Place.of(path).facts()
    if found.type.name == "NotFound":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if found.is_file and found.size is None:
        raise StoreError(
            f"{without_secrets(path)}: the server does not report the size of the file; download it, and give the "
            "local file",
            reason="unknown-size",
            file=without_secrets(path),
        )
    mode = modes.S_IFDIR if found.type.name == "Directory" else modes.S_IFREG
    times_ns = dict.fromkeys(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), found.mtime_ns or 0)
    return os.stat_result((mode, 0, 0, 0, 0, 0, found.size or 0, 0, 0, 0), times_ns)


def is_writable(uri: str) -> bool:
    """Tell whether a store takes files at all."""
    return not uri.lower().startswith(_READ_ONLY)


def has_bucket(uri: str) -> bool:
    """Tell whether the bucket of a URI is there; where the store does not say, writing will."""
    with suppress(StoreError), _store_errors(uri):
        place = Place.of(uri)
        return not place.root or place.filesystem.get_file_info(place.root).type.name != "NotFound"
    return True


def version(uri: str) -> str | None:
    """
    Give what changes with an object's content, where its store tells: an ETag, a generation, a time.

    :raises StoreError: when a store cannot tell
    """
    with _store_errors(uri):
        told = {name.lower(): value for name, value in Place.of(uri).metadata().items()}
    return next((str(told[name]) for name in _VERSIONS if told.get(name) is not None), None)


def files_below(uri: str, *, deep: bool = True) -> list[str]:
    """
    List the files of a folder by their names below it, in order; of one that is not there, none.

    :param deep: those of its folders too
    :raises StoreError: when the store cannot tell
    """
    from pyarrow.fs import FileSelector

    with _store_errors(uri):
        place = Place.of(uri)
        found = place.filesystem.get_file_info(FileSelector(place.path, allow_not_found=True, recursive=deep))
        return sorted(place.name_of(info.path) for info in found if info.is_file)


def open_object(uri: str) -> io.RawIOBase:
    """
    Open a file of a store, to be read at any place.

    :raises FileNotFoundError: when it is not there
    :raises StoreError: when it cannot be read, here and later
    """
    return _Object(uri)


def cache_folder(kind: str) -> str:
    """Name the user's local folder for what belongs to stores."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "nerd-onnx", kind)


@dataclass(frozen=True)
class Place:
    """
    A place in a store.

    :param filesystem: pyarrow's view of the store
    :param path: its path there
    :param root: bucket or container; empty where there is none
    """

    filesystem: Any
    path: str
    root: str = ""

    @classmethod
    def of(cls, uri: str) -> Place:
        """Find the store of a URI: one of pyarrow's own, else one of fsspec's."""
        scheme = uri.partition("://")[0].lower()
        if scheme in _HADOOP:
            return cls(*_arrow_filesystem(uri))
        if scheme not in _BUCKETS:
            return cls(*_fsspec_filesystem(uri))
        bucket, _, key = bare(uri).partition("://")[2].partition("/")
        filesystem, root = _arrow_filesystem(f"{scheme}://{bucket}{query_of(uri)}")
        root = root.strip("/")
        return cls(filesystem, "/".join(part for part in (root, key.strip("/")) if part), root)

    def facts(self) -> Any:
        """Give kind, size and time of what is there now, as pyarrow's ``FileInfo``."""
        if self._fsspec is not None:
            self._fsspec.invalidate_cache()
        return self.filesystem.get_file_info(self.path)

    def metadata(self) -> dict[str, Any]:
        """Give what the store says of a file."""
        if self._fsspec is not None:
            return dict(self._fsspec.info(self.path))
        with self.filesystem.open_input_file(self.path) as file:
            return {name: value.decode(errors="replace") for name, value in (file.metadata() or {}).items()}

    def name_of(self, path: str) -> str:
        """Name a path by what stands below this one."""
        return path.strip("/").removeprefix(self.path.strip("/")).lstrip("/")

    @property
    def _fsspec(self) -> Any:
        handler = getattr(self.filesystem, "handler", None)
        return getattr(handler, "fs", None)


@lru_cache
def _arrow_filesystem(uri: str) -> tuple[Any, str]:
    """Open a store once for all its files."""
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
def _store_errors(uri: str) -> Iterator[None]:
    """Turn what the libraries of stores raise, each its own, into one line about a URI."""
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


class _Object(io.RawIOBase):
    """An open file of a store; what it raises, pyarrow passes on as it is."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with _store_errors(uri):
            place = Place.of(uri)
            self._file = place.filesystem.open_input_file(place.path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _store_errors(self._uri):
            return int(self._file.seek(offset, whence))

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # Buffer is 3.12's
        with _store_errors(self._uri):
            return int(self._file.readinto(buffer))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
