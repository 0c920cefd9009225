"""Workers of the engines that are killed, or runs that are stopped, when they are in the middle of their work."""

from __future__ import annotations

import glob
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.engines.helpers import command

_HANGING_S = 900  # nothing here takes so long, on whatever machine


@dataclass(frozen=True)
class Killed:
    """
    A run whose workers were killed.

    :param done: how it ended
    :param workers: the processes that were killed, or whose engine was
    """

    done: subprocess.CompletedProcess[str]
    workers: tuple[int, ...]


def run_with_kills(
    output: Path, *arguments: object, kills: int, victim: Callable[[int], int] = lambda worker: worker
) -> Killed:
    """
    Run the command, and kill workers when they have made a part of a file safe and not all of it.

    :param output: the folder of outputs
    :param kills: after so many they are left alone
    :param victim: gives the process to kill instead of the one that writes the file
    """
    killed: list[int] = []
    with _running(*arguments) as process:
        while len(killed) < kills and process.poll() is None:
            for worker in _stopped_workers(output):
                if worker not in killed and len(killed) < kills:
                    _kill(victim(worker))
                    killed.append(worker)
                _signal(worker, signal.SIGCONT)
            time.sleep(0.02)
        return Killed(_ended(process), tuple(killed))


def stopped_half_done(output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command, and ask it to stop as Ctrl-C does when a part of a file is safe."""
    with _running(*arguments) as process:
        while process.poll() is None and not any(map(_half_done, _locks(output))):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        return _ended(process)


def machine_of(worker: int) -> int:
    """Return the process that stands for the machine of a worker: Spark's executor, or Ray's raylet."""
    while not _command_line(worker).split(" ", 1)[0].endswith(("/java", "/raylet")):
        worker = int(_stat(worker)[1])
        assert worker > 1, "its engine is gone already"
    return worker


def kill_workers(name: str) -> list[int]:
    """
    Kill this process's descendants that have no children themselves.

    :param name: what is in their command lines
    """
    workers = [pid for pid in _descendants(os.getpid()) if name in _command_line(pid) and not any(_descendants(pid))]
    for worker in workers:
        _signal(worker, signal.SIGKILL)
    return workers


@contextmanager
def workers_killed(name: str, when: Callable[[], bool]) -> Iterator[list[int]]:
    """
    Kill workers once, while the body runs.

    :param name: see :func:`kill_workers`
    :param when: tells that it is time
    """
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02) and not killed:
            if when():
                killed.extend(kill_workers(name))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@contextmanager
def _running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start the command; whatever comes, it does not outlive the body."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command(*arguments), stdout=pipe, stderr=pipe, text=True) as process:
        guard = threading.Timer(_HANGING_S, process.kill)
        guard.start()
        try:
            yield process
        finally:
            guard.cancel()
            process.kill()


def _ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _stopped_workers(output: Path) -> Iterator[int]:
    """
    Stop each process that has written a part of a file, and give those that still had not written all of it.

    They can be killed in the middle of their work then, however late this process gets its turn.
    """
    for lock in _locks(output):
        worker = _half_done(lock)
        if worker is not None:
            _signal(worker, signal.SIGSTOP)
            _wait_for(worker, "TXZ")
            if _half_done(lock) == worker:
                yield worker
            else:
                _signal(worker, signal.SIGCONT)


def _locks(output: Path) -> list[Path]:
    """List the locks in the work folders of a run."""
    pattern = str(output / "**" / "*.nerd-work" / "lock")
    found = glob.glob(pattern, recursive=True, include_hidden=True)  # noqa: PTH207 - Path's minds folders that vanish
    return [Path(name) for name in found]


def _half_done(lock: Path) -> int | None:
    """Return the process that writes a file, once a chunk of it is in the journal and the file is not finished."""
    try:
        if b'"chunk"' not in lock.with_name("journal.jsonl").read_bytes():
            return None
        worker: int = json.loads(lock.read_bytes())["process"]
    except (OSError, ValueError, KeyError):
        return None
    return worker


def _kill(pid: int) -> None:
    """Kill a process, and wait until it is dead."""
    os.kill(pid, signal.SIGKILL)
    _wait_for(pid, "XZ")


def _wait_for(pid: int, states: str) -> None:
    """Wait until the system says that a process is in one of these states."""
    while _stat(pid)[0] not in states:
        time.sleep(0.001)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _descendants(child)


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _stat(pid: int) -> list[str]:
    """Return what the system says of a process, from its state on; of one that is gone, that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]
