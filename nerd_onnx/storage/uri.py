"""URIs of files in remote storage, as text: their query, and what of them may be shown."""

from __future__ import annotations

import re

# Two letters at least: C:// is a path of Windows. With colons, because fsspec chains schemes: simplecache::s3://.
_URI = re.compile(r"([a-z][a-z0-9+.:-]+)://", re.IGNORECASE)
# A port is not a password. A password may have slashes, so everything up to the @ is taken.
_PASSWORD = re.compile(r"(?<=://)[^/@]*:(?!\d+/)[^@]*@")


def is_uri(name: str) -> bool:
    """Whether a name is the URI of a file in remote storage."""
    return _URI.match(name) is not None


def bare(name: str) -> str:
    """Return a URI without its query, which holds options of the remote storage; a path unchanged."""
    return name.partition("?")[0] if is_uri(name) else name


def query_of(name: str) -> str:
    """Return the query of a URI with its question mark, to be put at the end of names made from it; or empty text."""
    return name[len(bare(name)) :]


def without_password(text: str) -> str:
    """Return a text with key and password of each URI in it replaced by ``***``."""
    return _PASSWORD.sub("***@", text)


def without_secrets(name: str) -> str:
    """Return a URI without query and password, for messages and logs; a path unchanged."""
    return without_password(bare(name))
