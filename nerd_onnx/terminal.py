"""Text that is safe to print on a terminal, and what libraries print there without being asked."""

from __future__ import annotations

import os
import tempfile
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

_STDERR = 2
# Unicode categories: control and format characters (bidi overrides too), line and paragraph ends, lone surrogates.
_CONTROL = ("Cc", "Cf", "Zl", "Zp", "Cs")


def printable(text: str) -> str:
    """Return a text with escapes in place of all characters that a terminal could interpret as commands."""
    return "".join(_escaped(c) if unicodedata.category(c) in _CONTROL else c for c in text)


def _escaped(character: str) -> str:
    if character == "\n":
        return "\\n"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 row``, ``2,048 rows``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class _Quiet:
    """Standard error of the process, replaced while Rust may print; the lock allows one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.real: int | None = None

    def replace(self, kept: int) -> None:
        # The descriptor of the process and not sys.stderr, which Rust does not know.
        self.real = os.dup(_STDERR)
        os.dup2(kept, _STDERR)

    def restore(self) -> None:
        real, self.real = self.real, None
        if real is not None:
            os.dup2(real, _STDERR)
            os.close(real)


_QUIET = _Quiet()


def restore_stderr() -> None:
    """Restore standard error, for the last words of a process that ends while it is replaced."""
    _QUIET.restore()


@contextmanager
def quiet_panics() -> Iterator[None]:
    """
    Keep what Rust libraries print about an error that they raise as well: up to 180 lines about one.

    Everything that was printed without an error, also by other threads, is printed afterwards.
    """
    with _QUIET.lock, ExitStack() as stack:
        try:
            kept = stack.enter_context(_unnamed_file())
            _QUIET.replace(kept.fileno())
        except OSError:  # standard error is closed, or there is no place for a file
            yield
            return

        try:
            yield
        except BaseException:
            kept.truncate(0)
            raise
        finally:
            _QUIET.restore()

            kept.seek(0)
            if printed := kept.read():
                with suppress(OSError):
                    os.write(_STDERR, printed)


def _unnamed_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):  # Linux: needs no folder
        return os.fdopen(os.memfd_create("nerd-stderr"), "w+b")
    return tempfile.TemporaryFile()
