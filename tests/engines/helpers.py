"""What the tests of the engines share: rows, the local run to compare with, and workers that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.job import TagJob
from nerd_onnx.run import tag_files
from nerd_onnx.tagger import Tagger
from tests.faults.helpers import texts, write_lines, write_parquet

ROWS = 240


def table(rows: int = ROWS) -> pa.Table:
    """Make rows with an empty text, missing ones, and columns of several kinds beside it."""
    found: list[str | None] = [None, "", *texts(rows - 3), None]
    return pa.table(
        {
            "key": pa.array(range(rows), pa.int64()),
            "text": found,
            "part": pa.array([["a", "ß"] if i % 3 else None for i in range(rows)], pa.list_(pa.string())),
        }
    )


def local_rows(rows: pa.Table, folder: Path, model: str | None = None, **options: Any) -> list[dict[str, Any]]:
    """Give what the local run makes of rows, through files."""
    source, output = folder / "rows.parquet", folder / "tagged.parquet"
    pq.write_table(rows, source)
    tag_files(Tagger.load(model, threads=2, **options), TagJob([str(source)], str(output), overwrite=True))
    found: list[dict[str, Any]] = pq.read_table(output).to_pylist()
    return found


def corpus(folder: Path, rows: int = 60) -> Path:
    """Make a folder of Parquet and JSON Lines files, one of them in a folder of its own."""
    (folder / "deep").mkdir(parents=True)
    found = texts(4 * rows)
    write_parquet(folder / "a.parquet", found[:rows], row_group_size=25)
    write_parquet(folder / "deep" / "b.parquet", found[rows : 2 * rows], row_group_size=1000)
    write_lines(folder / "c.jsonl", [*found[2 * rows : 3 * rows], "São Paulo, “Łódź” and 東京 \U0001f600"])
    write_lines(folder / "d.jsonl.gz", found[3 * rows :])
    return folder


def command(*arguments: object) -> list[str]:
    """Give the command line of the program under test."""
    return [sys.executable, "-m", "nerd_onnx.cli", *map(str, arguments), "--json"]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=900, **options)


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Give the summary, or the error: the last line, after what the engine itself says."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    found: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])
    return found


@dataclass(frozen=True)
class Killed:
    """
    A run whose workers were killed.

    :param done: how it ended
    :param workers: the processes that were killed
    """

    done: subprocess.CompletedProcess[str]
    workers: tuple[int, ...]


def run_with_kills(
    output: Path, *arguments: object, kills: int, victim: Callable[[int], int] = lambda worker: worker
) -> Killed:
    """
    Run the command, and kill workers when they have made a part of a file safe.

    :param output: the folder of outputs
    :param kills: after so many they are left alone
    :param victim: gives the process to kill instead of the one that writes the file
    """
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed: list[int] = []
    end = time.monotonic() + 900
    while process.poll() is None and time.monotonic() < end:
        for lock in output.rglob("*.nerd-work/lock"):
            worker = _half_done(lock)
            if worker is not None and worker not in killed and len(killed) < kills:
                os.kill(victim(worker), signal.SIGKILL)
                killed.append(worker)
        time.sleep(0.02)
    out, err = process.communicate(timeout=30)
    return Killed(subprocess.CompletedProcess(process.args, process.returncode, out, err), tuple(killed))


def stopped_half_done(output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command, and ask it to stop as Ctrl-C does when a part of a file is safe."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(map(_half_done, output.rglob("*.nerd-work/lock"))):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def executor_of(worker: int) -> int:
    """Give the Java process that a Python worker of Spark belongs to."""
    while "java" not in _command_line(worker).split(" ", 1)[0]:
        worker = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    return worker


def _half_done(lock: Path) -> int | None:
    """Give the process that writes a file, once a chunk of it is in the journal."""
    try:
        if b'"chunk"' not in lock.with_name("journal.jsonl").read_bytes():
            return None
        worker: int = json.loads(lock.read_bytes())["process"]
    except (OSError, ValueError, KeyError):
        return None
    return worker


@contextmanager
def worker_killed(name: str, busy_s: float = 2.5) -> Iterator[list[int]]:
    """
    Kill one worker among this process's descendants while the body runs, when it is past loading its model.

    :param name: how the worker's command line begins, or what is in it
    :param busy_s: seconds of processor time after which it is killed
    """
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02) and not killed:
            busy = [pid for pid in _descendants(os.getpid()) if name in _command_line(pid) and _cpu_s(pid) >= busy_s]
            for pid in busy[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


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


def _cpu_s(pid: int) -> float:
    """Give the processor time that a process took, in seconds."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """
    Start a Spark master and two workers of one processor each on loopback.

    :param folder: takes their logs and files
    :return: the master's address
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    master = f"spark://127.0.0.1:{port}"
    deploy = "org.apache.spark.deploy"
    commands = [[f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]]
    for i in range(2):
        place = ["--host", "127.0.0.1", "--webui-port", "0", "--work-dir", str(folder / f"worker{i}")]
        commands.append([f"{deploy}.worker.Worker", *place, "--cores", "1", "--memory", "1g", master])
    processes = []
    program = str(Path(sys.executable).with_name("spark-class"))
    try:
        with (folder / "spark.log").open("w") as log:
            for arguments in commands:
                processes.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log))  # noqa: PERF401
        _wait_for_workers(folder / "spark.log", 2)
        yield master
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def _wait_for_workers(log: Path, workers: int, timeout_s: float = 90) -> None:
    """Wait until the master knows so many workers."""
    end = time.monotonic() + timeout_s
    while log.read_text().count("Successfully registered with master") < workers:
        if time.monotonic() > end:
            raise TimeoutError(log.read_text())
        time.sleep(0.2)
