"""``nerd-tag`` as a process that is killed, stopped and started again."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

KILLED = -signal.SIGKILL
ROOT = Path(__file__).resolve().parents[2]
WORK = ".nerd-work"  # name of the work folder of a folder, and end of that of a file
JOURNAL = "journal.jsonl"  # in the work folder


def command(*arguments: object) -> list[str]:
    """Return the command line of the program under test."""
    return [sys.executable, "-m", "nerd_onnx.cli", *map(str, arguments)]


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start it."""
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Started(Protocol):
    """A process, as far as :class:`subprocess.Popen` and :class:`Forked` have the same methods."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code; ``subprocess.TimeoutExpired`` after a time in seconds."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def communicate(self) -> tuple[bytes, bytes]:
        """Wait for its end and return its standard output and standard error."""


class Starter(Protocol):
    """Starts the program under test."""

    def __call__(self, *arguments: object) -> Started:
        """Start it with arguments."""


class Forked:
    """
    The program under test as a copy of this process, which has imported it: a start takes no half second of imports.

    :param arguments: its arguments
    """

    def __init__(self, *arguments: object) -> None:
        from nerd_onnx.cli import tag  # noqa: F401 - the copies have it

        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by communicate()
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads; the copy uses none
            self._process.start()

    def _run(self, *arguments: object) -> None:
        from nerd_onnx.cli.tag import main

        # sys.stderr may be one of pytest; the descriptor is that of the process.
        os.dup2(self._said.fileno(), sys.__stderr__.fileno() if sys.__stderr__ else 2)
        sys.argv = ["nerd-tag", *map(str, arguments)]
        main()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("nerd-tag", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def communicate(self) -> tuple[bytes, bytes]:
        """Wait for its end; standard output is not kept."""
        self.wait()
        with self._said as said:
            said.seek(0)
            return b"", said.read()


def work_folder(output: Path) -> Path:
    """Name the work folder of an output."""
    return output / WORK if output.is_dir() else output.parent / f".{output.name}{WORK}"


def start_and_stop(
    chunks: int,
    *arguments: object,
    system: str = "this",
    environment: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
    timeout_s: float = 120,
) -> subprocess.Popen[bytes]:
    """
    Start it, and return when it has stopped itself (SIGSTOP) because so many chunks are in its journal.

    :param system: one of :mod:`other_system`, or ``this``
    """
    line = [sys.executable, "-m", "tests.support.stopping", str(chunks), system, *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**environment, "PYTHONPATH": path}, cwd=cwd
    )

    end = time.monotonic() + timeout_s
    while True:
        found, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
        if found and os.WIFSTOPPED(status):
            return process
        if found or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"it did not stop at chunk {chunks}: {process.communicate()}")
        time.sleep(0.01)


def continue_with(process: subprocess.Popen[bytes], number: signal.Signals) -> bytes:
    """Send a signal to a stopped process, let it go on, and return its standard error when it has ended."""
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=60)[1]


@dataclass
class Survival:
    """
    What became of a job that was killed until it was done.

    :param kills: processes that were killed
    :param starts: processes that were started
    """

    kills: int = 0
    starts: int = 0


def run_with_kills(
    arguments: list[object],
    rng: random.Random,
    *,
    longest_s: float,
    most_kills: int,
    first_s: float = 0.2,
    starter: Starter = start,
) -> Survival:
    """
    Start a job again and again, killing each process at a random moment, until it is done.

    :param longest_s: the latest moment to kill at, in seconds after the start
    :param most_kills: after so many it is left alone
    :param first_s: the earliest moment to kill at
    :param starter: starts the processes
    """
    survival = Survival()
    while True:
        # Also at the first start, where there is nothing to resume.
        process = starter(*arguments, "--resume", "--quiet")

        survival.starts += 1
        if survival.kills < most_kills:
            try:
                process.wait(rng.uniform(first_s, longest_s))
            except subprocess.TimeoutExpired:
                process.kill()

        _, err = process.communicate()
        code = process.wait()

        if code == KILLED:
            survival.kills += 1
        elif code in (0, 3):
            return survival
        else:
            raise RuntimeError(f"exit code {code}: {err.decode()}")
