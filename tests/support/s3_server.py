"""A real S3 server on loopback (moto's), and a link to it that can be held or cut."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen
from xml.sax.saxutils import unescape

import pytest

from nerd_onnx.storage.remote import arrow_filesystem

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
_START_S = 60
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class S3:
    """
    A bucket of a running server, seen past the program under test.

    :param address: host and port
    """

    address: str
    bucket: str = "corpora"

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"http://{self.address}"

    def environment(self, address: str | None = None, **more: str) -> dict[str, str]:
        """Return the environment of a process that talks to it, or to a link to it."""
        return {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://{address or self.address}", **more}

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Let this process talk to it, by new clients: each keeps the address and the keys that it was made with."""
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": self.url}.items():
            patch.setenv(name, value)
        arrow_filesystem.cache_clear()

    def uri(self, key: str) -> str:
        """Name an object as users do."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, content: bytes) -> None:
        """Store an object."""
        self._ask(key, "PUT", content)

    def get(self, key: str) -> bytes | None:
        """Return what stands under a key; None where there is nothing."""
        try:
            return self._ask(key)
        except HTTPError as err:
            if err.code == 404:
                return None
            raise

    def parts(self, key: str) -> int:
        """Return the number of parts in which an object came; its ETag ends with it."""
        with self._open(key, "HEAD") as answer:
            return int(str(answer.headers["ETag"]).strip('"').partition("-")[2] or 1)

    def keys(self, prefix: str = "") -> list[str]:
        """List the objects."""
        found = self._ask(f"?list-type=2&prefix={quote(prefix)}").decode()
        return sorted(unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", found))

    def tree(self, prefix: str) -> dict[str, bytes]:
        """Return all objects of a folder by their names in it."""
        return {key.removeprefix(prefix): self.get(key) or b"" for key in self.keys(prefix)}

    def clear(self) -> None:
        """Delete all objects and unfinished uploads."""
        with urlopen(Request(f"{self.url}/moto-api/reset", b"", method="POST")):  # noqa: S310
            self.make_bucket()

    def make_bucket(self) -> None:
        """Make the bucket, which must not be there."""
        self._ask("?", "PUT")

    def unfinished_uploads(self) -> list[str]:
        """List the keys of uploads in several parts that were begun and not completed."""
        return re.findall(r"<Key>(.*?)</Key>", self._ask("?uploads").decode())

    def _ask(self, key: str, method: str = "GET", content: bytes | None = None) -> bytes:
        with self._open(key, method, content) as answer:
            return bytes(answer.read())

    def _open(self, key: str, method: str, content: bytes | None = None) -> Any:
        where = key if key.startswith("?") else "/" + quote(key)
        headers = {"Content-Type": "application/octet-stream", "Authorization": "AWS test:not checked"}
        return urlopen(Request(f"{self.url}/{self.bucket}{where}", content, headers, method=method))  # noqa: S310


@contextmanager
def serving(log: Path, **environment: str) -> Iterator[S3]:
    """Run a server with one empty bucket, as a process of its own."""
    # The port that the system gave is free again at once, and the server is told to take it.
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"

    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", address.partition(":")[2]]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})

    try:
        server = S3(address)
        _make_bucket_when_up(server, process)
        yield server
    finally:
        process.kill()
        process.wait()


def _make_bucket_when_up(server: S3, process: subprocess.Popen[bytes]) -> None:
    """Make the bucket as soon as the server answers; fail where it has ended, or does not answer in time."""
    end = time.monotonic() + _START_S
    while True:
        try:
            server.make_bucket()
        except URLError as err:
            if process.poll() is not None or time.monotonic() > end or isinstance(err, HTTPError):
                raise
            time.sleep(0.1)
        else:
            return


class Link:
    """
    The way to a server, for one program. It counts what goes through, and can be held or cut.

    :param address: host and port of the server
    :param hold_after: nothing goes to the server after so many bytes to it; None for no such end
    :param cut_after: as ``hold_after``, but connections break, and new ones are refused
    :ivar address: where the program connects to
    :ivar held: set when ``hold_after`` was reached
    """

    def __init__(self, address: str, *, hold_after: int | None = None, cut_after: int | None = None) -> None:
        self._server = address

        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent_bytes = self.received_bytes = 0

        self.held = threading.Event()
        self._hold_after, self._cut_after = hold_after, cut_after
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        # Less than nothing was sent, so that every new connection is refused.
        self._cut_after = -1
        for side in list(self._sockets):
            _close(side)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        _close(self._listener)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    _close(client)
                    continue

                host, _, port = self._server.partition(":")
                server = socket.create_connection((host, int(port)))

                self._sockets += [client, server]
                threading.Thread(target=self._send, args=(client, server), daemon=True).start()
                threading.Thread(target=self._receive, args=(server, client), daemon=True).start()

    @property
    def _is_cut(self) -> bool:
        return self._cut_after is not None and self.sent_bytes > self._cut_after

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(_PIECE_BYTES):
                self.sent_bytes += len(piece)
                if self._is_cut:
                    self.cut()
                if self._hold_after is not None and self.sent_bytes > self._hold_after:
                    self.held.set()
                    return
                server.sendall(piece)
        _close(server)

    def _receive(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while piece := server.recv(_PIECE_BYTES):
                self.received_bytes += len(piece)
                client.sendall(piece)
        # The connection stays open while it is held: a program that sees its end would not wait.
        if not self.held.is_set():
            _close(client)


def _close(side: socket.socket) -> None:
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    side.close()
