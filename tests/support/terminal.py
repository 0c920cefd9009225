"""``nerd-tag`` on a terminal: a process whose standard streams are a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping

from tests.support.processes import command

_COLUMNS, _LINES = 120, 30


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """
    A run of ``nerd-tag`` on a terminal.

    :param arguments: its arguments
    :param environment: variables that it gets beside those of the test
    :ivar shown: what it has printed
    :ivar code: exit code; None while it runs
    """

    def __init__(self, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        self.shown = ""
        self.code: int | None = None
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))

        self.process = subprocess.Popen(
            command(*arguments),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", **(environment or {})},
            # Tests that a shell runs in the background ignore Ctrl-C, and so would what they start.
            preexec_fn=_heed_interrupts,  # noqa: PLW1509
        )
        os.close(terminal)

    def wait_for(self, found: Callable[[str], object], timeout_s: float = 300) -> str:
        """Read until a part of what is shown is found, or the process ends; return all that was shown."""
        end = time.monotonic() + timeout_s
        while not found(self.shown):
            if time.monotonic() > end:
                self.process.kill()
                self.process.wait()
                raise TimeoutError(f"not shown in {timeout_s} s: {self.shown[-2000:]!r}")

            ready, _, _ = select.select([self._controller], [], [], 0.1)
            if ready and not self._read():
                break
        return self.shown

    def finish(self, timeout_s: float = 300) -> str:
        """Wait for the end of the process and return all that it printed."""
        self.wait_for(lambda _: False, timeout_s)

        self.code = self.process.wait(timeout_s)
        os.close(self._controller)
        return self.shown

    def _read(self) -> bool:
        """Read what is there; False at the end. Linux reports the end of a terminal as an error."""
        try:
            piece = os.read(self._controller, 1 << 16)
        except OSError:
            return False

        self.shown += piece.decode(errors="replace")
        return bool(piece)
