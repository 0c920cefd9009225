"""
Signals that stop a command within two seconds, also where the program waits for something that never comes.

Python calls the handler of a signal in the main thread, between two steps of the interpreter. A thread that waits in a
library does not get there. So a second thread learns of the signal too, and ends the process when the main thread does
not react in time. That is as safe as ``kill -9``, after which every run can be resumed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

import click

from nerd_onnx import interruption
from nerd_onnx.cli.common import run_command
from nerd_onnx.cli.streams import message
from nerd_onnx.terminal import restore_stderr

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REACTION_S = 1.5  # until the work reacts to the signal
_STORING_S = 30.0  # after that, until the results are stored
_EXIT_S = 1.0  # after the run, until the process has ended
_PRINTING_S = 0.3  # the reader of standard error may be the one that does not read
_TICK_S = 0.05


class StopSignals:
    """
    A context in which SIGINT and SIGTERM end the command: a run after it stored its work, everything else at once.

    A second signal ends the process at once. Outside the main thread the context does nothing, because Python handles
    signals only in the main thread.

    :param report: prints one line about the end of a process that did not react to a signal
    :param acknowledge: prints that a run received its first signal
    """

    def __init__(self, report: Callable[[int], None], acknowledge: Callable[[], None] | None = None) -> None:
        self._report = report
        self._acknowledge = acknowledge

        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._left_at: float | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self

        interruption.begin()

        # A signal that the parent lets the process ignore stays ignored, as for the background jobs of a shell.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._handle) for number in heeded}

        # Sockets, because select() knows no pipes on Windows.
        try:
            self._pair = reader, writer = socket.socketpair()
        except OSError:  # no more open files are allowed: signals are handled by the main thread alone
            return self

        writer.settimeout(0)  # a full buffer loses a signal that others precede
        # Python writes the number of a signal here at once, also while the main thread waits in a library.
        self._wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        # If the system allows no more threads, signals are handled by the main thread alone.
        with suppress(RuntimeError):
            threading.Thread(target=self._watch, args=(reader,), name="nerd-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pair is None:
            return
        if interruption.state.abandoned:
            _exit_now(err.code if isinstance(err, SystemExit) else 1)

        # After a signal the watch goes on: libraries may wait for their threads when the process ends.
        self._left_at = time.monotonic()
        if interruption.state.number is None:
            signal.set_wakeup_fd(self._wakeup_before)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._pair[1].close()  # ends the thread, which closes the other end

    @staticmethod
    def _handle(number: int, _: FrameType | None) -> None:
        interruption.signalled(number)

    def _watch(self, reader: socket.socket) -> None:
        """Wait for signals; end the process when one has no effect in time, or a second one arrives."""
        number, begin, noticed_at = None, 0.0, None
        while True:
            ready, _, _ = select.select([reader], [], [], None if number is None else _TICK_S)
            if ready:
                received = reader.recv(1)
                if not received:
                    reader.close()
                    return

                # Other signals wake this thread too, and an engine may have its own handlers.
                if not self._is_ours(received[0]):
                    continue
                if number is not None:
                    self._end(number)

                number, begin = received[0], time.monotonic()
                if self._acknowledge is not None and interruption.state.runs:
                    _start_printing(self._acknowledge)

            if number is not None:
                noticed_at = noticed_at or (time.monotonic() if interruption.state.noticed else None)
                if time.monotonic() > self._limit(begin, noticed_at):
                    self._end(number)

    def _is_ours(self, number: int) -> bool:
        # A bound or static method is a new object at each look-up, so they are compared and not identified.
        return number in _SIGNALS and signal.getsignal(number) == self._handle

    def _limit(self, begin: float, noticed_at: float | None) -> float:
        """Return when the process must have ended, by what it has done since the signal."""
        if self._left_at is not None:
            return max(begin, self._left_at) + _EXIT_S
        if noticed_at is not None:
            return noticed_at + (_STORING_S if interruption.state.runs else _EXIT_S)
        return begin + _REACTION_S

    def _end(self, number: int) -> None:
        """Print one line, unless the command has printed its own, and end the process."""
        if self._left_at is None:
            restore_stderr()
            _start_printing(self._report, number, wait_s=_PRINTING_S)

        # Not sys.exit(), which would wait for the thread that does not react.
        os._exit(128 + number)


def run_stoppable(command: click.Command, when_interrupted: str = "No output was written.") -> NoReturn:
    """
    Run a command that has no work to store, and exit the process; a signal ends it within two seconds.

    :param when_interrupted: end of the message after a signal
    """
    with StopSignals(lambda _: message(f"{command.name}: interrupted. {when_interrupted}")):
        run_command(command, when_interrupted=when_interrupted)


def _start_printing(function: Callable[..., None], *arguments: int, wait_s: float = 0.0) -> None:
    """Print in a thread of its own, which may wait for the reader of standard error."""
    printing = threading.Thread(target=function, args=arguments, daemon=True)
    with suppress(RuntimeError):  # the system allows no more threads
        printing.start()
        printing.join(wait_s)


def _exit_now(code: Any) -> None:
    """End the process without waiting for threads that wait for remote storage."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)
