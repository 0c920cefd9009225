"""Names of files: paths, URIs and ``-``; taken apart, joined, compared and shown. Nothing is opened."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

STANDARD_STREAM = "-"
# Bytes of a file name that are not UTF-8: Python keeps each as a lone surrogate, which no terminal takes.
_UNDECODED = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}

_URI = re.compile(r"([a-z][a-z0-9+.:-]+)://", re.IGNORECASE)
_LOCAL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/@]*:(?!\d+/)[^@]*@")  # a port is none


def is_uri(path: str) -> bool:
    """Tell whether a name is that of a file in a store."""
    return _URI.match(path) is not None


def local_path(path: str) -> str:
    """Give the path that a ``file://`` URI means; other names as they are."""
    found = _LOCAL.match(path)
    return unquote(path[found.end() :]) if found else path


def bare(path: str) -> str:
    """Give a URI without its query, which holds options of the store; a path as it is."""
    return path.partition("?")[0] if is_uri(path) else path


def query_of(path: str) -> str:
    """Give a URI's query with its question mark, which belongs at the end of any name made of the URI; else nothing."""
    return path[len(bare(path)) :]


def without_password(text: str) -> str:
    """Leave out the key and password of any URI in a text."""
    return _PASSWORD.sub("***@", text)


def without_secrets(path: str) -> str:
    """Give a URI as messages and logs may show it, without query and password; a path as it is."""
    return without_password(bare(path))


def place_name(uri: str) -> str:
    """Name a file or folder the same with a slash at its end and without, and with any keys."""
    return without_password(bare(uri).rstrip("/") + query_of(uri))


def base_name(path: str) -> str:
    """Give the last part of a name."""
    return os.path.basename(bare(path))


def join(folder: str, name: str) -> str:
    """Name a file below a folder; the query of a URI stays at its end."""
    if not is_uri(folder):
        return os.path.join(folder, name)
    return f"{bare(folder).rstrip('/')}/{name}{query_of(folder)}"


def same(path: str, other: str) -> bool:
    """Tell whether two names are of one file."""
    if is_uri(path) or is_uri(other):
        return bare(path) == bare(other)
    return os.path.realpath(path) == os.path.realpath(other)


def is_below(path: str, folder: str) -> bool:
    """Tell whether a file lies in a folder, at any depth."""
    if is_uri(path) or is_uri(folder):
        return bare(path).startswith(bare(folder).rstrip("/") + "/")
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))


def shown(path: str, stream: str) -> str:
    """Name a path or URI for a message, in text that can be printed; ``stream`` is what ``-`` stands for."""
    if path == STANDARD_STREAM:
        return stream
    return without_secrets(path).translate(_UNDECODED).encode(errors="backslashreplace").decode()
