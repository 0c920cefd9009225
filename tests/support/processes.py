"""``nerd-tag`` as a process that is killed, stopped and started again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

KILLED = -signal.SIGKILL
JOURNAL = "journal.jsonl"  # in the work folder


def command(*arguments: object) -> list[str]:
    """Return the command line of the program under test."""
    return [sys.executable, "-m", "nerd_onnx.cli", *map(str, arguments)]


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start it."""
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def work_folder(output: Path) -> Path:
    """Name the work folder of an output."""
    return output / ".nerd-work" if output.is_dir() else output.parent / f".{output.name}.nerd-work"


def wait_for_chunks(output: Path, chunks: int, timeout_s: float = 60) -> None:
    """Wait until so many chunks of a run are in its journal."""
    journal = work_folder(output) / JOURNAL
    end = time.monotonic() + timeout_s
    while not journal.is_file() or journal.read_bytes().count(b'"event": "chunk"') < chunks:
        if time.monotonic() > end:
            raise TimeoutError(f"{journal} has no {chunks} chunks")
        time.sleep(0.01)


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
    arguments: list[object], rng: random.Random, *, longest_s: float, most_kills: int, first_s: float = 0.2
) -> Survival:
    """
    Start a job again and again, killing each process at a random moment, until it is done.

    :param longest_s: the latest moment to kill at, in seconds after the start
    :param most_kills: after so many it is left alone
    """
    survival = Survival()
    while True:
        process = start(*arguments, "--resume", "--quiet")
        survival.starts += 1
        if survival.kills < most_kills:
            try:
                process.wait(rng.uniform(first_s, longest_s))
            except subprocess.TimeoutExpired:
                process.kill()
        _, err = process.communicate()
        if process.returncode == KILLED:
            survival.kills += 1
        elif process.returncode in (0, 3):
            return survival
        else:
            raise RuntimeError(f"exit code {process.returncode}: {err.decode()}")
