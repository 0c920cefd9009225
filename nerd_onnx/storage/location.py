"""Where bytes are: a local path, a URI or a standard stream, in one type that is parsed where a name enters."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Self, cast
from urllib.parse import unquote

from nerd_onnx.interruption import waiting
from nerd_onnx.storage import remote, uri
from nerd_onnx.storage.file_info import FileInfo

STANDARD_STREAM = "-"
Name = str | os.PathLike[str]
# A file URI with another host stays a URI: the file is on another machine.
_LOCAL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
# Bytes of a file name that are not UTF-8. Python represents each as a lone surrogate, which cannot be printed.
_UNDECODED = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}


@dataclass(frozen=True)
class Location(os.PathLike[str]):
    """
    A place for bytes. Make one with :meth:`of`, once, where its name enters the program.

    A local one can be passed to the functions of the system as it is.

    :param text: a path, the URI of something in remote storage, or ``-`` for standard input or output
    """

    text: str

    @classmethod
    def of(cls, name: Name) -> Self:
        """Return the location that a user named. A ``file://`` URI becomes a path, so no other code has to know it."""
        if isinstance(name, cls):
            return name

        text = os.fspath(name)
        found = _LOCAL.match(text)
        return cls(unquote(text[found.end() :]) if found else text)

    def __str__(self) -> str:
        return self.text

    def __fspath__(self) -> str:
        return self.text

    @property
    def is_standard_stream(self) -> bool:
        """Whether it is standard input or output, whichever is meant where it is used."""
        return self.text == STANDARD_STREAM

    @cached_property
    def is_remote(self) -> bool:
        """Whether it is in remote storage."""
        return uri.is_uri(self.text)

    @cached_property
    def bare(self) -> str:
        """The text without the query of a URI, which holds options of the remote storage."""
        return uri.bare(self.text)

    @property
    def query(self) -> str:
        """The query of a URI with its question mark; else empty."""
        return uri.query_of(self.text)

    @property
    def name(self) -> str:
        """The last part, without a query."""
        return os.path.basename(self.bare)

    @property
    def suffixes(self) -> list[str]:
        """The suffixes of the name in lower case, each with its dot."""
        return [suffix.lower() for suffix in PurePath(self.bare).suffixes]

    @property
    def names_folder(self) -> bool:
        """Whether it ends in a slash."""
        return self.bare.endswith(("/", os.sep))

    @property
    def identity(self) -> str:
        """A text that is the same with and without a slash at the end, and with any keys, for comparison."""
        return uri.without_password(self.bare.rstrip("/") + self.query)

    @property
    def parent(self) -> Location:
        """The folder that holds it; the query of a URI stays."""
        return Location(os.path.dirname(self.bare) + self.query)

    def join(self, name: str) -> Location:
        """Return the location of a file below this folder; the query of a URI stays at the end."""
        if not self.is_remote:
            return Location(os.path.join(self.text, name))
        return Location(f"{self.bare.rstrip('/')}/{name}{self.query}")

    def is_same(self, other: Location) -> bool:
        """Whether both are names of the same file."""
        if self.is_remote or other.is_remote:
            return self.bare == other.bare
        return os.path.realpath(self) == os.path.realpath(other)

    def is_below(self, folder: Location) -> bool:
        """Whether it is in a folder, at any depth."""
        if self.is_remote or folder.is_remote:
            return self.bare.startswith(folder.bare.rstrip("/") + "/")

        # join() adds a slash: /data2 is not below /data.
        return os.path.realpath(self).startswith(os.path.join(os.path.realpath(folder), ""))

    def shown(self, stream: str = STANDARD_STREAM) -> str:
        """Return it as printable text without passwords, for messages. ``stream`` is the text for ``-``."""
        if self.is_standard_stream:
            return stream

        # Other lone surrogates cannot be printed either: Windows allows them in names.
        shown = self.without_secrets.translate(_UNDECODED)
        return shown.encode(errors="backslashreplace").decode()

    @property
    def without_secrets(self) -> str:
        """The text without the query and password of a URI, for logs and summaries."""
        return uri.without_secrets(self.text)

    def info(self) -> FileInfo:
        """
        Return facts about the file or folder there.

        :raises FileNotFoundError: if nothing exists there
        :raises OSError: if the system cannot look there
        :raises StoreError: if remote storage cannot be read
        """
        return remote.find(self.text) if self.is_remote else FileInfo.of_path(self.text)

    def info_if_any(self) -> FileInfo | None:
        """Return what :meth:`info` does; None if nothing exists there."""
        try:
            return self.info()
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        """
        Whether something exists there, be it a link that leads nowhere.

        :raises StoreError: if remote storage cannot be read
        """
        return self.info_if_any() is not None if self.is_remote else os.path.lexists(self)

    def is_folder(self) -> bool:
        """
        Whether a folder exists there.

        :raises StoreError: if remote storage cannot be read
        """
        if not self.is_remote:
            return os.path.isdir(self)
        found = self.info_if_any()
        return found is not None and found.is_folder

    def open(self, buffer_bytes: int) -> io.BufferedReader:
        """
        Open it to read; not for standard input.

        :param buffer_bytes: size of a read
        :raises OSError: if it cannot be opened
        :raises StoreError: if it cannot be read, now or later
        """
        if self.is_remote:
            return io.BufferedReader(remote.open_object(self.text), buffer_bytes)
        with waiting():  # for the writer of a pipe
            return cast("io.BufferedReader", open(self, "rb", buffering=buffer_bytes))
