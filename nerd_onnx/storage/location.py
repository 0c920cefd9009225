"""Names of files (paths, URIs and ``-``): split, join, compare and show them. Nothing is opened here."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

STANDARD_STREAM = "-"
# Bytes of a file name that are not UTF-8. Python represents each as a lone surrogate, which cannot be printed.
_UNDECODED = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}

_URI = re.compile(r"([a-z][a-z0-9+.:-]+)://", re.IGNORECASE)
_LOCAL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/@]*:(?!\d+/)[^@]*@")  # but a port is not a password


def is_uri(path: str) -> bool:
    """Whether a name is the URI of a file in remote storage."""
    return _URI.match(path) is not None


def local_path(path: str) -> str:
    """Return the path of a ``file://`` URI; other names unchanged."""
    found = _LOCAL.match(path)
    return unquote(path[found.end() :]) if found else path


def bare(path: str) -> str:
    """Return a URI without its query, which holds options of the remote storage; a path unchanged."""
    return path.partition("?")[0] if is_uri(path) else path


def query_of(path: str) -> str:
    """Return the query of a URI with its question mark, to be put at the end of names made from it; or empty text."""
    return path[len(bare(path)) :]


def without_password(text: str) -> str:
    """Return a text with key and password of each URI in it replaced by ``***``."""
    return _PASSWORD.sub("***@", text)


def without_secrets(path: str) -> str:
    """Return a URI without query and password, for messages and logs; a path unchanged."""
    return without_password(bare(path))


def place_name(uri: str) -> str:
    """Return a name that is the same with and without a slash at the end, and with any keys, for comparison."""
    return without_password(bare(uri).rstrip("/") + query_of(uri))


def base_name(path: str) -> str:
    """Return the last part of a name, without a query."""
    return os.path.basename(bare(path))


def join(folder: str, name: str) -> str:
    """Return the name of a file below a folder; the query of a URI stays at the end."""
    if not is_uri(folder):
        return os.path.join(folder, name)
    return f"{bare(folder).rstrip('/')}/{name}{query_of(folder)}"


def same(path: str, other: str) -> bool:
    """Whether two names are those of the same file."""
    if is_uri(path) or is_uri(other):
        return bare(path) == bare(other)
    return os.path.realpath(path) == os.path.realpath(other)


def is_below(path: str, folder: str) -> bool:
    """Whether a file is in a folder, at any depth."""
    if is_uri(path) or is_uri(folder):
        return bare(path).startswith(bare(folder).rstrip("/") + "/")
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))


def shown(path: str, stream: str) -> str:
    """Return a path or URI as printable text for messages. ``stream`` is the text for ``-``."""
    if path == STANDARD_STREAM:
        return stream
    return without_secrets(path).translate(_UNDECODED).encode(errors="backslashreplace").decode()
